"""Purchases on the real servers: orders runs alone, `tests/counter.py` plays gateways, catalog and escrow."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest

from services.orders.purchases.contract import StoredContract
from shared.actors import Actor
from shared.contracts.catalog import (
    ExtendSeat,
    GiveBackSeat,
    ReserveSeat,
    SeatGivenBack,
    SeatTaken,
    TakeSeat,
)
from shared.contracts.envelope import Command, Data, Request
from shared.contracts.escrow import CancelPayment, CollectPayment, PaymentFailed, RefundOrder
from shared.contracts.orders import (
    CancelPurchase,
    ContractDrawn,
    PayPurchase,
    PurchaseDeadline,
    PurchaseEnded,
    PurchaseEnrolled,
    ShowPurchase,
    SignContract,
)
from shared.documents import DocumentType
from shared.ids import new_id
from shared.messaging.rpc import RequestRefused
from shared.sealing import decrypt_at_rest
from tests.counter import ADDRESS, NAME, PRICE_FEN, Counter, Family, Order, counter, family, others, running
from tests.integration.test_families import adding, child, mother, setting, signed_in

__all__ = ["counter", "family", "others", "running"]

# --- the whole way ------------------------------------------------------------------------------------------------


async def test_a_course_is_bought_from_the_click_to_the_seat(counter: Counter, family: Family) -> None:
    harness, order = counter.harness, counter.new_order(family)
    key = order.order_id

    placed = await counter.ask(counter.placing(order), order)
    assert (placed.state, placed.course_id, placed.contract, placed.price_fen) == ("placed", order.course_id, "", 0)
    assert await harness.expect(ReserveSeat, key) == ReserveSeat(order_id=key, course_id=order.course_id)

    offer = counter.seat(order)
    await counter.answers(order, offer)
    drawn = await counter.show(order)
    assert (drawn.state, drawn.act_by, drawn.price_fen, drawn.title) == (
        "to_sign",
        offer.expires_at,
        PRICE_FEN,
        offer.title,
    )
    assert await harness.expect(ContractDrawn, key) == ContractDrawn(
        order_id=key,
        account_id=family.account_id,
        institution_id=order.institution_id,
        title=offer.title,
        contract_sha256=drawn.contract_sha256,
        sign_by=offer.expires_at,
    )

    signed = await counter.ask(SignContract(order_id=key, contract_sha256=drawn.contract_sha256), order)
    assert (signed.state, signed.act_by) == ("to_pay", offer.expires_at)

    paying = await counter.ask(counter.paying(order), order)
    assert paying.state == "paying"
    assert paying.act_by is not None
    assert await harness.expect(ExtendSeat, key) == ExtendSeat(order_id=key, until=paying.act_by)
    assert await harness.expect(CollectPayment, key) == CollectPayment(
        order_id=key,
        account_id=family.account_id,
        institution_id=order.institution_id,
        account=offer.account,
        amount_fen=PRICE_FEN,
        lessons=3,
        method="alipay",
        pay_by=paying.act_by - timedelta(minutes=2),
        district=offer.district,
    )

    await counter.answers(order, counter.held(order))
    await harness.expect(TakeSeat, key)
    assert (await counter.show(order)).state == "held"

    await counter.answers(order, SeatTaken(order_id=key))
    assert await harness.expect(PurchaseEnrolled, key) == PurchaseEnrolled(
        order_id=key,
        account_id=family.account_id,
        institution_id=order.institution_id,
        course_id=order.course_id,
        title=offer.title,
        price_fen=PRICE_FEN,
        lessons=3,
    )
    view = await counter.show(order)
    assert (view.state, view.reason, view.act_by) == ("enrolled", "", None)
    assert [(one.lesson_no, one.state, one.price_fen) for one in view.lessons] == [
        (1, "planned", 3_333),
        (2, "planned", 3_333),
        (3, "planned", 3_334),
    ]
    assert [(one.starts_at, one.ends_at) for one in view.lessons] == [
        (time.starts_at, time.ends_at) for time in offer.lessons
    ]
    assert (view.consumed_lessons, view.consumed_fen, view.left_lessons, view.left_fen) == (0, 0, 3, PRICE_FEN)
    assert await counter.said(order) == [
        contract.TYPE
        for contract in (ReserveSeat, ContractDrawn, ExtendSeat, CollectPayment, TakeSeat, PurchaseEnrolled)
    ]
    waiting = await harness.rows("orders", "SELECT 1 FROM timers WHERE key = $1", str(key))
    assert waiting == []


async def test_what_is_signed_is_the_whole_text_and_what_is_shown_is_masked(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "to_sign")
    view = await counter.show(order)
    (row,) = await counter.harness.rows("orders", "SELECT text FROM contracts WHERE order_id = $1", order.order_id)
    whole = decrypt_at_rest(counter.harness.ring("orders"), row["text"], StoredContract).text
    assert hashlib.sha256(whole.encode()).hexdigest() == view.contract_sha256
    for printed in (NAME, family.child.document_number, "13887654321", ADDRESS, family.signer.document_number):
        assert printed in whole
        assert printed not in view.contract
    assert "欧**" in view.contract
    assert "138****4321" in view.contract


async def test_the_contract_stays_as_drawn_when_the_family_changes(counter: Counter) -> None:
    family = await counter.family()
    order = await counter.bring(family, "to_sign")
    drawn = await counter.show(order)
    changed = setting(counter.harness, family.actor, mother(name="王芳"))
    await counter.harness.ask(changed, family.actor)
    assert await counter.show(order) == drawn
    assert (await counter.ask(await counter.signing(order), order)).state == "to_pay"
    versions = "SELECT signer_version FROM purchases WHERE order_id = $1"
    assert [row[0] for row in await counter.harness.rows("orders", versions, order.order_id)] == [1]


async def test_an_only_child_need_not_be_named(counter: Counter, family: Family) -> None:
    order = counter.new_order(family)
    await counter.ask(counter.placing(order, child_id=None), order)
    (row,) = await counter.harness.rows("orders", "SELECT child_id FROM purchases WHERE order_id = $1", order.order_id)
    assert row["child_id"] == family.child_id


async def test_at_the_counter_of_a_bank_there_is_a_day_to_pay(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "to_pay")
    await counter.ask(counter.paying(order, "bank_counter"), order)
    asked = await counter.harness.expect(CollectPayment, order.order_id)
    left = asked.pay_by - counter.harness.now()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(days=1)


async def test_many_families_buy_at_once(counter: Counter, family: Family, others: Family) -> None:
    orders = await asyncio.gather(*(counter.bring(who, "enrolled") for who in [family, others] * 4))
    await counter.harness.expect_recorded()
    for order in orders:
        assert len(counter.harness.seen(TakeSeat, order.order_id)) == 1
        assert len((await counter.show(order)).lessons) == 3


# --- who may buy --------------------------------------------------------------------------------------------------


async def test_nobody_buys_but_the_guardian(counter: Counter, family: Family, others: Family) -> None:
    order = counter.new_order(family)
    asked = counter.placing(order)
    await counter.refused_without_a_trace("actor_unauthenticated", asked, None, order)
    for actor in (others.actor, order.institution, Actor(family.actor.subject, "authority")):
        await counter.refused_without_a_trace("actor_forbidden", asked, actor, order)


async def test_who_has_no_child_and_no_signer_is_told_both(counter: Counter) -> None:
    harness, who = counter.harness, await signed_in(counter.harness)
    order = counter.new_order(Family(who, new_id(), child(), mother()))
    asked = counter.placing(order, child_id=None)

    async def missing() -> list[str]:
        await counter.refused_without_a_trace("profile_incomplete", asked, who, order)
        with pytest.raises(RequestRefused) as caught:
            await harness.ask(asked, who)
        assert all(fault.message for fault in caught.value.problem.errors)
        return [fault.field for fault in caught.value.problem.errors]

    assert await missing() == ["child", "signer"]
    await harness.ask(adding(harness, who, child()), who)
    assert await missing() == ["signer"]
    await harness.ask(setting(harness, who, mother()), who)
    assert (await counter.ask(asked, order)).state == "placed"


async def test_who_has_a_signer_only_is_told_the_child(counter: Counter) -> None:
    who = await signed_in(counter.harness)
    await counter.harness.ask(setting(counter.harness, who, mother()), who)
    order = counter.new_order(Family(who, new_id(), child(), mother()))
    with pytest.raises(RequestRefused) as caught:
        await counter.harness.ask(counter.placing(order), who)
    assert [fault.field for fault in caught.value.problem.errors] == ["child"]


async def test_a_child_of_others_is_unknown(counter: Counter, family: Family, others: Family) -> None:
    order = counter.new_order(family)
    for child_id in (others.child_id, new_id()):
        asked = counter.placing(order, child_id=child_id)
        await counter.refused_without_a_trace("child_unknown", asked, family.actor, order)


async def test_of_two_children_one_must_be_named(counter: Counter) -> None:
    family = await counter.family()
    second = adding(
        counter.harness, family.actor, child(document_type=DocumentType.PASSPORT, document_number="E1234567")
    )
    await counter.harness.ask(second, family.actor)
    order = counter.new_order(family)
    asked = counter.placing(order, child_id=None)
    await counter.refused_without_a_trace("child_unknown", asked, family.actor, order)
    assert (await counter.ask(counter.placing(order, child_id=second.child_id), order)).state == "placed"


async def test_the_id_of_an_order_is_taken_once(counter: Counter, family: Family, others: Family) -> None:
    order = await counter.bring(family, "to_sign")
    by_others = counter.placing(order, account_id=others.account_id, child_id=others.child_id)
    await counter.refused_without_a_trace("order_exists", by_others, others.actor, order)
    for change in ({"course_id": new_id()}, {"child_id": new_id()}):
        asked = counter.placing(order, **change)
        await counter.refused_without_a_trace("order_exists", asked, family.actor, order)


# --- who may go on ------------------------------------------------------------------------------------------------

ABOUT: dict[str, Callable[[UUID], Request]] = {
    "sign": lambda order_id: SignContract(order_id=order_id, contract_sha256="0" * 64),
    "pay": lambda order_id: PayPurchase(order_id=order_id, method="alipay"),
    "cancel": lambda order_id: CancelPurchase(order_id=order_id),
}


@pytest.mark.parametrize("what", ABOUT)
async def test_nobody_goes_on_with_a_purchase_but_its_guardian(
    counter: Counter, family: Family, others: Family, what: str
) -> None:
    order = await counter.bring(family, "to_sign")
    asked = ABOUT[what](order.order_id)
    await counter.refused_without_a_trace("actor_unauthenticated", asked, None, order)
    for actor in (others.actor, order.institution, Actor("changzhou-edu", "authority"), Actor("op", "operator")):
        await counter.refused_without_a_trace("actor_forbidden", asked, actor, order)
    await counter.refused_without_a_trace("order_unknown", ABOUT[what](new_id()), family.actor, order)


async def test_another_contract_than_was_shown_is_not_signed(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "to_sign")
    other = SignContract(order_id=order.order_id, contract_sha256="0" * 64)
    await counter.refused_without_a_trace("contract_changed", other, family.actor, order)


NOT_IN: dict[str, tuple[str, ...]] = {
    "sign": ("placed", "cancelling", "refunding"),
    "pay": ("placed", "to_sign", "cancelling", "refunding", "ended"),
    "cancel": ("held", "enrolled", "refunding"),
}


@pytest.mark.parametrize(("what", "state"), [(what, state) for what, states in NOT_IN.items() for state in states])
async def test_a_step_out_of_turn_is_refused(counter: Counter, family: Family, what: str, state: str) -> None:
    order = await counter.bring(family, state)
    asked = ABOUT[what](order.order_id)
    if what == "sign" and state != "placed":
        asked = await counter.signing(order)
    await counter.refused_without_a_trace("order_state", asked, family.actor, order)


async def test_another_way_to_pay_is_refused_once_one_was_chosen(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "paying")
    await counter.refused_without_a_trace("order_state", counter.paying(order, "e_cny"), family.actor, order)


async def test_a_purchase_is_shown_to_who_has_to_do_with_it(counter: Counter, family: Family, others: Family) -> None:
    order = await counter.bring(family, "enrolled")
    asked = ShowPurchase(order_id=order.order_id)
    own = await counter.show(order)
    for actor in (order.institution, Actor("changzhou-edu", "authority"), Actor("op", "operator")):
        assert await counter.show(order, actor) == own
    for stranger in (others.actor, Actor(str(new_id()), "institution")):
        await counter.refused_without_a_trace("order_unknown", asked, stranger, order)
    await counter.refused_without_a_trace("order_unknown", ShowPurchase(order_id=new_id()), family.actor, order)
    await counter.refused_without_a_trace("actor_unauthenticated", asked, None, order)
    await counter.refused_without_a_trace("actor_forbidden", asked, Actor("jiangnan", "bank"), order)


# --- asked again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["placed", "to_pay", "paying", "ended"])
async def test_the_same_message_again_gets_the_same_answer(counter: Counter, family: Family, state: str) -> None:
    before_it = {"placed": "", "to_pay": "to_sign", "paying": "to_pay", "ended": "to_sign"}[state]
    order = await counter.bring(family, before_it) if before_it else counter.new_order(family)
    asks: dict[str, Request] = {
        "placed": counter.placing(order),
        "to_pay": await counter.signing(order) if before_it else counter.placing(order),
        "paying": counter.paying(order),
        "ended": CancelPurchase(order_id=order.order_id),
    }
    message_id = new_id()
    first = await counter.ask(asks[state], order, message_id=message_id)
    assert first.state == state
    before = await counter.trace(order)
    assert await counter.ask(asks[state], order, message_id=message_id) == first
    assert await counter.ask(asks[state], order) == first, "with a new message id too"
    assert await counter.trace(order) == before


async def test_the_same_message_id_for_something_else_is_refused(counter: Counter, family: Family) -> None:
    order, message_id = counter.new_order(family), new_id()
    await counter.ask(counter.placing(order), order, message_id=message_id)
    before = await counter.trace(order)
    other = counter.placing(order, course_id=new_id())
    assert await counter.harness.refusal(other, family.actor, message_id=message_id) == "idempotency_conflict"
    assert await counter.trace(order) == before


async def test_after_the_enrolment_every_step_asked_again_changes_nothing(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "enrolled")
    before = await counter.trace(order)
    for asked in (counter.placing(order), await counter.signing(order), counter.paying(order)):
        again = await counter.ask(asked, order)
        assert (again.state, again.lessons, again.left_lessons, again.left_fen) == ("enrolled", (), 0, 0)
    assert await counter.trace(order) == before


@pytest.mark.parametrize("state", ["enrolled", "ended"])
async def test_answers_that_come_late_or_twice_change_nothing(counter: Counter, family: Family, state: str) -> None:
    order = await counter.bring(family, state)
    before = await counter.trace(order)
    late: list[Data] = [
        counter.seat(order),
        SeatTaken(order_id=order.order_id),
        SeatGivenBack(order_id=order.order_id),
        PaymentFailed(order_id=order.order_id, reason="expired"),
        counter.refunded(order),
        *(counter.refused("seat_expired", command) for command in (ReserveSeat, ExtendSeat, TakeSeat, GiveBackSeat)),
        *(counter.refused("internal_error", command) for command in (CollectPayment, CancelPayment, RefundOrder)),
        PurchaseDeadline(order_id=order.order_id, state="paying"),
    ]
    if state == "enrolled":
        late.append(counter.held(order))
    for data in late:
        await counter.answers(order, data)
    assert await counter.trace(order) == before


async def test_the_same_event_again_is_heard_once(counter: Counter, family: Family) -> None:
    order, message_id = await counter.bring(family, "paying"), new_id()
    for _ in range(3):
        await counter.answers(order, counter.held(order), message_id)
    await counter.answers(order, counter.held(order))
    await counter.answers(order, SeatTaken(order_id=order.order_id))
    assert (await counter.said(order)).count(TakeSeat.TYPE) == 1


async def test_a_message_about_an_order_nobody_placed_is_none_of_ours(counter: Counter, family: Family) -> None:
    order = counter.new_order(family)
    before = await counter.trace(order)
    for data in (counter.seat(order), counter.held(order), counter.refused("course_full", ReserveSeat)):
        await counter.answers(order, data)
    assert await counter.trace(order) == before


# --- refused and given up -----------------------------------------------------------------------------------------


async def ended_with(counter: Counter, order: Order, reason: str, *undone: type[Data]) -> None:
    """The purchase has ended for `reason`, the family was told, and the last things said undid it."""
    await counter.until(order, "ended")
    told = await counter.harness.expect(PurchaseEnded, order.order_id)
    assert told == PurchaseEnded(order_id=order.order_id, account_id=order.family.account_id, reason=reason)
    said = await counter.said(order)
    assert said[-len(undone) - 1 :] == [*(contract.TYPE for contract in undone), PurchaseEnded.TYPE]
    assert said.count(PurchaseEnded.TYPE) == 1
    view = await counter.show(order)
    assert (view.state, view.reason, view.act_by, view.lessons, view.left_fen) == ("ended", reason, None, (), 0)
    assert await counter.harness.rows("orders", "SELECT 1 FROM timers WHERE key = $1", str(order.order_id)) == []


@pytest.mark.parametrize("code", ["course_full", "institution_not_listed", "internal_error"])
async def test_a_seat_that_is_refused_ends_the_purchase_and_the_family_is_told(
    counter: Counter, family: Family, code: str
) -> None:
    order = await counter.bring(family, "placed")
    await counter.answers(order, counter.refused(code, ReserveSeat))
    await ended_with(counter, order, code, GiveBackSeat)
    before = await counter.trace(order)
    await counter.answers(order, counter.seat(order))
    assert await counter.trace(order) == before, "the seat that comes after all is on its way back already"


@pytest.mark.parametrize("state", ["placed", "to_sign", "to_pay"])
async def test_a_purchase_given_up_before_it_is_paid_gives_its_seat_back(
    counter: Counter, family: Family, state: str
) -> None:
    order = await counter.bring(family, state)
    assert (await counter.ask(CancelPurchase(order_id=order.order_id), order)).state == "ended"
    await ended_with(counter, order, "cancelled", GiveBackSeat)


async def test_a_purchase_given_up_while_it_is_paid_waits_for_escrow(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "paying")
    assert (await counter.ask(CancelPurchase(order_id=order.order_id), order)).state == "cancelling"
    asked = await counter.harness.expect(CancelPayment, order.order_id)
    assert asked == CancelPayment(order_id=order.order_id, reason="cancelled")
    await counter.answers(order, PaymentFailed(order_id=order.order_id, reason="cancelled"))
    await ended_with(counter, order, "cancelled", CancelPayment, GiveBackSeat)


async def test_money_that_came_while_it_was_given_up_goes_back_first(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "cancelling")
    await counter.answers(order, counter.held(order))
    assert await counter.state(order) == "cancelling"
    await counter.answers(order, counter.refunded(order))
    await ended_with(counter, order, "cancelled", CancelPayment, RefundOrder, GiveBackSeat)


async def test_money_that_comes_after_the_end_goes_back(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "cancelling")
    await counter.answers(order, PaymentFailed(order_id=order.order_id, reason="cancelled"))
    await counter.answers(order, counter.held(order))
    back = await counter.harness.expect(RefundOrder, order.order_id)
    assert back == RefundOrder(order_id=order.order_id, reason="cancelled")
    assert await counter.state(order) == "ended"


@pytest.mark.parametrize("reason", ["refused", "expired"])
async def test_a_payment_that_fails_ends_the_purchase(counter: Counter, family: Family, reason: str) -> None:
    order = await counter.bring(family, "paying")
    await counter.answers(order, PaymentFailed(order_id=order.order_id, reason=reason))
    await ended_with(counter, order, reason, GiveBackSeat)


@pytest.mark.parametrize("command", [ExtendSeat, CollectPayment])
async def test_a_payment_that_cannot_begin_is_cancelled(
    counter: Counter, family: Family, command: type[Command]
) -> None:
    order = await counter.bring(family, "paying")
    await counter.answers(order, counter.refused("seat_expired", command))
    assert await counter.state(order) == "cancelling"
    await counter.answers(order, counter.refused("seat_expired", command))
    await counter.answers(order, PaymentFailed(order_id=order.order_id, reason="seat_expired"))
    await ended_with(counter, order, "seat_expired", CancelPayment, GiveBackSeat)


async def test_a_seat_that_is_gone_after_the_payment_sends_the_money_back(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "held")
    await counter.answers(order, counter.refused("seat_expired", TakeSeat))
    assert (await counter.show(order)).state == "refunding"
    back = await counter.harness.expect(RefundOrder, order.order_id)
    assert back == RefundOrder(order_id=order.order_id, reason="seat_expired")
    await counter.answers(order, SeatTaken(order_id=order.order_id))
    assert await counter.state(order) == "refunding"
    await counter.answers(order, counter.refunded(order))
    await ended_with(counter, order, "seat_expired", RefundOrder, GiveBackSeat)


# --- nothing waits for ever ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "minutes"),
    [("placed", 2), ("to_sign", 15), ("to_pay", 15)],
)
async def test_before_the_payment_a_late_step_ends_the_purchase(
    counter: Counter, family: Family, state: str, minutes: int
) -> None:
    order = await counter.bring(family, state)
    await counter.advance(timedelta(minutes=minutes - 1))
    assert await counter.state(order) == state, "not before its time"
    await counter.advance(timedelta(minutes=1))
    await ended_with(counter, order, "expired", GiveBackSeat)


async def test_a_payment_that_never_comes_is_cancelled_and_asked_after_until_escrow_answers(
    counter: Counter, family: Family
) -> None:
    order = await counter.bring(family, "paying")
    await counter.advance(timedelta(minutes=16))
    assert await counter.state(order) == "paying", "escrow has two minutes more to tell"
    await counter.advance(timedelta(minutes=1))
    assert await counter.state(order) == "cancelling"
    await counter.advance(timedelta(minutes=5))
    await counter.answers(order, PaymentFailed(order_id=order.order_id, reason="expired"))
    await ended_with(counter, order, "expired", CancelPayment, CancelPayment, GiveBackSeat)


async def test_a_seat_that_is_paid_is_asked_for_until_catalog_answers(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "held")
    for _ in range(2):
        await counter.advance(timedelta(minutes=1))
    assert (await counter.said(order))[-3:] == [TakeSeat.TYPE] * 3
    await counter.answers(order, SeatTaken(order_id=order.order_id))
    await counter.answers(order, SeatTaken(order_id=order.order_id))
    assert await counter.state(order) == "enrolled"
    assert (await counter.said(order)).count(PurchaseEnrolled.TYPE) == 1


async def test_a_refund_is_asked_for_until_escrow_answers(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "refunding")
    await counter.advance(timedelta(hours=1))
    await counter.answers(order, counter.refused("internal_error", RefundOrder))
    assert await counter.state(order) == "refunding"
    await counter.advance(timedelta(hours=1))
    await counter.answers(order, counter.refunded(order))
    await ended_with(counter, order, "seat_expired", RefundOrder, RefundOrder, RefundOrder, GiveBackSeat)


async def test_the_money_and_the_deadline_at_the_same_moment_leave_one_whole_purchase(
    counter: Counter, family: Family
) -> None:
    orders = [await counter.bring(family, "paying") for _ in range(4)]
    await asyncio.gather(
        counter.advance(timedelta(minutes=17)), *(counter.answers(order, counter.held(order)) for order in orders)
    )
    for order in orders:
        state = await counter.state(order)
        said = await counter.said(order)
        assert state in ("held", "cancelling")
        assert (TakeSeat.TYPE in said) == (state == "held")
        assert (CancelPayment.TYPE in said) == (state == "cancelling")
        final = SeatTaken(order_id=order.order_id) if state == "held" else counter.refunded(order)
        await counter.answers(order, final)
        assert await counter.state(order) == ("enrolled" if state == "held" else "ended")


# --- who they are -------------------------------------------------------------------------------------------------


async def test_nothing_of_the_family_stands_in_clear_on_the_road_or_in_a_table(counter: Counter) -> None:
    family = await counter.family()
    order = await counter.bring(family, "enrolled")
    for actor in (family.actor, order.institution, Actor("changzhou-edu", "authority")):
        await counter.show(order, actor)
    await counter.bring(family, "ended")
    harness = counter.harness
    road = await harness.rows(
        "orders", "SELECT coalesce(reply, '') AS text FROM inbox UNION ALL SELECT body FROM outbox"
    )
    timers = await harness.rows("orders", "SELECT data AS text FROM timers")
    written = [row["text"] for row in (*road, *timers)]
    written += [str(await harness.content("orders")), *map(str, harness.recorded)]
    assert any(str(order.order_id) in text for text in written)
    secrets = (NAME, ADDRESS, "怀德路", "13887654321", family.child.document_number, family.signer.document_number)
    for secret in secrets:
        assert not [text for text in written if secret in text]
