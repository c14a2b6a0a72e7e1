"""What the parts of the model of escrow share: what a bank was told, the account of an order, and all accounts; see
`model_money.py`."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from tests.simulation.model import DAY, HOUR, MINUTE, Said, Timers
from tests.simulation.model_banks import Banks

INSTRUCT: Final = "bank.instruct.v1"
PAYMENT_TIMER: Final = "escrow.payment.deadline.v1"
INSTRUCTION_TIMER: Final = "escrow.instruction.deadline.v1"
MOVING: Final = ("sent", "refused", "gathered")
"""States of a payment whose money is on its way."""


@dataclass
class Payment:
    """What a bank was told: `turn` counts what came back, `attempt` what was refused or came back and tried anew."""

    amount: int
    state: str = "sent"
    attempt: int = 0
    turn: int = 0
    asks: int = 0
    reference: str = ""
    returned: list[str] = field(default_factory=list)
    """The references under which it was made, and came back."""
    to: str | None = None
    """Of payouts: the account, if it is not the order's own."""

    def look_again_in(self) -> timedelta:
        """When the bank is asked again, or, after a refusal, told anew."""
        if self.state == "refused":
            return min(HOUR / 2 * (1 << min(self.attempt, 10)), DAY)
        return min(5 * MINUTE * (1 << min(self.asks, 10)), 6 * HOUR)


@dataclass
class Account:
    """The money of one order; payments by (kind, lesson)."""

    price: int
    lessons: int
    pay_by: datetime
    bank: str
    supervised: str
    payout_account: str
    institution: str
    state: str = "collecting"
    reason: str = ""
    reference: str = ""
    """The bank's own number of the money that is held."""
    complaints: dict[str, bool] = field(default_factory=dict)
    """Complaint → still open."""
    payments: dict[tuple[str, int], Payment] = field(default_factory=dict)
    given_back: set[int] = field(default_factory=set)

    @property
    def suspended(self) -> int:
        """Complaints that hold its releases."""
        return sum(self.complaints.values())

    def fee(self, number: int) -> int:
        """The price of a lesson: the last one takes what is left over."""
        each, rest = divmod(self.price, self.lessons)
        return each + rest if number == self.lessons else each

    def balances(self) -> tuple[int, ...]:
        """Paid, held, releasing, released, refunding, refunded: nothing but what its payments say."""

        def total(kind: str, *states: str) -> int:
            return sum(p.amount for (k, _), p in self.payments.items() if k == kind and p.state in states)

        paid = total("collect", "paid")
        gone = [total(kind, *states) for kind in ("payout", "refund") for states in (MOVING, ("paid",))]
        return paid, paid - sum(gone), *gone


class Books:
    """All accounts, and what was said and is to come of them."""

    def __init__(self, banks: Banks) -> None:
        self.banks = banks
        self.accounts: dict[str, Account] = {}
        self.freezes: dict[str, tuple[str, int]] = {}
        """Institution → how catalog told last that it stands, and with which change."""
        self.counts: Counter[str] = Counter()
        self.timers: Timers = {}
        self.said: Said = Counter()

    def frozen(self, institution: str) -> bool:
        """No payout of it begins."""
        return self.freezes.get(institution, ("", 0))[0] == "frozen"
