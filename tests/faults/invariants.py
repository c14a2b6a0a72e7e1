"""What must be so whatever has crashed: the rules of the road and of the money, written down a second time.

In: the world as seen from outside (`world.py`) and what the story says must have become of its orders. Out: violations
in words; none is right.

    await quiet(stack)
    assert await check(stack, expected) == []
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from ops.stack_layout import PART_NAMES, Stack
from shared.contracts import topics
from shared.contracts.topics import ALL_TOPICS, TOPICS_BY_NAME
from tests.faults.world import Record, Row, World, is_answer, look

LATE: Final = timedelta(seconds=3)
"""A timer or step is late when it has been due for so long; it is fired within half a second."""
MOST_SHOWN: Final = 5
"""Places named for one broken check."""


@dataclass
class Expected:
    """What the story says: every order there is, lessons that are not merely planned, complaints, dead letters."""

    orders: dict[UUID, str] = field(default_factory=dict)
    lessons: dict[tuple[UUID, int], str] = field(default_factory=dict)
    complaints: dict[UUID, UUID] = field(default_factory=dict)
    """Filing → the order it is about."""
    closed: set[UUID] = field(default_factory=set)
    """The filings that hold their order no more."""
    dead_letters: dict[str, int] = field(default_factory=dict)
    strays: dict[str, str] = field(default_factory=dict)
    """Number of money that nobody asked for → how it stands in suspense, or that it may have come."""


Finder = Callable[[World, Expected], Iterator[str]]


# --- money --------------------------------------------------------------------------------------------------------


def the_books_prove(world: World, expected: Expected) -> Iterator[str]:
    """From nothing but escrow's transfers."""
    for name, places in world.audit.violations.items():
        yield f"{name}: {places}"


def every_order_is_balanced(world: World, expected: Expected) -> Iterator[str]:
    """Paid = held + releasing + released + refunding + refunded."""
    parts = ("held_fen", "releasing_fen", "released_fen", "refunding_fen", "refunded_fen")
    for row in world.tables["escrow.accounts"]:
        if row["paid_fen"] != sum(row[part] for part in parts):
            yield str(row["order_id"])


def the_banks_own_book_adds_up(world: World, expected: Expected) -> Iterator[str]:
    """Each balance is the sum of its entries, each number moved money at most once, and back at most once; what came
    twice, went astray."""
    sums: Counter[tuple[str, str]] = Counter()
    moved: Counter[tuple[str, str]] = Counter()
    for entry in world.tables["bank.entries"]:
        if entry["outcome"] in ("paid", "returned"):
            sums[entry["bank"], entry["to_account"]] += entry["amount_fen"]
            sums[entry["bank"], entry["from_account"]] -= entry["amount_fen"]
            moved[entry["number"], entry["outcome"]] += 1
    stored = {(row["bank"], row["account"]): row["balance_fen"] for row in world.tables["bank.accounts"]}
    for key in sorted(stored.keys() | sums.keys()):
        if key[1] and stored.get(key, 0) != sums[key]:
            yield f"{key}: balance {stored.get(key, 0)}, entries {sums[key]}"
    for (number, outcome), times in moved.items():
        if times > 1 + (number in expected.strays):
            yield f"{number} was {outcome} {times} times"


def number_of(row: Row) -> str:
    """The number of an instruction as the bank knows it: letter, order, lesson, attempt."""
    return _number(row["kind"], row["order_id"], row["lesson_no"], row["attempt"])


def collect_number(order_id: UUID) -> str:
    """The number under which the bank is told to collect the fee of an order."""
    return _number("collect", order_id, 0, 0)


def _number(kind: str, order_id: UUID, lesson_no: int, attempt: int) -> str:
    letter = {"collect": "C", "payout": "P", "refund": "R", "return": "S"}[kind]
    return letter + _base36(order_id.int, 25) + _base36(lesson_no, 3) + _base36(attempt, 1)


