"""The model of banks: which one the institution has named, where each order's money therefore is, and what each bank
may be told; see `model.py`."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Final

from ops.bank.statements import Form
from shared.contracts.catalog import BankAccount
from tests.simulation.model import SHANGHAI
from tests.simulation.model_days import is_working_day
from tests.simulation.simulation import Heard

BANKS: Final[dict[str, tuple[time, Form]]] = {
    "icbc": (time(16, 30), "camt053"),
    "abc": (time(16, 0), "csv"),
    "boc": (time(17, 0), "camt053"),
    "ccb": (time(16, 30), "csv"),
    "jiangnan": (time(15, 30), "csv"),
}
"""Those that supervise: until when a day's sums are taken, and the form of the statement."""
RESERVE: Final = "catalog.seat.reserve.v1"
FRIDAY: Final = 4
LETTERS: Final = {"collect": "C", "payout": "P", "refund": "R", "return": "S", "gathered": "G"}
"""With what the number of an instruction begins."""
AT_THE_BANK: Final = {"return": "refund", "gathered": "payout"}
"""What a bank calls it, if not as escrow does."""


@dataclass(frozen=True)
class Place:
    """A bank, the supervised account there, and the account to which it pays out."""

    bank: str
    supervised: str
    payout: str


def cut_off(bank: str, mode: str, now: datetime) -> datetime:
    """When the bank takes sums next, of a day or of a Friday; where nobody works, on the next working day."""
    at = BANKS[bank][0]
    today = now.astimezone(SHANGHAI).replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    found = []
    for due in (today + timedelta(days=number) for number in range(-14, 8)):
        if mode == "daily" or due.weekday() == FRIDAY:
            while not is_working_day(due.date()):
                due += timedelta(days=1)
            found.append(due)
    return min(due for due in found if due > now).astimezone(now.tzinfo)


def is_account(number: str) -> bool:
    """What all these banks take for the number of an account."""
    plain = number.replace(" ", "").replace("-", "")
    return 2 <= len(number) <= 34 and number[0] not in " -" and plain.isascii() and plain.isalnum()


class Banks:
    """The bank of the institution that moves, now and when each order got its seat; and by number what banks are told.
    `neighbours`: course → where the fees of who sells it are, who never moves."""

    def __init__(self, institution: str, authority: str, place: Place, neighbours: dict[str, Place]) -> None:
        self.institution = institution
        self.authority = authority
        self.place = place
        """The last one it has named."""
        self.disclosed: Place | None = place
        """None: it has taken it back, which one that does not sell may."""
        self.neighbours = neighbours
        self.moves: list[Place | None] = []
        self.places: dict[str, Place] = {}
        """Order → where its money is, whatever is disclosed later."""
        self.with_seat: set[str] = set()
        """Orders that have got a seat: catalog's own rules say which."""
        self.told: dict[tuple[str, str, int, int], tuple[object, ...]] = {}
        self.counts: Counter[str] = Counter()

    # --- where the institution is -----------------------------------------------------------------------------------

    def disclose(self, m: Heard, state: str) -> str:
        """The authority enters what the institution, which is in `state`, discloses; here, nothing but its account is
        ever another."""
        account = m.data["disclosure"]["account"]
        if m.actor != self.authority:
            return "!actor_forbidden"
        if m.data["institution_id"] != self.institution:
            return "!institution_not_registered"
        place = Place(account["bank"], account["supervised_account"], account["payout_account"]) if account else None
        if place == self.disclosed:
            return state
        if state == "closed":
            return "!institution_state"
        if place is None:
            if state == "listed":
                return "!institution_undisclosed"
            self.counts["discloses no bank"] += 1
        else:
            if place.bank not in BANKS:
                return "!bank_unknown"
            if not is_account(place.supervised) or not is_account(place.payout):
                return "!bank_account_invalid"
            self.counts["moves to another bank" if place.bank != self.place.bank else "moves within a bank"] += 1
            self.place = place
        self.disclosed = place
        self.moves.append(place)
        return state

    def sell(self, order: str, course: str) -> None:
        """A seat was asked for. The money of who gets it will be where the institution is now."""
        if order in self.with_seat:
            self.places.setdefault(order, self.neighbours.get(course, self.place))

    # --- what banks are told ----------------------------------------------------------------------------------------

    def tell(
        self,
        key: tuple[str, str, int, int],
        *,
        bank: str,
        supervised: str,
        amount: int,
        to: str = "",
        reference: str = "",
    ) -> None:
        """`key`: what, of whom, of which lesson, at which attempt. A number that was told keeps what was said first."""
        what = key[0]
        key = LETTERS[what], *key[1:]
        if key not in self.told:
            elsewhere = "" if bank == self.place.bank else ", at a bank that was left"
            self.counts[f"told: {what}{elsewhere}"] += 1
        self.told.setdefault(key, (AT_THE_BANK.get(what, what), bank, supervised, to, amount, reference))

    def hear(self, m: Heard) -> None:
        """Orders hears of a seat, or a bank of an instruction: with the right bank, and the right accounts."""
        if m.type == "catalog.seat.reserved.v1":
            offered, should_be = m.data["account"], account_of(self.places[m.data["order_id"]])
            assert offered == should_be, f"offered with {offered}, should be {should_be}"
        if m.type != "bank.instruct.v1":
            return
        number = m.data["number"]
        names = ("kind", "bank", "supervised_account", "counter_account", "amount_fen", "refund_reference")
        said = tuple(m.data[name] for name in names)
        should = self.told.get((number[0], m.data["order_id"], int(number[26:29], 36), int(number[29], 36)))
        assert said == should, f"{number}: the bank was told {said}, should be {should}"


def place_of(account: BankAccount) -> Place:
    """Where an institution is that has disclosed `account`."""
    return Place(account.bank, account.supervised_account, account.payout_account)


def account_of(place: Place | None) -> dict[str, Any] | None:
    """As catalog has it."""
    if place is None:
        return None
    return {"bank": place.bank, "supervised_account": place.supervised, "payout_account": place.payout}
