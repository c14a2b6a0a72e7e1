"""What happens to purchases: load those of the batch, move each along the saga, write them once."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from services.orders.families.domain import Family
from services.orders.families.queries import child_details, contract_parties, families_of
from services.orders.lessons.tables import LessonRow
from services.orders.lessons.use_cases import planned
from services.orders.purchases import contract, limits, saga
from services.orders.purchases.domain import GRACE, Contract, Purchase, choose_payment, require_state, sign
from services.orders.purchases.limits import Charge
from services.orders.purchases.open_orders import Place, open_charges
from services.orders.purchases.queries import view
from services.orders.purchases.tables import ContractRow, PurchaseRow
from shared.contracts.catalog import SeatReserved, SeatTaken
from shared.contracts.envelope import Data, Message, Problem
from shared.contracts.errors import FieldError, Refused
from shared.contracts.escrow import Held, PaymentFailed, Refunded, RefundOrder
from shared.contracts.orders import (
    CancelPurchase,
    ContractDrawn,
    PayPurchase,
    PlacePurchase,
    PurchaseDeadline,
    PurchaseEnrolled,
    SignContract,
)
from shared.messaging.work import UnitOfWork
from shared.policy import policy_for
from shared.working_days import shanghai

log = structlog.get_logger()

Move = Callable[[UnitOfWork, Purchase, Message[Any]], bool]
"""Moves one purchase for one message; False when it changed nothing."""

CHANGING: Final = ("state", "reason", "detail", "act_by", "signed_at", "paid_at", "method")
DRAWN: Final = (
    "institution_id",
    "title",
    "category",
    "price_fen",
    "lessons",
    "offer",
    "contract_sha256",
    "signer_version",
    "child_hash",
    "district",
)
"""What is known once the seat is reserved and the contract drawn, and is frozen from then on."""
MISSING_ZH: Final = {"child": "请先添加孩子信息", "signer": "请先填写合同签订人信息"}


async def place(work: UnitOfWork, messages: Sequence[Message[PlacePurchase]]) -> None:
    """Guardians buy: each needs a child and a signer; catalog is asked for the seat."""
    purchases = await work.load(PurchaseRow, Purchase, {message.data.order_id for message in messages})
    families = await families_of(work, {message.data.account_id for message in messages})
    new: list[Purchase] = []
    for message in messages:
        with work.answering(message):
            ask = message.data
            work.actor(message, "guardian", subject=ask.account_id)
            known = purchases.get(ask.order_id)
            if known is not None:
                same = (known.account_id, known.course_id) == (ask.account_id, ask.course_id)
                if not same or ask.child_id not in (None, known.child_id):
                    raise Refused("order_exists")
                work.reply(message, view(known))
                continue
            family = families[ask.account_id]
            if family.missing:
                errors = [FieldError(field=name, message=MISSING_ZH[name], code="missing") for name in family.missing]
                raise Refused("profile_incomplete", "；".join(error.message for error in errors), errors=errors)
            children = list(family.children)
            child_id = ask.child_id or children[0]
            if child_id not in children or (ask.child_id is None and len(children) > 1):
                raise Refused("child_unknown")
            purchase = Purchase(ask.order_id, ask.account_id, child_id, ask.course_id, "placed", "", None, work.now)
            saga.enter(work, purchase, "placed", message)
            work.reply(message, view(purchase))
            purchases[ask.order_id] = purchase
            new.append(purchase)
    work.insert(PurchaseRow, new)


async def reserved(work: UnitOfWork, messages: Sequence[Message[SeatReserved]]) -> None:
    """Seats are kept: the contracts are drawn, with price, plan and refund terms frozen in them.

    Before that, the limits are checked over all that the child has open at the institution: one that breaks them ends.
    """
    purchases = await _purchases_of(work, messages)
    families = await families_of(work, {purchase.account_id for purchase in purchases.values()})
    places: dict[UUID, Place] = {}
    for message in messages:
        purchase = purchases.get(message.data.order_id)
        if purchase is not None and purchase.state == "placed":  # else given up meanwhile, and its seat given back
            child = families[purchase.account_id].children[purchase.child_id]
            places[purchase.order_id] = child.document_hash, message.data.institution_id
    charges = await open_charges(work, places.values())
    changed: dict[UUID, Purchase] = {}
    contracts: list[Contract] = []
    for message in messages:
        offer = message.data
        purchase = purchases.get(offer.order_id)
        if purchase is None or purchase.state != "placed":
            continue
        family = families[purchase.account_id]
        place = places[purchase.order_id]
        purchase.institution_id = offer.institution_id
        purchase.title = offer.title
        purchase.category = offer.category
        purchase.district = offer.district
        purchase.price_fen = offer.price_fen
        purchase.lessons = len(offer.lessons)
        purchase.offer = offer.model_dump(mode="json")
        changed[purchase.order_id] = purchase
        charge = limits.charge_of(offer)
        try:
            _check_limits(work, family, purchase, charge, charges[place])
        except Refused as refused:
            saga.refused(work, purchase, refused.code, message, refused.detail)
            continue
        charges[place].append(charge)
        purchase.child_hash = place[0]
        drawn = contract.draw(
            offer, contract_parties(work.ring, family, purchase.child_id), purchase.order_id, work.now
        )
        contracts.append(Contract(purchase.order_id, contract.encrypted(work.ring, drawn), work.now))
        purchase.contract_sha256 = contract.sha256_of(drawn)
        purchase.signer_version = family.signer.version if family.signer else 0
        saga.enter(work, purchase, "to_sign", message, act_by=offer.expires_at)
        work.send(
            ContractDrawn(
                order_id=purchase.order_id,
                account_id=purchase.account_id,
                institution_id=offer.institution_id,
                title=offer.title,
                contract_sha256=purchase.contract_sha256,
                sign_by=offer.expires_at,
            ),
            message,
        )
    work.insert(ContractRow, contracts)
    work.update(PurchaseRow, changed.values(), *CHANGING, *DRAWN)


def _check_limits(
    work: UnitOfWork, family: Family, purchase: Purchase, charge: Charge, others: Sequence[Charge]
) -> None:
    """The limits of today's policy where the course is taught. Raises Refused."""
    assert purchase.offer is not None
    policy = policy_for(purchase.offer["district"], purchase.category, shanghai(work.now).date())
    if limits.has_age_limit(policy, purchase.category):
        details = child_details(work.ring, family, purchase.child_id)
        limits.check_age(date.fromisoformat(details.birth_date), charge)
    limits.check_sum(policy, charge, others)


