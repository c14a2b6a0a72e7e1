"""Whether a history agrees with the models: row by row after every commit, and the whole world at its end."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from shared.messaging.handlers import in_groups
from tests.faults import invariants
from tests.faults.statements import BREAKS, in_words
from tests.faults.world import World
from tests.simulation import model_breaks, model_closures, model_invoices
from tests.simulation.checks import check_banks, check_breaks, check_custody, check_invoices
from tests.simulation.model import Complaints, Said, Timers
from tests.simulation.model_banks import RESERVE, Banks, place_of
from tests.simulation.model_catalog import FREEZE_TIMER, Catalog
from tests.simulation.model_closures import Closures
from tests.simulation.model_money import Escrow
from tests.simulation.model_settlements import CLOSE
from tests.simulation.people import People
from tests.simulation.simulation import Heard, Simulation

CHECKS: Final = (
    invariants.the_books_prove,
    invariants.every_order_is_balanced,
    invariants.nothing_waits_in_an_outbox,
    invariants.everything_said_stands_on_its_topic,
    invariants.nothing_stands_on_a_topic_that_was_not_said,
    invariants.each_key_keeps_its_order,
    invariants.everybody_has_heard_what_is_for_him,
    invariants.nobody_lags,
    invariants.dead_letters_are_as_expected,
    invariants.no_step_and_no_timer_is_late,
    invariants.what_is_enrolled_is_paid_seated_and_planned,
    invariants.lessons_agree_with_escrow,
    invariants.refunds_agree_with_escrow,
    invariants.decisions_agree_with_escrow,
    invariants.seats_add_up,
)
"""What holds at rest whatever has happened; the other checks of that module are about banks that behave."""

# Answers are looked at by themselves; reminders of complaints the models do not know.
_SAID: Final = """
SELECT type, key, count(*)::int AS times FROM outbox WHERE topic !~ '[.](replies|dlq)[.]v1$'
  AND type NOT IN ('complaints.filing.moved.v1', 'complaints.deadline.v1')