def _base36(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
    return digits


def the_bank_did_what_escrow_has_booked(world: World, expected: Expected) -> Iterator[str]:
    """Instruction by instruction: number, amount and the bank's reference; nothing is open, nothing else was done.
    Money may be suspense only if it came for an order that was given up, or went astray."""
    returned = {entry["number"] for entry in world.tables["bank.entries"] if entry["outcome"] == "returned"}
    done = {
        entry["reference"]: entry
        for entry in world.tables["bank.entries"]
        if entry["outcome"] == "paid" and entry["number"] not in returned
    }
    suspense = {row["reference"]: row for row in world.tables["escrow.suspense"]}
    # What was gathered is one payment under the settlement's number.
    sums = {row["settlement_id"]: row for row in world.tables["escrow.settlements"]}
    together = {(row["order_id"], row["lesson_no"]): row["settlement_id"] for row in world.tables["escrow.gathered"]}
    gathered: Counter[UUID] = Counter()
    instructed: list[tuple[str, Any]] = [(row["number"], {"kind": "payout", **row}) for row in sums.values()]
    for row in world.tables["escrow.instructions"]:
        settlement_id = together.get((row["order_id"], row["lesson_no"])) if row["kind"] == "payout" else None
        if settlement_id is None:
            instructed.append((number_of(row), row))
            continue
        gathered[settlement_id] += row["amount_fen"]
        if (row["state"], row["reference"]) != (sums[settlement_id]["state"], sums[settlement_id]["reference"]):
            yield f"{number_of(row)} is {row['state']}, its settlement {sums[settlement_id]['state']}"
    for settlement_id, row in sums.items():
        if gathered[settlement_id] != row["amount_fen"]:
            yield f"{row['number']} is {row['amount_fen']} fen, its lessons {gathered[settlement_id]}"
    for number, row in instructed:
        entry = done.pop(row["reference"], None) if row["state"] == "paid" else None
        if entry is not None and entry["reference"] in suspense:  # an operator has found whose money it is
            money = suspense.pop(entry["reference"])
            if (money["state"], money["matched_order_id"], row["kind"]) != ("matched", row["order_id"], "collect"):
                yield f"{money['number']} is paid, and in suspense {money['state']}"
            number = money["number"]
        if row["state"] == "paid":
            if entry is None:
                yield f"{number} is paid in escrow and not paid at the bank"
            elif (entry["number"], entry["amount_fen"]) != (number, row["amount_fen"]):
                yield f"{number}: the bank paid {entry['amount_fen']} fen, escrow booked {row['amount_fen']}"
        if row["state"] not in ("paid", "waiting", "dropped") and (row["kind"], row["state"]) != ("collect", "refused"):
            yield f"{number} is still {row['state']}"
    for reference, entry in done.items():
        booked, number = suspense.pop(reference, None), entry["number"]
        if booked is None or booked["amount_fen"] != entry["amount_fen"]:
            yield f"{number} was paid by the bank and escrow does not know it"
        elif expected.orders.get(booked["order_id"]) != "ended" and number not in expected.strays:
            yield f"{number} is suspense: {booked['reason']}"
    for row in suspense.values():
        yield f"{row['number']} is suspense: {row['reason']}"


def the_bank_holds_what_the_ledger_says(world: World, expected: Expected) -> Iterator[str]:
    """Per account: what is in custody, with the money that is suspense, and what the institutions have received."""
    wanted: Counter[tuple[str, str]] = Counter()
    for row in world.tables["escrow.accounts"]:
        in_custody = row["held_fen"] + row["releasing_fen"] + row["refunding_fen"]
        wanted[row["bank"], row["supervised_account"]] += in_custody
        wanted[row["bank"], row["payout_account"]] += row["released_fen"]
    for row in world.tables["escrow.suspense"]:
        if row["state"] in ("open", "returning"):
            wanted[row["bank"], row["account"]] += row["amount_fen"]
    for row in world.tables["bank.accounts"]:
        key = (row["bank"], row["account"])
        if row["balance_fen"] != wanted[key]:
            yield f"{key}: {row['balance_fen']} fen, the ledger says {wanted[key]}"


def money_that_went_astray_stands_where_the_story_left_it(world: World, expected: Expected) -> Iterator[str]:
    """Booked under its number, and open until it went back, or has gone back."""
    states = {row["number"]: row["state"] for row in world.tables["escrow.suspense"]}
    for number, should in expected.strays.items():
        is_ = states.get(number, "not booked")
        if is_ not in (("open", "not booked") if should == "may have come" else (should,)):
            yield f"{number} is {is_}, should be {should}"


def each_lesson_is_released_at_most_once(world: World, expected: Expected) -> Iterator[str]:
    """In the ledger, at the bank, and in what was told; once more for each time the bank gave the money back."""
    again = {
        (str(row["order_id"]), row["lesson_no"]): len(row["returned"]) for row in world.tables["escrow.instructions"]
    }
    told = [
        (type_, data["order_id"], data["lesson_no"])
        for type_ in ("escrow.released.v1", "escrow.settled.v1")
        for data in world.events("escrow", type_)
    ]
    transfers = [
        ("transfer", str(row["order_id"]), row["lesson_no"])
        for row in world.tables["escrow.transfers"]
        if (row["kind"], row["phase"]) == ("release", 2)
    ]
    payouts = [
        ("payout", entry["number"], 0)
        for entry in world.tables["bank.entries"]
        if (entry["kind"], entry["outcome"]) == ("payout", "paid")
    ]
    for (what, order, lesson_no), times in Counter([*told, *transfers, *payouts]).items():
        if times > 1 + again.get((order, lesson_no), 0):
            yield f"{what} of {order} {lesson_no} {times} times"


def nothing_is_both_released_and_refunded(world: World, expected: Expected) -> Iterator[str]:
    """The payouts that are not dropped and the refund of an order are together no more than was paid."""
    sums: Counter[UUID] = Counter()
    for row in world.tables["escrow.instructions"]:
        if row["kind"] != "collect" and row["state"] != "dropped":
            sums[row["order_id"]] += row["amount_fen"]
    for row in world.tables["escrow.accounts"]:
        if sums[row["order_id"]] > row["paid_fen"]:
            yield f"{row['order_id']}: {sums[row['order_id']]} fen go out of {row['paid_fen']}"


# --- the road -----------------------------------------------------------------------------------------------------


def nothing_waits_in_an_outbox(world: World, expected: Expected) -> Iterator[str]:
    """All of it is marked as sent."""
    for service, rows in world.said.items():
        for row in rows:
            if not row["sent"]:
                yield f"{service} {row['seq']} {row['type']}"


def everything_said_stands_on_its_topic(world: World, expected: Expected) -> Iterator[str]:
    """Every outbox row, under its key, at least once; an answer that was said again is a row of its own."""
    published = Counter((record.id, record.topic, record.key) for record in world.records)
    for service, rows in world.said.items():
        said = Counter((row["id"], row["topic"], row["key"]) for row in rows)
        for (id_, topic, key), times in said.items():
            if published[id_, topic, key] < times:
                yield f"{service}: {id_} of {topic} said {times} times, published {published[id_, topic, key]} times"


def nothing_stands_on_a_topic_that_was_not_said(world: World, expected: Expected) -> Iterator[str]:
    """Only gateways write without an outbox, and only requests: what was rolled back was never published."""
    said = {row["id"] for rows in world.said.values() for row in rows}
    for record in world.records:
        if record.id not in said and TOPICS_BY_NAME[record.topic].kind != "requests":
            yield f"{record.topic}/{record.partition}@{record.offset} {record.type}"


def each_key_keeps_its_order(world: World, expected: Expected) -> Iterator[str]:
    """Per key and partition the records stand in the order of the outbox. What is there twice counts where it is first:
    a record that was published again after a crash, an answer that was asked for again."""
    first: dict[UUID, Record] = {}
    for record in world.records:
        first.setdefault(record.id, record)
    for service, rows in world.said.items():
        once = {row["id"]: row for row in reversed(rows)}
        last: dict[tuple[str, int, str], Record] = {}
        for row in sorted(once.values(), key=lambda row: int(row["seq"])):
            if row["id"] not in first:
                continue
            record = first[row["id"]]
            if row["partition"] not in (None, record.partition):
                yield f"{service} {row['seq']} {row['type']} is on partition {record.partition}"
            place = (record.topic, record.partition, record.key)
            if place in last and last[place].offset > record.offset:
                was = last[place]
                yield f"{service} {row['seq']} {row['type']} @{record.offset} stands before {was.type} @{was.offset}"
            last[place] = record


def each_key_has_one_partition(world: World, expected: Expected) -> Iterator[str]:
    """Of a topic, where no partition was asked for; without a key any will do."""
    chosen = {row["id"] for rows in world.said.values() for row in rows if row["partition"] is not None}
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for record in world.records:
        if record.key and record.id not in chosen:
            found[record.topic, record.key].add(record.partition)
    for place, partitions in found.items():
        if len(partitions) > 1:
            yield f"{place}: {sorted(partitions)}"


def everybody_has_heard_what_is_for_him(world: World, expected: Expected) -> Iterator[str]:
    """Requests and commands: their owner's inbox has all of them. Events: who has heard one of a type has heard all."""
    owners = {topic.name: topic.owner for topic in ALL_TOPICS if topic.kind in ("requests", "commands")}
    owners |= {topics.BANK_INSTRUCTIONS: "bank", topics.BANK_RESULTS: "escrow"}
    listeners = {
        (service, record.topic, record.type)
        for service, heard in world.heard.items()
        for record in world.records
        if record.id in heard and TOPICS_BY_NAME[record.topic].kind == "events"
    }
    for record in world.records:
        owner = owners.get(record.topic)
        asked = [owner] if owner else [s for s in PART_NAMES if (s, record.topic, record.type) in listeners]
        for service in asked:
            if record.id not in world.heard[service]:
                yield f"{service}: {record.topic}/{record.partition}@{record.offset} {record.type}"


def every_request_is_answered_in_one_way(world: World, expected: Expected) -> Iterator[str]:
    """Every request has an answer; whatever is answered, asked again or read again, has one answer and no other.
    That an id was used for something else is said beside it, and is not kept."""
    answers: dict[UUID, set[UUID]] = defaultdict(set)
    for rows in world.said.values():
        for row in rows:
            if is_answer(row):
                body = json.loads(row["body"])
                if body["data"].get("code") != "idempotency_conflict":
                    answers[UUID(body["causationid"])].add(row["id"])
    asked = {record.id for record in world.records if TOPICS_BY_NAME[record.topic].kind == "requests"}
    for message_id in asked | answers.keys():
        if len(answers[message_id]) != 1:
            yield f"{message_id} has {len(answers[message_id])} answers"


def nobody_lags(world: World, expected: Expected) -> Iterator[str]:
    """Every group is stable and has committed the end of all it reads."""
    yield from world.lag


def dead_letters_are_as_expected(world: World, expected: Expected) -> Iterator[str]:
    """Exactly so many, each counted once."""
    letters = {(record.topic, record.id) for record in world.records if record.topic.endswith(".dlq.v1")}
    counted = Counter(topic.removesuffix(".dlq.v1") for topic, _ in letters)
    if counted != Counter(expected.dead_letters):
        yield f"{dict(counted)}, expected {expected.dead_letters}"


def no_step_and_no_timer_is_late(world: World, expected: Expected) -> Iterator[str]:
    """Nothing waits past its deadline, and what waits has a deadline."""
    for service, rows in world.timers.items():
        for row in rows:
            if row["due_at"] < world.now - LATE:
                yield f"{service}: {row['type']} of {row['subject']} since {row['due_at']}"
    for row in world.tables["orders.purchases"]:
        if row["state"] not in ("enrolled", "ended") and (row["act_by"] is None or row["act_by"] < world.now - LATE):
            yield f"order {row['order_id']} is {row['state']} since {row['act_by']}"


def nobody_has_deadlocked(world: World, expected: Expected) -> Iterator[str]:
    """Rows are locked in one order everywhere, so no two copies ever wait for each other."""
    for service, times in world.deadlocks.items():
        if times:
            yield f"{service}: {times} deadlocks"


def nothing_is_said_twice(world: World, expected: Expected) -> Iterator[str]:
    """Each message has one row in the outbox; only answers are said again. So a timer that is due is one message."""
    for service, rows in world.said.items():
        said = Counter((row["id"], row["type"]) for row in rows if not is_answer(row))
        for (id_, type_), times in said.items():
            if times > 1:
                yield f"{service}: {type_} {id_} was said {times} times"


# --- the business -------------------------------------------------------------------------------------------------


def every_order_stands_where_the_story_left_it(world: World, expected: Expected) -> Iterator[str]:
    """All orders there are, and no other."""
    states = {row["order_id"]: row["state"] for row in world.tables["orders.purchases"]}
    for order_id in states.keys() | expected.orders.keys():
        is_, should = states.get(order_id, "missing"), expected.orders.get(order_id, "unknown to the story")
        if is_ != should:
            yield f"{order_id} is {is_}, should be {should}"


def every_lesson_stands_where_the_story_left_it(world: World, expected: Expected) -> Iterator[str]:
    """What the story does not name is planned."""
    states = {(row["order_id"], row["lesson_no"]): row["state"] for row in world.tables["orders.lessons"]}
    for key in states.keys() | expected.lessons.keys():
        is_, should = states.get(key, "missing"), expected.lessons.get(key, "planned")
        if is_ != should:
            yield f"{key} is {is_}, should be {should}"


def what_is_enrolled_is_paid_seated_and_planned(world: World, expected: Expected) -> Iterator[str]:
    """In escrow, catalog and complaints, each in its own words; and nothing but that."""
    enrolled = {row["order_id"]: row for row in world.tables["orders.purchases"] if row["state"] == "enrolled"}
    left = {row["order_id"] for row in world.tables["orders.refunds"] if row["state"] in ("paying", "paid")}
    accounts = world.tables["escrow.accounts"]
    paid = {row["order_id"]: row["paid_fen"] for row in accounts if row["state"] == "held" or row["order_id"] in left}
    taken = [row for row in world.tables["catalog.reservations"] if row["state"] == "taken"]
    seated = {row["order_id"]: row["course_id"] for row in taken}
    known = {row["order_id"]: row["account_id"] for row in world.tables["complaints.orders"]}
    planned = Counter(row["order_id"] for row in world.tables["orders.lessons"])
    for order_id in enrolled.keys() | paid.keys() | seated.keys() | known.keys() | planned.keys():
        row = enrolled.get(order_id)
        seat = row["course_id"] if row and order_id not in left else None  # who is refunded leaves the course
        should = (row["price_fen"], seat, row["account_id"], row["lessons"]) if row else "not enrolled"
        is_ = (paid.get(order_id), seated.get(order_id), known.get(order_id), planned[order_id])
        if is_ != should:
            yield f"{order_id}: paid, course, account, lessons are {is_}, should be {should}"


def lessons_agree_with_escrow(world: World, expected: Expected) -> Iterator[str]:
    """Paid out is paid by the bank; confirmed is on its way, or waits for a complaint; divided may be either, or have
    nothing for the institution; nothing else is in escrow."""
    payouts = {
        (row["order_id"], row["lesson_no"]): row["state"]
        for row in world.tables["escrow.instructions"]
        if row["kind"] == "payout" and row["lesson_no"]  # 0: what the institution keeps of a refund
    }
    may_be = {
        "paid_out": ("paid",),
        "confirmed": ("waiting", "sent"),
        "divided": ("none", "waiting", "sent", "paid"),
    }
    for row in world.tables["orders.lessons"]:
        payout = payouts.pop((row["order_id"], row["lesson_no"]), "none")
        if payout not in may_be.get(row["state"], ("none",)):
            yield f"{row['order_id']} lesson {row['lesson_no']} is {row['state']}, its payout {payout}"
    for key in payouts:
        yield f"{key} is paid out and no lesson"


def refunds_agree_with_escrow(world: World, expected: Expected) -> Iterator[str]:
    """What is decided is with the bank, what is paid was paid by it, to the fen; of anything else escrow knows nothing.
    Its lessons stand as it does."""
    known = {
        (row["order_id"], row["kind"]): (row["amount_fen"], row["state"])
        for row in world.tables["escrow.instructions"]
        if row["lesson_no"] == 0 and row["kind"] != "collect"
    }
    lessons = {(row["order_id"], row["lesson_no"]): row["state"] for row in world.tables["orders.lessons"]}
    begun = {"paying": ("sent", "refused"), "paid": ("paid",)}
    stands = {"asked": "refunding", "contested": "refunding", "paying": "refunding", "paid": "refunded"}
    for row in world.tables["orders.refunds"]:
        if row["state"] in begun:
            fen, state = known.pop((row["order_id"], "refund"), (0, "unknown"))
            if fen != row["fee_fen"] - row["deduction_fen"] or state not in begun[row["state"]]:
                yield f"{row['order_id']}: the refund is {row['state']}, in escrow {fen} fen {state}"
            kept, _ = known.pop((row["order_id"], "payout"), (0, ""))
            if kept != row["deduction_fen"]:
                yield f"{row['order_id']}: {kept} fen are kept, should be {row['deduction_fen']}"
        for number in json.loads(row["lessons"]) if row["state"] in stands else ():
            if lessons[row["order_id"], number] != stands[row["state"]]:
                yield f"{row['order_id']} lesson {number} of a refund that is {row['state']}"
    enrolled = {row["order_id"] for row in world.tables["orders.purchases"] if row["state"] == "enrolled"}
    for order_id, kind in known:
        if order_id in enrolled:
            yield f"{order_id}: escrow knows a {kind} that orders does not"


def every_winding_up_has_ended(world: World, expected: Expected) -> Iterator[str]:
    """All orders were looked at, and of none that was paid there is a lesson left."""
    gone = {row["institution_id"] for row in world.tables["orders.wind_ups"]}
    for row in world.tables["orders.wind_ups"]:
        if row["finished_at"] is None or row["done_orders"] != row["orders"]:
            yield f"{row['institution_id']}: {row['done_orders']} of {row['orders']}, ended {row['finished_at']}"
    orders = {row["order_id"] for row in world.tables["orders.purchases"] if row["institution_id"] in gone}
    for row in world.tables["orders.lessons"]:
        if row["order_id"] in orders and row["state"] not in ("paid_out", "refunded"):
            yield f"{row['order_id']} lesson {row['lesson_no']} is {row['state']}"


def decisions_agree_with_escrow(world: World, expected: Expected) -> Iterator[str]:
    """A divided lesson's objection is decided, and escrow pays each side its part; an open one is of a lesson that is
    objected to, and nothing of its fee moves."""
    lessons = {(row["order_id"], row["lesson_no"]): row for row in world.tables["orders.lessons"]}
    paid: dict[tuple[UUID, int], dict[str, int]] = defaultdict(dict)
    for row in world.tables["escrow.instructions"]:
        paid[row["order_id"], row["lesson_no"]][row["kind"]] = row["amount_fen"]
    state_of = {"release": ("confirmed", "paid_out"), "return": ("divided",), "split": ("divided",)}
    for row in world.tables["orders.objections"]:
        key = (row["order_id"], row["lesson_no"])
        lesson = lessons.pop(key)
        open_ = row["state"] in ("raised", "answered", "unanswered")
        may_be = ("objected",) if open_ else state_of.get(row["decision"], ("confirmed", "paid_out"))
        if lesson["state"] not in may_be:
            yield f"{key} is {lesson['state']}, its objection {row['state']} {row['decision']}"
        released = lesson["price_fen"] if row["state"] == "withdrawn" else row["release_fen"]
        parts = {} if open_ else {"payout": released, "refund": lesson["price_fen"] - released}
        should = {kind: fen for kind, fen in parts.items() if fen}
        if paid[key] != should:
            yield f"{key}: escrow pays {paid[key]}, decided was {should}"
    gone = {row["institution_id"] for row in world.tables["orders.wind_ups"]}
    of_gone = {row["order_id"] for row in world.tables["orders.purchases"] if row["institution_id"] in gone}
    for key, lesson in lessons.items():
        if lesson["state"] == "divided" and key[0] in of_gone:  # its order's one refund was for other lessons
            if paid[key] != {"refund": lesson["price_fen"]}:
                yield f"{key}: escrow pays {paid[key]}, and its institution is gone"
        elif lesson["state"] in ("objected", "divided") or lesson["confirmed_by"] == "authority":
            yield f"{key} is {lesson['state']}, and has no objection"


def seats_add_up(world: World, expected: Expected) -> Iterator[str]:
    """Reserved and taken are the reservations of the course."""
    held = Counter((row["course_id"], row["state"]) for row in world.tables["catalog.reservations"])
    for row in world.tables["catalog.courses"]:
        is_ = (row["reserved"], row["taken"])
        should = (held[row["course_id"], "reserved"], held[row["course_id"], "taken"])
        if is_ != should:
            yield f"{row['course_id']}: reserved, taken are {is_}, reservations {should}"


def every_complaint_holds_its_order(world: World, expected: Expected) -> Iterator[str]:
    """Filed once, told once, and its order's releases are suspended once for it, until it is closed."""
    filed = {row["filing_id"]: row["order_id"] for row in world.tables["complaints.filings"]}
    if filed != expected.complaints:
        yield f"filed are {filed}, should be {expected.complaints}"
    open_ = {filing_id: order_id for filing_id, order_id in filed.items() if filing_id not in expected.closed}
    holds = {row["complaint_id"]: row["order_id"] for row in world.tables["escrow.suspensions"] if not row["ended"]}
    if holds != open_:
        yield f"suspended for {holds}, open are {open_}"
    steps = Counter(row["filing_id"] for row in world.tables["complaints.steps"])
    told = Counter(UUID(data["filing_id"]) for data in world.events("complaints", "complaints.filing.moved.v1"))
    if steps != told:
        yield f"steps {dict(steps)}, told {dict(told)}"


# --- SMS ----------------------------------------------------------------------------------------------------------


def every_sms_went_out_once(world: World, expected: Expected) -> Iterator[str]:
    """A line in the file for each that was sent and none for the others; nothing due is left; nobody is told twice."""
    lines = Counter(UUID(line["sms_id"]) for line in world.sms)
    known = {row["id"]: row for row in world.tables["notify.sms"]}
    for sms_id in lines.keys() - known.keys():
        yield f"{sms_id} was sent and is unknown"
    for sms_id, row in known.items():
        if lines[sms_id] != (row["state"] == "sent"):
            yield f"{row['purpose']} {row['subject']} is {row['state']} and was sent {lines[sms_id]} times"
        if row["state"] in ("failed", "unknown", "sending"):
            yield f"{row['purpose']} {row['subject']} is {row['state']}"
        if row["state"] == "queued" and row["not_before"] <= world.now:
            yield f"{row['purpose']} {row['subject']} is due and queued"
    sent = [known[sms_id] for sms_id in lines.elements() if sms_id in known]
    wishes = Counter((row["recipient"], row["purpose"], row["subject"]) for row in sent)
    for wish, times in wishes.items():
        if times > 1:
            yield f"{wish} was told {times} times"


def everybody_is_told_what_happened(world: World, expected: Expected) -> Iterator[str]:
    """One SMS, sent or waiting for the morning, for each contract, lesson filed, still waiting or confirmed by silence,
    payout, refund, step of a complaint. A fee that came back is paid out once more, and nobody is told of that twice;
    its institution is told each time that it came back, of gathered ones by their sum.
    """
    moved = world.events("complaints", "complaints.filing.moved.v1")
    waiting = world.events("orders", "orders.lesson.waiting.v1")
    confirmed = world.events("orders", "orders.lesson.confirmed.v1")
    settled = world.events("escrow", "escrow.settled.v1")
    returned = world.events("escrow", "escrow.payout_returned.v1")
    delayed = world.events("escrow", "escrow.settlement_delayed.v1")
    refunds = world.events("orders", "orders.refund.moved.v1")
    happened = {
        "contract.waiting": world.events("orders", "orders.contract.drawn.v1"),
        "lesson.waiting": world.events("orders", "orders.lesson.applied.v1"),
        "lesson.waiting.third": [data for data in waiting if data["reminder"] == "third_day"],
        "lesson.waiting.last": [data for data in waiting if data["reminder"] == "last_day"],
        "lesson.auto_confirmed": [data for data in confirmed if data["by"] == "silence"],
        "lesson.settled": _first_of_each([one for one in settled if one["lesson_no"]]),
        "refund.moved": _first_of_each([one for one in refunds if not one["overdue"] and one["state"] != "paid"]),
        "order.refunded": _first_of_each(world.events("escrow", "escrow.refunded.v1")),
        "payout.returned": [data for data in returned if data["settlement_id"] is None],
        "settlement.returned": [data for data in delayed if data["outcome"] == "returned"],
        "complaint.moved": [data for data in moved if not data["overdue"]],
        "complaint.overdue": [data for data in moved if data["overdue"]],
    }
    rows = Counter((row["purpose"], row["recipient"]) for row in world.tables["notify.sms"])
    to = {"payout.returned": "institution_id", "settlement.returned": "institution_id"}
    wanted = Counter(
        (purpose, data[to.get(purpose, "account_id")]) for purpose, some in happened.items() for data in some
    )
    for key in wanted.keys() | {key for key in rows if key[0] in happened}:
        if rows[key] != wanted[key]:
            yield f"{key}: {rows[key]} SMS, {wanted[key]} events"


def _first_of_each(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One event for each order or lesson, or state of a refund."""
    by = ("order_id", "lesson_no", "refund_id", "state")
    return list({tuple(map(data.get, by)): data for data in events}.values())


CHECKS: Final[dict[str, tuple[Finder, ...]]] = {
    "I1": (the_books_prove,),
    "I2": (each_lesson_is_released_at_most_once, nothing_is_both_released_and_refunded),
    "I3": (every_order_is_balanced,),
    "I4": (
        the_banks_own_book_adds_up,
        the_bank_did_what_escrow_has_booked,
        the_bank_holds_what_the_ledger_says,
        money_that_went_astray_stands_where_the_story_left_it,
    ),
    "I5": (
        no_step_and_no_timer_is_late,
        nobody_has_deadlocked,
        every_order_stands_where_the_story_left_it,
        every_lesson_stands_where_the_story_left_it,
        what_is_enrolled_is_paid_seated_and_planned,
        lessons_agree_with_escrow,
        refunds_agree_with_escrow,
        every_winding_up_has_ended,
        decisions_agree_with_escrow,
        seats_add_up,
        every_complaint_holds_its_order,
    ),
    "I6": (
        nothing_waits_in_an_outbox,
        nothing_is_said_twice,
        everything_said_stands_on_its_topic,
        nothing_stands_on_a_topic_that_was_not_said,
        each_key_keeps_its_order,
        each_key_has_one_partition,
    ),
    "I7": (everybody_has_heard_what_is_for_him,),
    "I8": (nobody_lags, dead_letters_are_as_expected),
    "I9": (every_request_is_answered_in_one_way,),
    "I11": (every_sms_went_out_once, everybody_is_told_what_happened),
}
"""By the invariant they prove; I10, that reading everything again changes nothing, is `replay.py`."""


async def violations(stack: Stack, expected: Expected) -> dict[str, dict[str, list[str]]]:
    """The places where each check is broken, by invariant and the check's name; call it when the stack is quiet."""
    world = await look(stack)
    return {
        invariant: {finder.__name__.replace("_", " "): list(finder(world, expected)) for finder in finders}
        for invariant, finders in CHECKS.items()
    }


async def check(stack: Stack, expected: Expected | None = None) -> list[str]:
    """Every violation, `MOST_SHOWN` of each kind; call it when the stack is quiet."""
    found: list[str] = []
    for checks in (await violations(stack, expected or Expected())).values():
        for name, places in checks.items():
            found += [f"{name}: {place}" for place in places[:MOST_SHOWN]]
            if len(places) > MOST_SHOWN:
                found.append(f"{name}: {len(places) - MOST_SHOWN} more")
    return found
