"""Invoices: issued, red-lettered, asked about; and what is still owed a month later."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from shared.actors import Actor
from shared.contracts.orders import (
    AnswerObjection,
    DecideObjection,
    IssueInvoice,
    LessonKey,
    ListOverdueInvoices,
    ObjectLesson,
    RedLetterInvoice,
    ShowInvoices,
)
from shared.ids import derived_id
from shared.settings import PARTICIPANTS
from tests.simulation.model_invoices import DAYS, STRANGER, received
from tests.simulation.people import AUTHORITY, LESSONS, PRICE_FEN
from tests.simulation.rules import ORDER, WHICH, Rules

RIGHT: Final = ("issue", "issue", "issue of one", "red", "red", "show", "list")
WRONG: Final = (
    *("issue too much", "issue more", "issue less", "issue of an unknown lesson", "issue with a used number"),
    *("issue of another", "issue again", "red again", "red otherwise", "red with its own", "red with a used number"),
    *("red of another", "red of none", "list of another", "list by pages"),
)
ABOUT_INVOICES: Final = (*RIGHT, *RIGHT, *WRONG)
SECOND: Final = timedelta(seconds=1)


class InvoiceRules(Rules):
    """Invoices."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.late: list[tuple[int, str]] = []
        self.issues: list[IssueInvoice] = []
        self.reds: list[RedLetterInvoice] = []

    @initialize(late=st.lists(st.tuples(ORDER, st.sampled_from(ABOUT_INVOICES)), min_size=1, max_size=6))
    def when_all_is_over(self, late: list[tuple[int, str]]) -> None:
        """What is told of invoices when some have been owed for a month."""
        self.late = late

    @precondition(lambda self: any(one.state == "enrolled" for one in self.agreement.orders.purchases.values()))
    @rule(
        order=ORDER,
        earns=st.sampled_from(("nothing", "a fee", "a part")),
        what=st.lists(st.sampled_from(ABOUT_INVOICES), min_size=2, max_size=6),
        another=st.booleans(),
        rounds=st.integers(0, 2),
    )
    def gives_invoices(self, order: int, earns: str, what: list[str], another: bool, rounds: int) -> None:
        """The institution tells of its invoices for an order of which it has received something, or is just to."""
        paid = [order_id for order_id, one in self.agreement.orders.purchases.items() if one.state == "enrolled"]
        fees_of = self._received()
        earning = [order_id for order_id, fees in fees_of.items() if fees]
        keeping = [order_id for order_id, fees in fees_of.items() if 0 in fees]  # of a refund: rarer than a fee
        orders = keeping or earning or paid
        order_id = UUID(orders[order % len(orders)])
        if earns != "nothing" or not earning:
            self._earn(order_id, in_part=earns == "a part")
        for number, one in enumerate(what):
            if another and number == len(what) // 2:  # from now on of another order
                order_id = UUID(orders[(order + 1) % len(orders)])
            self._speak(one, order_id, self.institution_of(order_id))
            self.works(rounds, PARTICIPANTS)

    @rule(order=WHICH, what=st.sampled_from(ABOUT_INVOICES), who=st.integers(0, 5))
    def anybody_speaks_of_invoices(self, order: int, what: str, who: int) -> None:
        """Of any order, or of one that there is not."""
        orders = [*self.order_ids, derived_id("no order")]
        order_id = orders[order % len(orders)]
        institutions = Actor(STRANGER, "institution"), self.people.institution_actor, self.institution_of(order_id)
        self._speak(what, order_id, (*self.people.guardians, AUTHORITY, *institutions)[who])

    def _earn(self, order_id: UUID, *, in_part: bool) -> None:
        """A lesson is filed, and confirmed; or its guardian objects, and the authority splits its fee."""
        self._goes_on(self.order_ids.index(order_id))
        self.works(4, PARTICIPANTS)
        purchase = self.agreement.orders.purchases[str(order_id)]
        filed = [number for number, one in purchase.lessons.items() if one.state == "applied"]
        if not in_part or not filed:
            self._goes_on(self.order_ids.index(order_id))
        else:
            about: dict[str, Any] = {"order_id": order_id, "lesson_no": filed[0]}
            part = PRICE_FEN // LESSONS // 3
            self.ask(ObjectLesson(**about, reason="老师迟到四十分钟"), Actor(purchase.guardian, "guardian"))
            self.ask(AnswerObjection(**about, text="已补课"), self.institution_of(order_id))
            self.ask(DecideObjection(**about, decision="split", release_fen=part, reason="双方各有责任"), AUTHORITY)
        self.works(4, PARTICIPANTS)

    def _received(self) -> dict[str, dict[int, int]]:
        """Order → lesson → what the institution has of its fee."""
        return {
            order_id: {no: fee for no, (fee, _) in received(purchase).items() if fee}
            for order_id, purchase in self.agreement.orders.purchases.items()
        }

    def _number(self) -> str:
        """One that nobody has used: of the long kind, or of the short one."""
        self.numbers += 1
        return f"{self.numbers:08}" if self.numbers % 3 == 0 else f"26320000{self.numbers:012}"

    def _speak(self, what: str, order_id: UUID, actor: Actor) -> None:
        match what:
            case "show":
                self.ask(ShowInvoices(order_id=order_id), actor)
            case "list" | "list of another" | "list by pages":
                self._list(what, actor)
            case "red again":
                for one in self.reds[-1:]:
                    self.ask(one, actor)
            case _ if what.startswith("red"):
                self._redden(what, order_id, actor)
            case "issue again":
                for again in self.issues[-1:]:
                    self.ask(again, actor)
            case _:
                self._issue(what, order_id, actor)
        self.simulation.counts[f"of invoices: {what}"] += 1

    def _issue(self, what: str, order_id: UUID, actor: Actor) -> None:
        model = self.agreement.orders.invoices
        purchase = self.agreement.orders.purchases.get(str(order_id))
        owed = model.owed(str(order_id), purchase) if purchase else {}
        lessons = list(owed)[-1:] if what == "issue of one" else list(owed)
        amount = sum(owed[number] for number in lessons)
        if what == "issue too much" or not lessons:
            more = [number for number in range(1, LESSONS + 1) if number not in lessons]
            lessons, amount = [*lessons, *more[:1]], amount + PRICE_FEN // LESSONS
        if what == "issue of an unknown lesson":
            lessons = [*lessons, LESSONS + 1]
        used = [number for _, number in model.numbers][-1:] if what == "issue with a used number" else []
        of_another = list(model.invoices)[-1:] if what == "issue of another" else []
        asked = IssueInvoice(
            invoice_id=UUID(of_another[0]) if of_another else derived_id("invoice", self.numbers),
            order_id=order_id,
            number=used[0] if used else self._number(),
            lessons=tuple(reversed(lessons)),
            amount_fen=amount + {"issue more": 1, "issue less": -1}.get(what, 0),
        )
        self.issues.append(asked)
        self.ask(asked, actor)

    def _redden(self, what: str, order_id: UUID, actor: Actor) -> None:
        model = self.agreement.orders.invoices
        red = what == "red otherwise"
        mine = [(id_, one) for id_, one in model.invoices.items() if one.order == str(order_id)]
        some = [id_ for id_, one in mine if bool(one.red_at) == red] or [id_ for id_, _ in mine]
        if what == "red of another":
            some = [id_ for id_, one in model.invoices.items() if one.order != str(order_id)]
        invoice_id = some[-1] if some and what != "red of none" else str(derived_id("no invoice"))
        number = self._number()
        if what == "red with its own" and invoice_id in model.invoices:
            number = model.invoices[invoice_id].number
        if what == "red with a used number" and model.numbers:
            _, number = next(iter(model.numbers))
        asked = RedLetterInvoice(invoice_id=UUID(invoice_id), order_id=order_id, red_number=number, reason="开票有误")
        self.reds.append(asked)
        self.ask(asked, actor)

    def _list(self, what: str, actor: Actor) -> None:
        ours = UUID(actor.subject) if actor.role == "institution" else self.people.institution.institution_id
        institution_id = UUID(STRANGER) if what == "list of another" else ours
        if what != "list by pages":
            self.ask(ListOverdueInvoices(institution_id=institution_id), actor)
            return
        afters = [None, *(LessonKey(order_id=order_id, lesson_no=2) for order_id in self.order_ids)]
        for after in afters:
            self.ask(ListOverdueInvoices(institution_id=institution_id, after=after, limit=1), actor)

    # --- a month later ----------------------------------------------------------------------------------------------

    def invoices_are_late(self) -> None:
        """At the end, when nothing else is left to do: the month of a fee that is owed an invoice is over; to the
        second before, to the moment itself, and a second more. Then invoices are given, and the last month is over."""
        owed = self._owed_until()
        due = [moment for moment in owed if self.simulation.now < moment]
        for moment in (due[0] - SECOND, due[0], due[0] + SECOND) if due else ():
            self.run(self.simulation.set_clock(max(self.simulation.now, moment)))
            self._look(())
        for order, what in self.late if owed else ():
            order_id = self.order_ids[order % len(self.order_ids)]
            self._speak(what, order_id, self.institution_of(order_id))
            self.run(self.simulation.settle())
        if owed:
            self.run(self.simulation.set_clock(max(self.simulation.now, owed[-1] + SECOND)))
            self._list("list by pages", AUTHORITY)
        self._look(self.order_ids)

    def _owed_until(self) -> list[datetime]:
        model = self.agreement.orders
        return sorted(
            paid + DAYS
            for order_id, purchase in model.purchases.items()
            for number, (_, paid) in received(purchase).items()
            if paid and number in model.invoices.owed(order_id, purchase)
        )

    def _look(self, orders: Sequence[UUID]) -> None:
        """Whoever may look does."""
        for seller in (self.people.institution, self.people.neighbour):
            self._list("list", Actor(str(seller.institution_id), "institution"))
        for order_id in orders:
            self.ask(ShowInvoices(order_id=order_id), self.institution_of(order_id))
        self.run(self.simulation.settle())
        self.run(self.agreement.check())
