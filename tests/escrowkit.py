"""escrow on the real servers as its tests see it: tell it something, and look at what it has said and written."""

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord

from services.escrow import audit
from shared.actors import Actor
from shared.contracts import topics
from shared.contracts.bank import Instruct, Result
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import CONTRACTS, Data, Problem
from shared.contracts.escrow import (
    AccountView,
    CollectPayment,
    Held,
    RefundOrder,
    ReleaseLesson,
    ResumeReleases,
    ShowAccount,
    SuspendReleases,
)
from shared.ids import new_id
from shared.service import Service
from tests.harness import Harness

PRICE_FEN = 100_001
LESSONS = 10
LESSON_FEN = PRICE_FEN // LESSONS
OPERATOR = Actor("op-1", "operator")
D = TypeVar("D", bound=Data)


def result(instruct: Instruct, **changes: Any) -> Result:
    """What a bank says of an instruction: that it is paid, if nothing else is said."""
    values: dict[str, Any] = {
        "order_id": instruct.order_id,
        "number": instruct.number,
        "kind": instruct.kind,
        "outcome": "paid",
        "amount_fen": instruct.amount_fen,
        "bank": instruct.bank,
        "reference": f"ref-{instruct.number}",
        "happened_at": "2026-11-23T12:00:00+08:00",
    }
    return Result.model_validate(values | changes)


def only(contract: type[D], said: list[Data]) -> D:
    """The one thing of a kind that was said."""
    found = [one for one in said if isinstance(one, contract)]
    assert len(found) == 1, said
    return found[0]


def codes(said: list[Data]) -> list[str]:
    """The refusals among what was said."""
    return [one.code for one in said if isinstance(one, Problem)]


class Escrow:
    """The service, running, and what tests do with it."""

    def __init__(self, harness: Harness, service: Service) -> None:
        self.harness = harness
        self.service = service
        self.offset = 0

    # --- telling it something -----------------------------------------------------------------------------------------

    async def tell(self, data: Data) -> list[Data]:
        """Publishes `data` and waits until it is handled; what escrow said because of it."""
        message_id = await self.harness.publish(data, replyto=self.harness.client.replies_topic)
        await self.harness.until(lambda: self.handled([message_id]))
        return await self.said([message_id])

    async def at_once(self, *batch: Data) -> list[Data]:
        """Hands `batch` to the service as one poll, which is one transaction; what escrow said because of it."""
        ids = [new_id() for _ in batch]
        await self.service.consumer.handle([self._record(*one) for one in zip(batch, ids, strict=True)])
        assert await self.handled(ids)
        return await self.said(ids)

    def _record(self, data: Data, message_id: UUID) -> "ConsumerRecord[Any, Any]":
        self.offset += 1
        topic = self.harness.client_settings.namespace + data.TOPIC
        value = self.harness.body(data, message_id, replyto=self.harness.client.replies_topic)
        return ConsumerRecord(topic, 0, self.offset, 0, 0, b"", value, None, 0, len(value), ())

    async def handled(self, ids: list[UUID]) -> bool:
        """Whether all these messages have been committed."""
        rows = await self.harness.rows("escrow", "SELECT FROM inbox WHERE message_id = ANY($1)", ids)
        return len(rows) == len(ids)

    async def said(self, ids: list[UUID]) -> list[Data]:
        """What stands in the outbox because of these messages, in its order."""
        rows = await self.harness.rows("escrow", _SAID, ids)
        return [CONTRACTS[row["type"]].model_validate(json.loads(row["body"])["data"]) for row in rows]

    # --- orders -------------------------------------------------------------------------------------------------------

    def collection(self, **changes: Any) -> CollectPayment:
        """A purchase to be paid within a quarter of an hour."""
        values: dict[str, Any] = {
            "order_id": new_id(),
            "account_id": new_id(),
            "institution_id": new_id(),
            "account": BankAccount(bank="icbc", supervised_account="S-1", payout_account="P-1"),
            "amount_fen": PRICE_FEN,
            "lessons": LESSONS,
            "method": "alipay",
            "pay_by": self.harness.now() + timedelta(minutes=15),
        }
        return CollectPayment(**(values | changes))

    async def asked(self, **changes: Any) -> tuple[CollectPayment, Instruct]:
        """A purchase that waits for its money, and what the bank was told."""
        ask = self.collection(**changes)
        return ask, only(Instruct, await self.at_once(ask))

    async def held(self, **changes: Any) -> CollectPayment:
        """An order whose fee is in the supervised account."""
        ask, instruct = await self.asked(**changes)
        assert only(Held, await self.at_once(result(instruct))).order_id == ask.order_id
        return ask

    async def payout(self, ask: CollectPayment, lesson_no: int = 1) -> Instruct:
        """What the bank is told when a lesson is released."""
        return only(Instruct, await self.at_once(ReleaseLesson(order_id=ask.order_id, lesson_no=lesson_no)))

    async def refund(self, ask: CollectPayment) -> Instruct:
        """What the bank is told when the rest of an order goes back."""
        return only(Instruct, await self.at_once(RefundOrder(order_id=ask.order_id, reason="parent_asked")))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def view(self, ask: CollectPayment) -> AccountView:
        """The order's account as an operator sees it."""
        view = await self.harness.ask(ShowAccount(order_id=ask.order_id), OPERATOR)
        assert isinstance(view, AccountView)
        return view

    async def money(self, ask: CollectPayment) -> dict[str, Any]:
        """State and balances of an order, those that are not zero."""
        (row,) = await self.harness.rows("escrow", _MONEY, ask.order_id)
        return {name: value for name, value in row.items() if value}

    async def instructions(self, ask: CollectPayment) -> dict[tuple[str, int], str]:
        """The state of each instruction of an order."""
        rows = await self.harness.rows("escrow", "SELECT * FROM instructions WHERE order_id = $1", ask.order_id)
        return {(row["kind"], row["lesson_no"]): row["state"] for row in rows}

    async def verdicts(self, number: str) -> list[str]:
        """What became of each result for a number, in the order of coming."""
        sql = "SELECT verdict FROM bank_results WHERE number = $1 ORDER BY received_at, id"
        return [row["verdict"] for row in await self.harness.rows("escrow", sql, number)]

    async def opened_at(self, ask: CollectPayment) -> datetime:
        """When an order's account was opened."""
        (row,) = await self.harness.rows("escrow", "SELECT * FROM accounts WHERE order_id = $1", ask.order_id)
        opened_at: datetime = row["opened_at"]
        return opened_at

    async def timers(self, ask: CollectPayment) -> dict[str, Any]:
        """When each timer of an order is due."""
        rows = await self.harness.rows("escrow", "SELECT * FROM timers WHERE key = $1", str(ask.order_id))
        return {row["type"]: row["due_at"] for row in rows}

    async def tables(self) -> dict[str, list[str]]:
        """Every row of every table, when nothing is due and nothing on its way."""

        async def calm() -> bool:
            (row,) = await self.harness.rows("escrow", _ON_ITS_WAY)
            return bool(row["count"] == 0)

        await self.harness.until(calm)
        return await self.harness.content("escrow")


