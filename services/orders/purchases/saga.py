"""The purchase as a saga: one table. A row is a state in which a purchase waits.

Entering a state sends its commands and sets its deadline; the awaited message moves on; a refusal goes where the row
says. Giving up before the money is held undoes what was done (`undo`); once it is held, the money goes back first.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from services.orders.purchases.domain import GRACE, Purchase
from shared.contracts import topics
from shared.contracts.catalog import ExtendSeat, GiveBackSeat, ReserveSeat, SeatReserved, SeatTaken, TakeSeat
from shared.contracts.envelope import Command, Message
from shared.contracts.escrow import CancelPayment, CollectPayment, Held, PaymentFailed, Refunded, RefundOrder
from shared.contracts.orders import PayPurchase, PurchaseDeadline, PurchaseEnded, SignContract
from shared.messaging.work import UnitOfWork

Make = Callable[[Purchase], Command]


def _reserve(purchase: Purchase) -> Command:
    return ReserveSeat(order_id=purchase.order_id, course_id=purchase.course_id)


def _extend(purchase: Purchase) -> Command:
    assert purchase.act_by is not None
    return ExtendSeat(order_id=purchase.order_id, until=purchase.act_by)


def _collect(purchase: Purchase) -> Command:
    assert purchase.offer is not None
    offer = SeatReserved.model_validate(purchase.offer)
    assert purchase.act_by is not None
    return CollectPayment(
        order_id=purchase.order_id,
        account_id=purchase.account_id,
        institution_id=offer.institution_id,
        account=offer.account,
        amount_fen=purchase.price_fen,
        lessons=purchase.lessons,
        method=purchase.method,
        pay_by=purchase.act_by - GRACE,
        district=offer.district,
    )


def _take(purchase: Purchase) -> Command:
    return TakeSeat(order_id=purchase.order_id)


def _give_back(purchase: Purchase) -> Command:
    return GiveBackSeat(order_id=purchase.order_id, reason=purchase.reason)


def _cancel(purchase: Purchase) -> Command:
    return CancelPayment(order_id=purchase.order_id, reason=purchase.reason)


def _refund(purchase: Purchase) -> Command:
    return RefundOrder(order_id=purchase.order_id, reason=purchase.reason)


DETAIL_CHARACTERS: Final = 2000
"""Most of a refusal's words that are kept and told: as much as the contract takes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One row: in `state`, after `sends`, the purchase waits for `awaits`, which leads to `then`.

    A refusal leads to `refused`. When `wait` is over it is given up (refused) or asked again (sends once more); `wait`
    None means that `act_by` is set by what led here. `undo` is sent when the purchase ends from this state.
    """

    state: str
    sends: tuple[Make, ...]
    awaits: tuple[str, ...]
    then: str
    refused: str
    when_late: Literal["give_up", "ask_again"]
    wait: timedelta | None = None
    undo: tuple[Make, ...] = field(default=())


def _names(*contracts: Any) -> tuple[str, ...]:
    return tuple(contract.TYPE for contract in contracts)


# fmt: off
SAGA: Final = (
    #    state         sends                  awaits                            then         refused       when late
    Step("placed",     (_reserve,),           _names(SeatReserved),             "to_sign",   "ended",      "give_up",
         wait=timedelta(minutes=2), undo=(_give_back,)),
    Step("to_sign",    (),                    _names(SignContract),             "to_pay",    "ended",      "give_up",
         undo=(_give_back,)),
    Step("to_pay",     (),                    _names(PayPurchase),              "paying",    "ended",      "give_up",
         undo=(_give_back,)),
    Step("paying",     (_extend, _collect),   _names(Held, PaymentFailed),      "held",      "cancelling", "give_up",
         undo=(_give_back,)),
    # Refused while paying, it is not known whether money came: escrow decides that, and sends back what did.
    # The pivot: the money is in escrow. From here the purchase goes forward, or the money goes back first.
    Step("held",       (_take,),              _names(SeatTaken),                "enrolled",  "refunding",  "ask_again",
         wait=timedelta(minutes=1)),
    Step("cancelling", (_cancel,),            _names(PaymentFailed, Refunded),  "ended",     "cancelling", "ask_again",
         wait=timedelta(minutes=5), undo=(_give_back,)),
    Step("refunding",  (_refund,),            _names(Refunded),                 "ended",     "refunding",  "ask_again",
         wait=timedelta(hours=1), undo=(_give_back,)),
)
# fmt: on
STEPS: Final = {step.state: step for step in SAGA}
DONE: Final = frozenset({"enrolled", "ended"})


def enter(
    work: UnitOfWork, purchase: Purchase, state: str, cause: Message[Any], act_by: datetime | None = None
) -> None:
    """Moves `purchase` to `state`: its commands go out, its deadline is set."""
    purchase.state = state
    step = STEPS.get(state)
    if step is None:
        purchase.act_by = None
        work.cancel_timer(PurchaseDeadline, purchase.order_id)
        return
    if act_by is not None or step.wait is not None:
        purchase.act_by = act_by or (work.now + step.wait if step.wait else None)
    assert purchase.act_by is not None
    _ask(work, purchase, step.sends, cause)
    deadline = PurchaseDeadline(order_id=purchase.order_id, state=state)
    work.set_timer(deadline, purchase.act_by, cause)


def end(work: UnitOfWork, purchase: Purchase, reason: str, cause: Message[Any], detail: str = "") -> None:
    """Ends `purchase` without enrolment: what was done is undone, and the family is told, of a refusal in words too."""
    step = STEPS[purchase.state]
    if not purchase.reason:
        purchase.reason, purchase.detail = reason, detail[:DETAIL_CHARACTERS]
    _ask(work, purchase, step.undo, cause)
    enter(work, purchase, "ended", cause)
    ended = PurchaseEnded(
        order_id=purchase.order_id, account_id=purchase.account_id, reason=purchase.reason, detail=purchase.detail
    )
    work.send(ended, cause)


def refused(work: UnitOfWork, purchase: Purchase, reason: str, cause: Message[Any], detail: str = "") -> None:
    """The step was refused, or given up: on to where its row says."""
    step = STEPS[purchase.state]
    if step.refused == "ended":
        end(work, purchase, reason, cause, detail)
    elif step.refused != purchase.state:
        purchase.reason, purchase.detail = reason, detail[:DETAIL_CHARACTERS]
        enter(work, purchase, step.refused, cause)
    # A step that leads to itself waits for its deadline, which asks again.


def late(work: UnitOfWork, purchase: Purchase, cause: Message[Any]) -> None:
    """The deadline of the state has come."""
    step = STEPS[purchase.state]
    if step.when_late == "ask_again":
        enter(work, purchase, purchase.state, cause)
    else:
        refused(work, purchase, "expired", cause)


def send_back(work: UnitOfWork, purchase: Purchase, cause: Message[Any]) -> None:
    """Money that came for a purchase that was given up goes back, even after its end: a collection may be replayed."""
    _ask(work, purchase, (_refund,), cause)


def _ask(work: UnitOfWork, purchase: Purchase, commands: tuple[Make, ...], cause: Message[Any]) -> None:
    for make in commands:
        work.send(make(purchase), cause, replyto=topics.replies("orders"))
