"""The words between escrow and the banks. Accepted is not paid; unknown is asked again with the same number."""

from typing import Literal
from uuid import UUID

from shared.contracts import topics
from shared.contracts.envelope import Command, Event
from shared.contracts.types import InstructionNumber, Moment, Name, Word
from shared.money import PositiveFen

InstructionKind = Literal["collect", "payout", "refund"]
Outcome = Literal["accepted", "paid", "refused", "unknown", "returned"]


class Instruct(Command, type="bank.instruct.v1", topic=topics.BANK_INSTRUCTIONS, key="order_id"):
    """One instruction. `number` (30 ASCII characters at most) is the same for every retry after an unknown outcome.

    collect: from the guardian's payment `method` into `supervised_account` by `valid_until`;
    payout: from there to `counter_account`; refund: from there back the way it came: the very movement that the bank
    knows as `refund_reference`, or, where none is named, what came under the number `refund_of`. Money that nobody
    asked for has only its reference, and if the bank has not told where it came in, no `supervised_account`.
    """

    order_id: UUID
    number: InstructionNumber
    kind: InstructionKind
    bank: Word
    supervised_account: Name | Literal[""]
    counter_account: Name | Literal[""] = ""
    amount_fen: PositiveFen
    method: Word | Literal[""] = ""
    refund_of: InstructionNumber | Literal[""] = ""
    refund_reference: Name | Literal[""] = ""
    valid_until: Moment | None = None


class Result(Event, type="bank.result.v1", topic=topics.BANK_RESULTS, key="order_id"):
    """What a bank says of `number`. May come twice, late, out of order, or for a number nobody gave.

    `reference` is the bank's own number of this movement: two payments have two references, a repeat has the same.
    `account`: of money that came in, the supervised account it came to, where the bank tells it.
    """

    order_id: UUID | None = None
    number: Name
    kind: InstructionKind
    outcome: Outcome
    amount_fen: PositiveFen
    bank: Word
    reference: Name
    account: Name | Literal[""] = ""
    reason: str = ""
    happened_at: Moment


class ActLater(Command, type="bank.act_later.v1", topic=topics.BANK_INSTRUCTIONS, key="order_id"):
    """Timer of the stand-in bank, to itself: what it put off for `number` is due. No other bank hears it.

    answer: say what is known of the number; pay: pay what was only accepted; return: a payment comes back (退票).
    """

    order_id: UUID
    bank: Word
    number: Name
    act: Literal["answer", "pay", "return"]
