"""The rules of a purchase, pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from shared.contracts.errors import Refused

GRACE: Final = timedelta(minutes=2)
"""How much longer than the payment window the saga waits: escrow watches the window itself and tells."""


@dataclass(slots=True)
class Purchase:
    """One purchase; `state` is the step of the saga it waits in (`saga.py`), `act_by` when that step is late.

    `child_hash` says which person the child is, whoever has added it; known from the reservation on. `reason` and
    `detail`: why it was given up, as a code and in words for the family.
    """

    order_id: UUID
    account_id: UUID
    child_id: UUID
    course_id: UUID
    state: str
    reason: str
    act_by: datetime | None
    placed_at: datetime
    institution_id: UUID | None = None
    title: str = ""
    category: str = ""
    price_fen: int = 0
    lessons: int = 0
    offer: dict[str, Any] | None = None
    contract_sha256: str = ""
    signer_version: int = 0
    signed_at: datetime | None = None
    paid_at: datetime | None = None
    method: str = ""
    child_hash: bytes | None = None
    detail: str = ""
    district: str = ""


@dataclass(slots=True, frozen=True)
class Contract:
    """A contract as stored: its encrypted text."""

    order_id: UUID
    text: str
    drawn_at: datetime


def require_state(purchase: Purchase, *states: str) -> None:
    """Refuses order_state unless the purchase stands in one of `states`."""
    if purchase.state not in states:
        raise Refused("order_state", state=purchase.state)


def sign(purchase: Purchase, contract_sha256: str, now: datetime) -> bool:
    """The guardian signs what was shown. False when it was signed before (asked again: the same answer).

    Raises Refused: contract_changed, order_state.
    """
    if contract_sha256 != purchase.contract_sha256:
        if not purchase.contract_sha256:
            require_state(purchase, "to_sign")
        raise Refused("contract_changed")
    if purchase.signed_at is not None and purchase.state in ("to_pay", "paying", "held", "enrolled"):
        return False
    require_state(purchase, "to_sign")
    purchase.signed_at = now
    return True


def choose_payment(purchase: Purchase, method: str) -> bool:
    """The guardian chooses how to pay. False when that was chosen before. Raises Refused order_state."""
    if purchase.method == method and purchase.state in ("paying", "held", "enrolled"):
        return False
    require_state(purchase, "to_pay")
    purchase.method = method
    return True