def _sign(work: UnitOfWork, purchase: Purchase, message: Message[SignContract]) -> bool:
    """The guardian signs."""
    work.actor(message, "guardian", subject=purchase.account_id)
    signed = sign(purchase, message.data.contract_sha256, work.now)
    if signed:
        saga.enter(work, purchase, "to_pay", message)
    work.reply(message, view(purchase))
    return signed


def _pay(work: UnitOfWork, purchase: Purchase, message: Message[PayPurchase]) -> bool:
    """The guardian chooses how to pay: escrow is to collect, and the seat is kept as long as the bank may take."""
    work.actor(message, "guardian", subject=purchase.account_id)
    chosen = choose_payment(purchase, message.data.method)
    if chosen:
        policy = policy_for(work.region, purchase.category, shanghai(work.now).date())
        counter = message.data.method == "bank_counter"
        seconds = policy.counter_payment_window_seconds if counter else policy.payment_window_seconds
        act_by = work.now + timedelta(seconds=seconds) + GRACE
        saga.enter(work, purchase, "paying", message, act_by=act_by)
    work.reply(message, view(purchase))
    return chosen


def _cancel(work: UnitOfWork, purchase: Purchase, message: Message[CancelPurchase]) -> bool:
    """The guardian gives the purchase up before it is paid."""
    work.actor(message, "guardian", subject=purchase.account_id)
    given_up = purchase.state not in ("cancelling", "ended")
    if given_up:
        require_state(purchase, "placed", "to_sign", "to_pay", "paying")
        saga.refused(work, purchase, "cancelled", message)
    work.reply(message, view(purchase))
    return given_up


def _held(work: UnitOfWork, purchase: Purchase, message: Message[Held]) -> bool:
    """The money is in escrow: the seat is taken."""
    if purchase.state in ("cancelling", "ended"):
        saga.send_back(work, purchase, message)
    if purchase.state != "paying":
        return False
    purchase.paid_at = work.now
    saga.enter(work, purchase, "held", message)
    return True


