"""The load under which faults strike: purchases, some given up while they are paid; lessons, some objected to, some of
those decided; refunds, some asked for while a lesson is filed; complaints; an institution that is wound up; money that
nobody asked for, or that is too much, too little or too late; new families.

Everybody is patient: a request without an answer is sent again under its own message id, as a gateway does it. What
must have become of each order and lesson is written into `expected` when its flow has ended.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from bench.load import Order
from ops.bank import desk
from ops.bank.behaviour import Name
from ops.scenario import Guardian, Institution, Scenario
from shared.contracts import topics
from shared.contracts.catalog import BankAccount, CourseView, FreezeInstitution, InstitutionView, ThawInstitution
from shared.contracts.complaints import FilingView, MoveFiling
from shared.contracts.envelope import CONTRACTS, Event
from shared.contracts.escrow import (
    ChooseSettlement,
    MatchSuspense,
    Refunded,
    ReturnSuspense,
    Settled,
    SettlementView,
    SuspenseBooked,
    SuspenseMatched,
    SuspenseReturned,
    SuspenseView,
)
from shared.contracts.orders import (
    AnswerObjection,
    AnswerRefund,
    ApplyLesson,
    CancelPurchase,
    ConfirmLesson,
    ContractDrawn,
    DecideObjection,
    DecideRefund,
    Decision,
    LessonAnswer,
    ObjectionView,
    ObjectLesson,
    PayPurchase,
    PlacePurchase,
    PlanWindUp,
    PurchaseEnded,
    PurchaseEnrolled,
    PurchaseView,
    QuoteRefund,
    RefundQuote,
    RefundView,
    RequestRefund,
    ShowWindUp,
    SignContract,
    StartWindUp,
    WindUpView,
)
from shared.database import is_passing
from shared.ids import new_id
from shared.messaging.rpc import GatewayClient, RequestRefused
from shared.settings import ClientSettings
from tests.faults.invariants import Expected, collect_number

PATIENCE_S: Final = 240.0
BUYERS: Final = 12
TEACHERS: Final = 24
LENIENT_S: Final = 15.0
LOOK_S: Final = 0.05
FROZEN: Final = timedelta(days=90)
GATHERED: Final = 3
"""So many lessons go out in one sum, if none is too late for it."""
LEFT_OPEN: Final = 5
"""One complaint in so many is never closed, and one sum that nobody asked for in so many stays in suspense."""
SEATS: Final = 20_000
STRAYS: Final = 40
"""So many sums come that nobody asked for, and so many orders are paid wrongly."""
WRONGLY: Final[tuple[tuple[Name, int], ...]] = (("refuse", 0), ("wrong_amount", 100), ("wrong_amount", -100))
"""How the bank collects the fee of such an order, and how many fen more. Where clocks jump or banks misbehave, the time
to pay may be over before anything is collected, so there is only the first."""
TOO_LATE: Final = ("order_state", "lesson_state", "objection_state")


class LoadError(Exception):
    """Something ended as it must not."""


class Gateway(GatewayClient):
    """A gateway that remembers what it has heard, so that nothing comes too early for who waits for it."""

    HEARS = (topics.events("orders"), topics.events("escrow"))

    def __init__(self, settings: ClientSettings, patience_s: float) -> None:
        super().__init__(settings, "test", partition=1)
        self._patience_s = patience_s
        self._heard: dict[tuple[str, str], asyncio.Future[Event]] = {}

    async def first(self, key: str, *contracts: type[Event]) -> Event:
        """The first of these events about `key`: an order's id, or `order:lesson`, a receipt's, or the number of money
        that came. Raises LoadError if none comes."""
        waiting = [self._future(contract.TYPE, key) for contract in contracts]
        done, _ = await asyncio.wait(waiting, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            return future.result()
        raise LoadError(f"nothing was heard of {key}: {[contract.TYPE for contract in contracts]}")

    def _future(self, type_: str, key: str) -> "asyncio.Future[Event]":
        return self._heard.setdefault((type_, key), asyncio.get_running_loop().create_future())

    def _deliver(self, envelope: dict[str, Any]) -> None:
        contract = CONTRACTS.get(envelope["type"])
        if contract is None or not issubclass(contract, Event):
            super()._deliver(envelope)
            return
        data = envelope["data"]
        lesson = f":{data['lesson_no']}" if "lesson_no" in data else ""
        key = data["number"] if contract is SuspenseBooked else envelope["partitionkey"] + lesson
        future = self._future(contract.TYPE, key)
        if not future.done():
            future.set_result(contract.model_validate(data))


class Offer(NamedTuple):
    """A course that can be bought, and the account that its fees come to."""

    course: CourseView
    account: BankAccount


async def small_course(scenario: Scenario, number: int) -> Offer:
    """A course of an institution of its own that each child may buy thirty times: 60 lessons for 4 800 yuan."""
    institution = await scenario.open_institution(f"常州青枫篮球培训中心{number}")
    course = await scenario.publish_course(institution, "少儿篮球提高班", lessons=2, price_fen=16_000, seats=SEATS)
    return Offer(course, institution.account)


def _number_of_nobody() -> str:
    return f"X{new_id().hex[:29]}"


@dataclass
class Load:
    """Who does what until its `end`: one of `courses` is bought, lessons of `taught` are taught, `complained` is
    complained about, `unwanted` asked back; the institution of `frozen` is frozen and thawed, that of `gathered` is
    paid by the day and at once in turns, that of `gone` wound up. `authority` and `operator` decide (tokens). `bank`:
    the DSN of the stand-in bank's book. `lenient`: purchases may end without enrolment, as they may where clocks jump
    or banks refuse. There are as many children (`guardians`, one for each) and courses as it takes that no child has
    more open at one institution than the limits let it have."""

    scenario: Scenario
    gateway: Gateway
    expected: Expected
    chance: random.Random
    guardians: Sequence[Guardian]
    institution: Institution
    courses: Sequence[Offer]
    taught: Sequence[Order]
    complained: Sequence[Order]
    unwanted: Sequence[Order]
    frozen: Sequence[Order]
    gathered: Sequence[Order]
    gone: Sequence[Order]
    authority: str
    operator: str
    bank: str
    lenient: bool = False
    rest_s: float = 0.0
    """How long each worker rests after each flow."""
    lessons: Iterator[tuple[Order, int]] = field(init=False)
    running: int = field(init=False, default=0)
    """How many of its workers have not ended."""
    _complained: Iterator[tuple[Order, int]] = field(init=False)
    _unwanted: Iterator[Order] = field(init=False)
    _frozen: Iterator[tuple[Order, int]] = field(init=False)
    _gathered: Iterator[tuple[Order, int]] = field(init=False)
    _gone: Iterator[Sequence[Order]] = field(init=False)
    _strays: Iterator[int] = field(init=False)
    _mispaid: Iterator[int] = field(init=False)
    _ended: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.lessons = self._plan(self.taught)
        self._complained = self._plan(self.complained)
        self._unwanted = iter(self.unwanted)
        self._frozen, self._gathered = self._plan(self.frozen), self._plan(self.gathered)
        self._gone, self._strays, self._mispaid = iter([self.gone]), iter(range(STRAYS)), iter(range(STRAYS))

    def sign_in_again(self) -> None:
        """After the clock was moved far."""
        self.authority = self.scenario.token("authority", "changzhou-edu")
        self.operator = self.scenario.token("operator", "li")
        elsewhere = (orders[0].institution for orders in (self.frozen, self.gathered, self.gone))
        for institution in (self.institution, *elsewhere):
            institution.token = self.scenario.token("institution", str(institution.institution_id))

    @staticmethod
    def _plan(orders: Sequence[Order]) -> Iterator[tuple[Order, int]]:
        most = max((len(order.course.lessons) for order in orders), default=0)
        return ((order, number) for number in range(1, most + 1) for order in orders)

    async def run(self) -> None:
        """Goes on until `end` is called."""
        self._ended = False
        workers: list[tuple[Callable[[], Awaitable[bool]], int]] = [
            (self._buys, BUYERS),
            (self._gives_up, 2),
            (self._teaches, TEACHERS),
            (self._objects, 2),
            (self._complains, 2),
            (self._refunds, 2),
            (self._freezes, 1),
            (self._gathers, 1),
            (self._winds_up, 1),
            (self._goes_astray, 1),
            (self._pays_wrongly, 1),
            (self._signs_in, 1),
        ]
        running = [asyncio.create_task(self._again(flow)) for flow, times in workers for _ in range(times)]
        try:
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def end(self) -> None:
        """Nothing new is begun; returns when what was under way has ended."""
        self._ended = True
        while self.running:
            await asyncio.sleep(LOOK_S)

    async def _again(self, flow: Callable[[], Awaitable[bool]]) -> None:
        self.running += 1
        try:
            while not self._ended and await flow():
                await asyncio.sleep(self.rest_s)
        finally:
            self.running -= 1

    # --- purchases --------------------------------------------------------------------------------------------------

    async def _buys(self) -> bool:
        """Place, contract, sign, pay, enrolled."""
        order_id, guardian = new_id(), self.chance.choice(self.guardians)
        if await self._signs(order_id, guardian, self.chance.choice(self.courses)):
            pay = PayPurchase(order_id=order_id, method="alipay")
            await self._asks(self.scenario.ask(pay, PurchaseView, guardian.token), allowed=self.lenient)
        await self._ends(order_id, lenient=self.lenient)
        return True

    async def _gives_up(self) -> bool:
        """Pays and cancels at once: whichever comes first, money that was collected is held or goes back."""
        order_id, guardian = new_id(), self.chance.choice(self.guardians)
        both = (PayPurchase(order_id=order_id, method="alipay"), CancelPurchase(order_id=order_id))
        if await self._signs(order_id, guardian, self.chance.choice(self.courses)):
            await self._asks(*(self.scenario.ask(one, PurchaseView, guardian.token) for one in both))
        await self._ends(order_id, lenient=True)
        return True

    @staticmethod
    def placing(order_id: UUID, guardian: Guardian, offer: Offer) -> PlacePurchase:
        """The request that begins a purchase."""
        return PlacePurchase(
            order_id=order_id,
            account_id=guardian.account_id,
            child_id=guardian.child_id,
            course_id=offer.course.course_id,
        )

    async def _signs(self, order_id: UUID, guardian: Guardian, offer: Offer) -> bool:
        await self.scenario.ask(self.placing(order_id, guardian, offer), PurchaseView, guardian.token)
        drawn = await self.gateway.first(str(order_id), ContractDrawn, PurchaseEnded)
        if isinstance(drawn, ContractDrawn):
            sign = SignContract(order_id=order_id, contract_sha256=drawn.contract_sha256)
            return await self._asks(self.scenario.ask(sign, PurchaseView, guardian.token), allowed=self.lenient)
        return False

    async def _ends(self, order_id: UUID, *, lenient: bool) -> None:
        last = await self.gateway.first(str(order_id), PurchaseEnrolled, PurchaseEnded)
        if isinstance(last, PurchaseEnded) and not lenient:
            raise LoadError(f"a purchase ended: {last}")
        self.expected.orders[order_id] = "ended" if isinstance(last, PurchaseEnded) else "enrolled"

    async def _signs_in(self) -> bool:
        """A new family: a code by SMS, an account, a child, a signer. A code that is late does not come at all."""
        try:
            async with asyncio.timeout(LENIENT_S if self.lenient else self.scenario.patience_s):
                await self.scenario.new_guardian()
        except (RequestRefused, TimeoutError):
            if not self.lenient:
                raise
        return True

    # --- lessons ----------------------------------------------------------------------------------------------------

    async def _teaches(self) -> bool:
        """Apply, confirm, paid out."""
        order, number = next(self.lessons, (None, 0))
        if order is None:
            return False
        await self.applies(order, number)
        await self._confirms(order, number)
        await self.is_paid(order, number)
        return True

    async def _objects(self) -> bool:
        """Objects, and every other one confirms in the same moment: objected or not before, it is confirmed then. Of
        the others most are decided."""
        order, number = next(self.lessons, (None, 0))
        if order is None:
            return False
        await self.applies(order, number)
        object_ = ObjectLesson(order_id=order.order_id, lesson_no=number, reason="老师迟到四十分钟，未补课")
        asking = self.scenario.ask(object_, LessonAnswer, order.guardian.token)
        if self.chance.random() < 0.5:
            await asking
            self.expected.lessons[order.order_id, number] = "objected"
            if self.chance.random() < 0.75:
                await self._decides(order, number)
        else:
            await self._asks(asking, self._confirms(order, number))
            await self.is_paid(order, number)
        return True

    async def _decides(self, order: Order, number: int) -> None:
        """The institution answers, unless a clock that jumped has made it silent; the authority decides."""
        about: dict[str, Any] = {"order_id": order.order_id, "lesson_no": number}
        answer = AnswerObjection(**about, text="老师迟到二十分钟，已补课")
        asking = self.scenario.ask(answer, ObjectionView, order.institution.token)
        await self._asks(asking, allowed=self.lenient)
        decisions: tuple[tuple[Decision, int], ...] = (("release", 0), ("return", 0), ("split", 1))
        decision, part_fen = self.chance.choice(decisions)
        decide = DecideObjection(**about, decision=decision, release_fen=part_fen, reason="双方各有责任")
        await self.scenario.ask(decide, ObjectionView, self.authority)
        if decision != "return":
            await self.is_paid(order, number)
        if decision != "release":
            await self.gateway.first(f"{order.order_id}:{number}", Refunded)
            self.expected.lessons[order.order_id, number] = "divided"

    async def _complains(self) -> bool:
        """Complains about an order, one of its lessons is confirmed meanwhile, and paid out when the complaint is
        closed. One in `LEFT_OPEN` is not, and holds its order to the end."""
        order, number = next(self._complained, (None, 0))
        if order is None:
            return False
        if order.order_id in self._held():
            return True
        filing = await self.scenario.complain(order.order_id, order.guardian, self.institution)
        self.expected.complaints[filing.filing_id] = order.order_id
        if self.chance.randrange(LEFT_OPEN) == 0:
            return True
        await self.applies(order, number)
        await self._confirms(order, number)
        close = MoveFiling(filing_id=filing.filing_id, state="rejected", reason="已补开发票")
        await self.scenario.ask(close, FilingView, self.authority)
        self.expected.closed.add(filing.filing_id)
        await self.is_paid(order, number)
        return True

    async def _refunds(self) -> bool:
        """One lesson is consumed; the rest is asked back while the institution files the next, and only one of the two
        comes in time. Where that was the lesson, it is settled first, or excluded and released after the refund. The
        institution agrees, or objects and the authority decides."""
        order = next(self._unwanted, None)
        if order is None:
            return False
        await self.applies(order, 1)
        await self._confirms(order, 1)
        await self.is_paid(order, 1)
        filed, refund = await asyncio.gather(self._asks(self.applies(order, 2)), self._wants_back(order))
        excluded = refund is None and self.chance.random() < 0.5
        if excluded:
            refund = await self._wants_back(order, excluded=(2,))
        elif refund is None:  # the lesson was filed first
            await self._confirms(order, 2)
            await self.is_paid(order, 2)
            refund = await self._wants_back(order)
        elif filed:
            raise LoadError(f"{order.order_id}: lesson 2 was filed and asked back")
        assert refund is not None
        agrees = self.chance.random() < 0.7
        answer = AnswerRefund(order_id=order.order_id, refund_id=refund.refund_id, agrees=agrees)
        await self.scenario.ask(answer, RefundView, order.institution.token)
        if not agrees:
            decision = DecideRefund(
                order_id=order.order_id, refund_id=refund.refund_id, granted=True, deduction_fen=100, reason="经核查"
            )
            await self.scenario.ask(decision, RefundView, self.authority)
        if excluded:
            await self._confirms(order, 2)
            await self.is_paid(order, 2)
        await self.gateway.first(f"{order.order_id}:0", Refunded)
        self.expected.lessons |= {(order.order_id, number): "refunded" for number in refund.lessons}
        return True

    async def _freezes(self) -> bool:
        """A lesson is confirmed while its institution is frozen, and paid out when it is thawed."""
        order, number = next(self._frozen, (None, 0))
        if order is None:
            return False
        institution_id, until = order.institution.institution_id, self.scenario.now() + FROZEN
        freeze = FreezeInstitution(institution_id=institution_id, until=until, reason="核查资金去向")
        await self.scenario.ask(freeze, InstitutionView, self.authority)
        await self.applies(order, number)
        await self._confirms(order, number)
        thaw = ThawInstitution(institution_id=institution_id, reason="核查完毕")
        await self.scenario.ask(thaw, InstitutionView, self.authority)
        await self.is_paid(order, number)
        return True

    async def _gathers(self) -> bool:
        """Lessons are gathered, and go out in one sum when their institution chooses to be paid at once again."""
        some = [lesson for lesson, _ in zip(self._gathered, range(GATHERED), strict=False)]
        if not some:
            return False
        institution_id = some[0][0].institution.institution_id
        daily, at_once = (ChooseSettlement(institution_id=institution_id, mode=mode) for mode in ("daily", "at_once"))
        await self.scenario.ask(daily, SettlementView, self.authority)
        for order, number in some:
            await self.applies(order, number)
            await self._confirms(order, number)
        await self.scenario.ask(at_once, SettlementView, self.authority)
        for order, number in some:
            await self.is_paid(order, number)
        return True

    async def _winds_up(self) -> bool:
        """An institution is gone: what was taught is paid out, everything else goes back, however often it is said."""
        orders = next(self._gone, None)
        if orders is None:
            return False
        taught = orders[::2]
        for order in taught:
            await self.applies(order, 1)
            await self._confirms(order, 1)
            await self.is_paid(order, 1)
        institution_id = orders[0].institution.institution_id
        plan = await self.scenario.ask(PlanWindUp(institution_id=institution_id), WindUpView, self.authority)
        lessons = sum(len(order.course.lessons) for order in orders) - len(taught)
        if (plan.orders, plan.lessons) != (len(orders), lessons):
            raise LoadError(f"the dry run says {plan}")
        start = StartWindUp(institution_id=institution_id, reason="机构失联")
        await asyncio.gather(*(self.scenario.ask(start, WindUpView, self.authority) for _ in range(2)))
        for order in orders:
            await self.gateway.first(f"{order.order_id}:0", Refunded)
            numbers = range(2 if order in taught else 1, len(order.course.lessons) + 1)
            self.expected.lessons |= {(order.order_id, number): "refunded" for number in numbers}
        again = await self.scenario.ask(start, WindUpView, self.authority)
        show = ShowWindUp(institution_id=institution_id)
        while again.finished_at is None:
            await asyncio.sleep(LOOK_S)
            again = await self.scenario.ask(show, WindUpView, self.authority)
        return True

    # --- money in suspense ------------------------------------------------------------------------------------------

    async def _goes_astray(self) -> bool:
        """Money comes in under a number that nobody knows, or once more for an order that is paid, in its account or in
        another's; and goes back. One sum in `LEFT_OPEN` stays in suspense."""
        stray = next(self._strays, None)
        if stray is None:
            return False
        order = self.taught[stray % len(self.taught)]
        reason, number, account = (
            ("unknown_number", _number_of_nobody(), self.institution.account),
            ("double", collect_number(order.order_id), order.institution.account),
            ("foreign", collect_number(order.order_id), self.gone[0].institution.account),
        )[stray % 3]
        booked = await self._comes_in(number, account, self.chance.randrange(1, 1_000_000), reason)
        if booked is not None and self.chance.randrange(LEFT_OPEN):
            await self._goes_back(booked)
        return True

    async def _pays_wrongly(self) -> bool:
        """The bank collects too much or too little, which goes back, and the fee comes by a transfer that an operator
        matches. Or the bank refuses, and the fee comes when the order has ended: matched, and refunded."""
        turn = next(self._mispaid, None)
        if turn is None:
            return False
        order_id, guardian, offer = new_id(), self.chance.choice(self.guardians), self.chance.choice(self.courses)
        if await self._signs(order_id, guardian, offer):
            name, delta_fen = WRONGLY[0 if self.lenient else turn % len(WRONGLY)]
            this: dict[str, Any] = {"kind": "collect", "order_id": order_id, "delta_fen": delta_fen}
            while not await self._at_the_bank(desk.set_behaviour(self.bank, name, **this)):
                pass
            pay = PayPurchase(order_id=order_id, method="alipay")
            if await self._asks(self.scenario.ask(pay, PurchaseView, guardian.token), allowed=self.lenient):
                if delta_fen:
                    reason = "over" if delta_fen > 0 else "short"
                    await self._goes_back(await self._in_suspense(collect_number(order_id), reason))
                else:
                    await self.gateway.first(str(order_id), PurchaseEnded)
                await self._is_found(order_id, offer)
        await self._ends(order_id, lenient=True)
        return True

    async def _is_found(self, order_id: UUID, offer: Offer) -> None:
        """The fee of an order comes by a transfer with a number of its own."""
        fee = offer.account, offer.course.price_fen
        while (booked := await self._comes_in(_number_of_nobody(), *fee, "unknown_number")) is None:
            pass
        match = MatchSuspense(receipt_id=booked.receipt_id, order_id=order_id, reason="附言有误，经核对为该订单学费")
        await self.scenario.ask(match, SuspenseView, self.operator)
        await self.gateway.first(str(booked.receipt_id), SuspenseMatched)
        self.expected.strays[booked.number] = "matched"

    async def _comes_in(self, number: str, account: BankAccount, amount_fen: int, reason: str) -> SuspenseBooked | None:
        """Money that the bank was not told to collect. None while the bank's database is away: it may have come."""
        self.expected.strays[number] = "may have come"
        coming = desk.unsolicited(
            self.bank,
            bank=account.bank,
            supervised_account=account.supervised_account,
            amount_fen=amount_fen,
            number=number,
        )
        if not await self._at_the_bank(coming):
            return None
        return await self._in_suspense(number, reason)

    async def _in_suspense(self, number: str, reason: str) -> SuspenseBooked:
        booked = await self.gateway.first(number, SuspenseBooked)
        assert isinstance(booked, SuspenseBooked)
        if booked.reason != reason and not self.lenient:
            raise LoadError(f"{number} is {booked.reason}, not {reason}")
        self.expected.strays[number] = "open"
        return booked

    async def _goes_back(self, booked: SuspenseBooked) -> None:
        return_ = ReturnSuspense(receipt_id=booked.receipt_id, reason="误转，原路退回")
        await self.scenario.ask(return_, SuspenseView, self.operator)
        await self.gateway.first(str(booked.receipt_id), SuspenseReturned)
        self.expected.strays[booked.number] = "returned"

    @staticmethod
    async def _at_the_bank(doing: Awaitable[Any]) -> bool:
        """False if the bank's database was away, a second later."""
        try:
            await doing
        except Exception as error:
            if not is_passing(error):
                raise
            await asyncio.sleep(1)
            return False
        return True

    # --- what all of them do ----------------------------------------------------------------------------------------

    async def _wants_back(self, order: Order, excluded: tuple[int, ...] = ()) -> RefundView | None:
        """Asks back what is quoted; None if that is no longer so when it is asked."""
        token = order.guardian.token
        quote = await self.scenario.ask(QuoteRefund(order_id=order.order_id), RefundQuote, token)
        request = RequestRefund(
            order_id=order.order_id,
            refund_id=new_id(),
            reason="孩子转学",
            quoted_fen=quote.refund_fen,
            excluded=excluded,
        )
        try:
            return await self.scenario.ask(request, RefundView, token)
        except RequestRefused as refused:
            if refused.code not in ("refund_pending", "refund_changed"):
                raise
            return None

    def _held(self) -> set[UUID]:
        complaints = self.expected.complaints
        return {order_id for filing_id, order_id in complaints.items() if filing_id not in self.expected.closed}

    async def applies(self, order: Order, number: int) -> LessonAnswer:
        """The institution files a lesson as taught."""
        apply = ApplyLesson(order_id=order.order_id, lesson_no=number)
        return await self.scenario.ask(apply, LessonAnswer, order.institution.token)

    async def _confirms(self, order: Order, number: int) -> None:
        confirm = ConfirmLesson(order_id=order.order_id, lesson_no=number)
        await self.scenario.ask(confirm, LessonAnswer, order.guardian.token)

    async def is_paid(self, order: Order, number: int) -> None:
        """The bank has paid its fee."""
        await self.gateway.first(f"{order.order_id}:{number}", Settled)
        self.expected.lessons[order.order_id, number] = "paid_out"

    @staticmethod
    async def _asks(*asking: Awaitable[Any], allowed: bool = True) -> bool:
        """Asks all at once; some may come too late, where that is allowed. True if none did."""
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        for outcome in outcomes:
            late = isinstance(outcome, RequestRefused) and outcome.code in TOO_LATE
            if isinstance(outcome, BaseException) and not (late and allowed):
                raise outcome
        return not any(isinstance(outcome, BaseException) for outcome in outcomes)