_SAID = "SELECT type, body FROM outbox WHERE correlationid = ANY($1) ORDER BY seq"
_MONEY = """SELECT state, paid_fen, held_fen, releasing_fen, released_fen, refunding_fen, refunded_fen
            FROM accounts WHERE order_id = $1"""
_ON_ITS_WAY = f"""
SELECT (SELECT count(*) FROM timers WHERE due_at <= yike_now()) +
       (SELECT count(*) FROM outbox o WHERE topic = '{topics.commands("escrow")}'
          AND NOT EXISTS (SELECT FROM inbox WHERE message_id = o.id)) AS count"""


@asynccontextmanager
async def running(harness: Harness) -> AsyncIterator[Escrow]:
    """The service, running; when it ends, its books must be right."""
    async with harness.service("escrow") as service:
        yield Escrow(harness, service)
        assert (await audit.check(harness.dsns["escrow"])).violations == {}


@dataclasses.dataclass
class Complaint:
    """A complaint about an order."""

    ask: CollectPayment
    complaint_id: UUID = dataclasses.field(default_factory=new_id)

    @property
    def suspend(self) -> SuspendReleases:
        return SuspendReleases(order_id=self.ask.order_id, complaint_id=self.complaint_id)

    @property
    def resume(self) -> ResumeReleases:
        return ResumeReleases(order_id=self.ask.order_id, complaint_id=self.complaint_id)


@pytest.fixture(scope="module")
async def escrow(harness: Harness) -> AsyncIterator[Escrow]:
    """The service, running."""
    async with running(harness) as escrow:
        yield escrow


@pytest.fixture
async def books_are_right(escrow: Escrow) -> AsyncIterator[None]:
    """Proves the books after each test, not only in the end."""
    yield
    report = await audit.check(escrow.harness.dsns["escrow"])
    assert report.good, report.violations