def _payment_failed(work: UnitOfWork, purchase: Purchase, message: Message[PaymentFailed]) -> bool:
    """The money will not come."""
    if purchase.state not in ("paying", "cancelling"):
        return False
    saga.end(work, purchase, message.data.reason, message)
    return True


def _refunded(work: UnitOfWork, purchase: Purchase, message: Message[Refunded]) -> bool:
    """The money is back with the guardian."""
    if purchase.state not in ("cancelling", "refunding"):
        return False
    saga.end(work, purchase, "refunded", message)
    return True


def _problem(work: UnitOfWork, purchase: Purchase, message: Message[Problem]) -> bool:
    """A command of the saga was refused."""
    problem = message.data
    step = saga.STEPS.get(purchase.state)
    asked = {make(purchase).TYPE for make in step.sends} if step else set()
    if step is None and problem.request_type == RefundOrder.TYPE:
        return False  # a refund of a paid order: `refunds` hears it too
    if step is None or problem.request_type not in asked:
        log.error("a command was refused", order=str(purchase.order_id), code=problem.code, of=problem.request_type)
        return False
    saga.refused(work, purchase, problem.code, message, problem.detail)
    return True


def _late(work: UnitOfWork, purchase: Purchase, message: Message[PurchaseDeadline]) -> bool:
    """A step is late; a purchase that has moved on is not."""
    due = purchase.act_by is not None and purchase.act_by <= work.now
    if purchase.state != message.data.state or not due:
        return False
    saga.late(work, purchase, message)
    return True


MOVES: Final[dict[type[Data], Move]] = {
    SignContract: _sign,
    PayPurchase: _pay,
    CancelPurchase: _cancel,
    Held: _held,
    PaymentFailed: _payment_failed,
    Refunded: _refunded,
    Problem: _problem,
    PurchaseDeadline: _late,
}
"""What moves a purchase along, once its contract is drawn and until it is enrolled or ended."""


async def move(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Moves purchases along the saga."""
    await _each_purchase(work, messages, MOVES)


async def seat_taken(work: UnitOfWork, messages: Sequence[Message[SeatTaken]]) -> None:
    """The child is in the course: its lessons are planned as the contract says."""
    new_lessons: list[Any] = []

    def move(work: UnitOfWork, purchase: Purchase, message: Message[SeatTaken]) -> bool:
        if purchase.state != "held":
            return False
        assert purchase.offer is not None
        assert purchase.institution_id is not None
        saga.enter(work, purchase, "enrolled", message)
        new_lessons.extend(planned(purchase.order_id, purchase.price_fen, purchase.offer["lessons"]))
        work.send(
            PurchaseEnrolled(
                order_id=purchase.order_id,
                account_id=purchase.account_id,
                institution_id=purchase.institution_id,
                course_id=purchase.course_id,
                title=purchase.title,
                price_fen=purchase.price_fen,
                lessons=purchase.lessons,
            ),
            message,
        )
        return True

    await _each_purchase(work, messages, {SeatTaken: move})
    work.insert(LessonRow, new_lessons)


async def _purchases_of(work: UnitOfWork, messages: Sequence[Message[Any]]) -> dict[UUID, Purchase]:
    return await work.load(PurchaseRow, Purchase, {_order_id(message) for message in messages})


def _order_id(message: Message[Any]) -> UUID:
    """The order a message is about; a problem has it as its key only."""
    return message.data.order_id if not isinstance(message.data, Problem) else UUID(message.partitionkey)


async def _each_purchase(work: UnitOfWork, messages: Sequence[Message[Any]], moves: Mapping[type[Data], Move]) -> None:
    """Moves the purchases of `messages` one by one, in order, and writes those that changed at once.

    A gateway's request for an unknown order is refused; a service's message about one is none of ours.
    """
    purchases = await _purchases_of(work, messages)
    changed: dict[UUID, Purchase] = {}
    for message in messages:
        with work.answering(message):
            purchase = purchases.get(_order_id(message))
            if purchase is None:
                raise Refused("order_unknown")
            if moves[type(message.data)](work, purchase, message):
                changed[purchase.order_id] = purchase
    work.update(PurchaseRow, changed.values(), *CHANGING)