GROUP BY type, key
"""
_SETTLEMENT_OF: Final = """
SELECT order_id::text, lesson_no, settlement_id::text FROM gathered WHERE settlement_id IS NOT NULL
"""
_STANDS: Final = "SELECT state, frozen_until FROM institutions WHERE institution_id = $1"
_SOLD: Final = "SELECT order_id::text FROM reservations WHERE course_id IS NOT NULL"
_FREEZE_TIMERS: Final = "SELECT subject, due_at FROM timers WHERE type = $1"
CONFLICT: Final = "!idempotency_conflict"


class Agreement:
    """The models of one history and what they expect; it watches the simulation."""

    def __init__(self, simulation: Simulation, people: People, authority: str) -> None:
        self.simulation = simulation
        institution = people.institution_actor.subject
        next_door = place_of(people.neighbour.account)
        at = place_of(people.institution.account)
        self.banks = Banks(institution, authority, at, dict.fromkeys(people.neighbours, next_door))
        self.orders = Closures(institution, authority, simulation.contracts)
        self.escrow = Escrow(institution, authority, self.banks)
        self.catalog = Catalog(authority, self.banks)
        self.complaints = Complaints()
        self.orders.neighbours = people.neighbours
        self.expected: dict[UUID, str] = {}
        """Asking → what must be answered."""
        self._message_of: dict[UUID, UUID] = {}
        self._heard: dict[tuple[str, UUID], tuple[Heard, str]] = {}
        self._changed: set[str] = set()
        self._checked: Counter[UUID] = Counter()

    # --- what was committed -----------------------------------------------------------------------------------------

    async def handled(self, service: str, batch: Sequence[Heard]) -> None:
        """The model hears what the service has handled, kind by kind as its handlers do; repeats it does not hear."""
        self._changed.add(service)
        entries = self.simulation.processes[service].handlers.entries
        fresh: dict[UUID, Heard] = {}
        for m in batch:
            if (service, m.id) not in self._heard:
                fresh.setdefault(m.id, m)
        if any(m.type == CLOSE for m in fresh.values()):
            rows = await self.simulation.rows("escrow", _SETTLEMENT_OF)
            self.escrow.settlements.ids = {(row["order_id"], row["lesson_no"]): row["settlement_id"] for row in rows}
        if any(m.type == RESERVE for m in fresh.values()):
            self.banks.with_seat = {row["order_id"] for row in await self.simulation.rows("catalog", _SOLD)}
        for m in fresh.values():
            self.banks.hear(m)
        for group in in_groups(cast(Any, fresh.values()), lambda m: id(entries[m.type].handle)):
            for m in cast(Sequence[Heard], group):
                self._heard[service, m.id] = m, self._hear(service, m)
        for m in batch:
            first, answer = self._heard[service, m.id]
            if m.asking is not None:
                is_same = (first.type, first.data) == (m.type, m.data)
                self.expected[m.asking] = answer if is_same else CONFLICT
                self._message_of[m.asking] = m.id

    def _hear(self, service: str, m: Heard) -> str:
        models = {
            "orders": self.orders.hear,
            "escrow": self.escrow.hear,
            "catalog": self.catalog.hear,
            "complaints": self.complaints.hear,
        }
        return models[service](m) if service in models else ""

    def fired(self, service: str, now: datetime) -> None:
        """Timers that were due are gone."""
        self._changed.add(service)
        models: dict[str, Closures | Escrow | Catalog]
        models = {"orders": self.orders, "escrow": self.escrow, "catalog": self.catalog}
        model = models.get(service)
        if model is None:
            return
        for type_, subject in [key for key, due_at in model.timers.items() if due_at <= now]:
            del model.timers[type_, subject]
            model.said[type_, subject.partition(":")[0]] += 1

    def written(self, service: str) -> None:
        """Somebody has written to its tables without a message."""
        self._changed.add(service)

    async def check(self) -> None:
        """Row by row where something was committed since, the timers too; and the answers that have come."""
        changed, self._changed = self._changed, set()
        if "orders" in changed:
            await self._check_orders()
        if "escrow" in changed:
            await self._check_escrow()
        if "catalog" in changed:
            await self._check_catalog()
        if "complaints" in changed:
            await self._check_complaints()
        self._check_answers()

    async def _check_orders(self) -> None:
        sql = """SELECT order_id::text, state, act_by, reason, method, signed_at IS NOT NULL AS signed,
                        CASE WHEN reason = 'course_limit_price' THEN split_part(detail, '：', 2) ELSE '' END AS told
                 FROM purchases"""
        found = {row["order_id"]: tuple(row)[1:] for row in await self.simulation.rows("orders", sql)}
        purchases = self.orders.purchases
        agree(found, {id_: (p.state, p.act_by, p.reason, p.method, p.signed, p.told) for id_, p in purchases.items()})
        sql = """SELECT order_id::text, lesson_no, state, confirmed_by, answer_by, objection, reminded_at, paid_at
                 FROM lessons"""
        found = {tuple(row)[:2]: tuple(row)[2:] for row in await self.simulation.rows("orders", sql)}
        lessons = {(id_, number): one for id_, p in purchases.items() for number, one in p.lessons.items()}
        told = {
            key: (one.state, one.by, one.answer_by, one.objection, one.reminded, one.paid)
            for key, one in lessons.items()
        }
        agree(found, told)
        sql = """SELECT order_id::text, lesson_no, state, reason, evidence, answer_by, answer, decide_by, overdue,
                        decision, release_fen, decision_reason, decided_by FROM objections"""
        found = {tuple(row)[:2]: tuple(row)[2:] for row in await self.simulation.rows("orders", sql)}
        objected = {key: (one.objection, one.objected) for key, one in lessons.items() if one.objected}
        of_objections = {
            key: (o.state, reason, o.evidence, o.answer_by, o.answer, o.decide_by, o.overdue, *o.decision)
            for key, (reason, o) in objected.items()
        }
        agree(found, of_objections)
        sql = """SELECT order_id::text, refund_id::text, state, lessons::text, deduction_fen, act_by, kept_paid_at
                 FROM refunds"""
        found = {tuple(row)[:2]: tuple(row)[2:] for row in await self.simulation.rows("orders", sql)}
        refunds = {(id_, refund_id): one for id_, p in purchases.items() for refund_id, one in p.refunds.items()}
        of_refunds = {
            key: (one.state, str(one.lessons), one.deduction, one.act_by, one.kept_paid) for key, one in refunds.items()
        }
        agree(found, of_refunds)
        await check_invoices(self.simulation, self.orders.invoices, agree)
        sql = """SELECT institution_id::text, run, reason, decided_by, started_at, orders, lessons, refund_fen,
                         given_up, pending, done_orders, done_fen, finished_at FROM wind_ups"""
        found = {row["institution_id"]: tuple(row)[1:] for row in await self.simulation.rows("orders", sql)}
        agree(found, {id_: tuple(vars(one).values()) for id_, one in self.orders.wind_ups.items()})
        await self._check_timers("orders", self.orders.timers)
        await self._check_said("orders", self.orders.said)

    async def _check_escrow(self) -> None:
        sql = """SELECT order_id::text, bank, supervised_account, payout_account, state, suspensions, paid_fen,
                        held_fen, releasing_fen, released_fen, refunding_fen, refunded_fen FROM accounts"""
        found = {row["order_id"]: tuple(row)[1:] for row in await self.simulation.rows("escrow", sql)}
        accounts = self.escrow.accounts
        books = {
            id_: (one.bank, one.supervised, one.payout_account, one.state, one.suspended, *one.balances())
            for id_, one in accounts.items()
        }
        agree(found, books)
        sql = """SELECT order_id::text, kind, lesson_no, amount_fen, state, attempt, turn, asks, reference,
                        counter_account FROM instructions"""
        found = {tuple(row)[:3]: tuple(row)[3:] for row in await self.simulation.rows("escrow", sql)}
        payments = {(id_, *key): one for id_, account in accounts.items() for key, one in account.payments.items()}
        receipts = self.escrow.suspense.receipts
        payments |= {(id_, "return", 0): one.back for id_, one in receipts.items() if one.back is not None}
        told = {k: (p.amount, p.state, p.attempt, p.turn, p.asks, p.reference, p.to) for k, p in payments.items()}
        agree(found, told)
        sql = """SELECT receipt_id::text, bank, account, reference, order_id::text, amount_fen, reason, due_at, state,
                        matched_order_id::text, decided_by, decision FROM suspense"""
        found = {row["receipt_id"]: tuple(row)[1:] for row in await self.simulation.rows("escrow", sql)}
        agree(found, {id_: one.row() for id_, one in receipts.items()})
        rows = await self.simulation.rows("escrow", "SELECT institution_id::text, state, change_no FROM freezes")
        agree({row["institution_id"]: tuple(row)[1:] for row in rows}, dict(self.escrow.freezes))
        await self._check_settlements()
        await check_breaks(self.simulation, self.escrow.breaks, agree)
        await self._check_timers("escrow", self.escrow.timers)
        await self._check_said("escrow", self.escrow.said)

    async def _check_settlements(self) -> None:
        model = self.escrow.settlements
        rows = await self.simulation.rows(
            "escrow", "SELECT institution_id::text, mode, changed_by FROM settlement_modes"
        )
        agree(
            {row["institution_id"]: tuple(row)[1:] for row in rows},
            {model.institution: model.chosen} if model.chosen else {},
        )
        rows = await self.simulation.rows("escrow", "SELECT bank, payout_account, changed_by FROM payout_accounts")
        agree({row["bank"]: tuple(row)[1:] for row in rows}, dict(model.accounts))
        sql = """SELECT order_id::text, lesson_no, bank, supervised_account, payout_account, amount_fen,
                        settlement_id::text FROM gathered"""
        found = {tuple(row)[:2]: tuple(row)[2:] for row in await self.simulation.rows("escrow", sql)}
        agree(found, {lesson: tuple(vars(one).values()) for lesson, one in model.gathered.items()})
        sql = """SELECT settlement_id::text, bank, supervised_account, payout_account, amount_fen, lessons, state,
                        attempt, turn, asks, reference, booked_step FROM settlements"""
        found = {row["settlement_id"]: tuple(row)[1:] for row in await self.simulation.rows("escrow", sql)}
        told = {
            id_: (
                *(one.bank, one.supervised, one.to, one.amount, len(one.lessons)),
                *(one.state, one.attempt, one.turn, one.asks, one.reference, one.booked),
            )
            for id_, one in model.settlements.items()
        }
        agree(found, told)

    async def _check_catalog(self) -> None:
        """Freezes, and that nobody has a seat who asked for it only while the institution might not sell."""
        await check_banks(self.simulation, self.banks, agree)
        stands = [tuple(row) for row in await self.simulation.rows("catalog", _STANDS, UUID(self.orders.institution))]
        assert stands == [(self.catalog.state, self.catalog.frozen_until)], (stands, vars(self.catalog))
        sold = {row["order_id"] for row in await self.simulation.rows("catalog", _SOLD)}
        assert sold <= self.catalog.offered, f"sold by who may not: {sold - self.catalog.offered}"
        rows = await self.simulation.rows("catalog", _FREEZE_TIMERS, FREEZE_TIMER)
        agree({(FREEZE_TIMER, row["subject"]): row["due_at"] for row in rows}, self.catalog.timers)
        said = {(row["type"], row["key"]): row["times"] for row in await self.simulation.rows("catalog", _SAID)}
        freezes = {key: times for key, times in said.items() if key[0].startswith("catalog.institution.")}
        agree(freezes, dict(+self.catalog.said))

    async def _check_complaints(self) -> None:
        rows = await self.simulation.rows("complaints", "SELECT filing_id::text, state FROM filings")
        found = {row["filing_id"]: row["state"] for row in rows}
        agree(found, {id_: filing[0] for id_, filing in self.complaints.filings.items()})
        await self._check_said("complaints", self.complaints.said)

    async def _check_timers(self, service: str, timers: Timers) -> None:
        rows = await self.simulation.rows(service, "SELECT type, subject, due_at FROM timers")
        agree({(row["type"], row["subject"]): row["due_at"] for row in rows}, timers)

    async def _check_said(self, service: str, said: Said) -> None:
        rows = await self.simulation.rows(service, _SAID)
        agree({(row["type"], row["key"]): row["times"] for row in rows}, dict(+said))  # what was said no times, was not

    def _check_answers(self) -> None:
        """Each asking has the answer that the model gives it, and one only, however often it is given."""
        for asking, answers in self.simulation.answers.items():
            for envelope in answers[self._checked[asking] :]:
                expected = self.expected[asking]
                assert told(envelope) == expected, f"should be {expected}: {envelope}"
                unlike = [one for one in answers if one["data"] != envelope["data"]]
                ids = {one["id"] for one in answers}
                assert not unlike, (envelope, unlike)
                assert len(ids) == 1 or expected == CONFLICT, f"{asking} has the answers {ids}"
            self._checked[asking] = len(answers)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def check_the_end(self) -> None:
        """Nothing moves any more: everything asked has one answer, everything begun has come to an end."""
        await self.check()
        world = await self.simulation.world()
        found = [(check.__name__, place) for check in CHECKS for place in check(world, invariants.Expected())]
        assert not found, found
        differences = list(money_that_banks_and_books_disagree_about(world))
        assert not differences, differences
        await check_custody(self.simulation, self.escrow, agree)
        states = {id_: p.state for id_, p in self.orders.purchases.items()}
        assert set(states.values()) <= {"enrolled", "ended"}, states
        asked, answered = self.simulation.askings.keys(), self.simulation.answers.keys()
        assert asked == self.expected.keys() == answered, (asked - self.expected.keys(), asked - answered)
        ids: dict[UUID, set[str]] = defaultdict(set)
        for asking, answers in self.simulation.answers.items():
            if self.expected[asking] != CONFLICT:
                ids[self._message_of[asking]] |= {envelope["id"] for envelope in answers}
        twice = {message: some for message, some in ids.items() if len(some) > 1}
        assert not twice, f"answered in two ways: {twice}"
        open_ = {id_ for id_, one in self.escrow.suspense.receipts.items() if one.state in ("open", "returning")}
        assert not open_, f"still in suspense: {open_}"
        breaks = await self.simulation.rows("escrow", BREAKS)
        assert not breaks, [in_words(row) for row in breaks]

    def counts(self) -> Counter[str]:
        """What this history came to."""
        counts: Counter[str] = Counter()
        for purchase in self.orders.purchases.values():
            counts[f"purchases {purchase.state} {purchase.reason}".strip()] += 1
            for lesson in purchase.lessons.values():
                counts[f"lessons {lesson.state} {lesson.by}".strip()] += 1
                if lesson.objected is not None:
                    what, _, _, by = lesson.objected.decision
                    counts[f"objections {lesson.objected.state} {what} {by}".strip()] += 1
                    counts["authorities late"] += lesson.objected.overdue
            counts.update(f"refunds {one.state}" for one in purchase.refunds.values())
        for account in self.escrow.accounts.values():
            counts[f"accounts {account.state}"] += 1
            for (kind, _), payment in account.payments.items():
                counts[f"{kind} {payment.state}"] += 1
                counts[f"{kind} came back"] += payment.turn
        for receipt in self.escrow.suspense.receipts.values():
            counts[f"suspense {receipt.state}"] += 1
            counts["suspense reopened"] += receipt.back.turn if receipt.back else 0
        for settlement in self.escrow.settlements.settlements.values():
            counts[f"settlements {settlement.state}"] += 1
            counts["settlements came back"] += settlement.turn
        counts += self.orders.counts
        counts["lessons gathered"] += len(self.escrow.settlements.gathered)
        counts += self.escrow.counts + self.catalog.counts + self.banks.counts + self.orders.invoices.counts
        may_not_sell = ("institution_frozen", "institution_not_listed")
        refused = {id_ for id_, p in self.orders.purchases.items() if p.reason in may_not_sell}
        assert refused <= self.catalog.turned_away, (refused, self.catalog.turned_away)
        for answer in self.expected.values():
            counts[f"refused: {answer[1:]}" if answer.startswith("!") else "answered"] += 1
        counts["complaints"] += len(self.complaints.filings)
        return counts


def told(envelope: dict[str, Any]) -> str:
    """An answer in the words of the model that gives it: the code of a refusal behind `!`, or what is said."""
    type_, data = envelope["type"], envelope["data"]
    if type_ == "problem.v1":
        return f"!{data['code']}"
    if type_.startswith("orders.invoice."):
        return model_invoices.in_words(type_, data)
    if type_.startswith("escrow.break."):
        return model_breaks.in_words(type_, data)
    if type_ == model_closures.VIEW:
        return model_closures.told_in_words(data)
    return str(data["state"] if "state" in data else data["mode"])


def agree(found: dict[Any, Any], model: dict[Any, Any]) -> None:
    """The tables and the model say the same."""
    unlike = {key: (found.get(key), model.get(key)) for key in found.keys() | model.keys()}
    unlike = {key: both for key, both in unlike.items() if both[0] != both[1]}
    assert not unlike, f"table and model disagree: {unlike}"


def money_that_banks_and_books_disagree_about(world: World) -> Iterator[str]:
    """Account by account: what is in custody, suspense too, and what the institution has; then payment by payment."""
    places = {row["order_id"]: row for row in world.tables["escrow.accounts"]}
    together = {(row["order_id"], row["lesson_no"]) for row in world.tables["escrow.gathered"]}
    matched = {row["reference"] for row in world.tables["escrow.suspense"] if row["state"] == "matched"}
    payments: list[tuple[str, Any]] = [(row["number"], row) for row in world.tables["escrow.settlements"]]
    should: Counter[tuple[str, str]] = Counter()
    for row in world.tables["escrow.settlements"]:
        should[row["bank"], row["payout_account"]] += row["amount_fen"]
    for row in world.tables["escrow.instructions"]:
        if row["kind"] == "payout" and (row["order_id"], row["lesson_no"]) in together:
            continue
        payments.append((invariants.number_of(row), row))
        if row["kind"] == "payout" and row["state"] == "paid":
            place = places[row["order_id"]]
            should[place["bank"], row["counter_account"] or place["payout_account"]] += row["amount_fen"]
    for row in places.values():
        in_custody = row["held_fen"] + row["releasing_fen"] + row["refunding_fen"]
        should[row["bank"], row["supervised_account"]] += in_custody
    for row in world.tables["escrow.suspense"]:
        if row["state"] in ("open", "returning"):
            should[row["bank"], row["account"]] += row["amount_fen"]
    for row in world.tables["bank.accounts"]:
        account = (row["bank"], row["account"])
        if row["balance_fen"] != should[account]:
            yield f"{account}: the bank has {row['balance_fen']} fen, the books {should[account]}"
    yield from _payments_that_differ(world, payments, matched)


def _payments_that_differ(world: World, payments: list[tuple[str, Any]], matched: set[str]) -> Iterator[str]:
    paid = {entry["reference"]: entry for entry in world.tables["bank.entries"] if entry["outcome"] == "paid"}
    came_back = {entry["number"] for entry in world.tables["bank.entries"] if entry["outcome"] == "returned"}
    booked = {row["reference"] for row in world.tables["escrow.suspense"]}
    for number, row in payments:
        if row["state"] == "paid" and row["reference"] not in matched:
            booked.add(row["reference"])
            entry = paid.get(row["reference"])
            if entry is None or (entry["number"], entry["amount_fen"]) != (number, row["amount_fen"]):
                yield f"{number} is paid, and not at the bank"
        elif row["state"] in ("sent", "gathered") or (row["state"] == "refused" and number[0] != "C"):
            yield f"{number} is still {row['state']}"
    for reference, entry in paid.items():
        if reference not in booked and entry["number"] not in came_back:
            yield f"{entry['number']} was paid, and nobody has booked it"
