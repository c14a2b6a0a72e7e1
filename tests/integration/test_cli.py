"""The `yike` command line and the stack it works on: the real processes, on databases and topics of their own."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from ops.cli import COMMANDS, build, main
from ops.cli.base import CommandError, yuan
from ops.cli.timeline import Said, in_order, what, without_asking
from ops.cli.when import moment, span
from ops.provision import drop_databases
from ops.scenario import Bought, Scenario
from ops.stack.errors import StackError
from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES, Site, Stack, process_specs, topics_of
from shared.actors import verify_token
from shared.clock import get_offset, machine_now
from shared.contracts.catalog import InstitutionView, LookUpInstitution, ShowCourse
from shared.contracts.topics import ALL_TOPICS
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging.rpc import GatewayClient
from shared.working_days import horizon_alarm, shanghai

WAIT_S = 40.0
NOW = datetime(2026, 3, 7, 4, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Outcome:
    """What one command did: its exit status, what it printed, and its JSON."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)


class Yike:
    """Calls commands as a shell would, on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, *words: object, as_json: bool = True) -> Outcome:
        arguments = [str(word) for word in words] + ["--home", str(self.folder)] + ["--json"] * as_json
        return await asyncio.to_thread(self._run, arguments)

    @staticmethod
    def _run(arguments: list[str]) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
        return Outcome(status, out.getvalue(), err.getvalue())


async def until(condition: Callable[[], Any], what_: str) -> Any:
    """Waits until the awaitable that `condition` makes is truthy; returns it."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not (found := await condition()):
                await asyncio.sleep(0.1)
            return found
    except TimeoutError:
        pytest.fail(f"after {WAIT_S:.0f} s still not: {what_}")


@contextlib.asynccontextmanager
async def connected(dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """All processes, apart from whatever else is on the servers."""
    name = f"cli{uuid4().hex[:8]}"
    running = await Stack.start(
        tmp_path_factory.mktemp("cli"),
        servers=servers,
        namespace=f"{name}.",
        suffix=f"_{name}",
        extra_env={"*": {"YIKE_SESSION_TIMEOUT_MS": "6000"}},
    )
    try:
        yield running
    finally:
        await running.remove()


@pytest.fixture(scope="module")
async def client(stack: Stack) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(stack.client_settings, "test") as made:
        yield made


@pytest.fixture(scope="module")
async def scenario(stack: Stack, client: GatewayClient) -> Scenario:
    made = Scenario(client, stack.keys, stack.sms_file, seed=7)
    made.clock_offset = await get_offset(stack.admin_dsn)
    return made


@pytest.fixture(scope="module")
async def bought(scenario: Scenario) -> Bought:
    institution = await scenario.open_institution("常州命令行体育")
    course = await scenario.publish_course(institution, "少儿篮球")
    return await scenario.buy(await scenario.new_guardian(), institution, course)


@pytest.fixture(autouse=True)
def no_given_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests name their stack; one named by the environment would win."""
    for name in ("YIKE_KAFKA", "YIKE_POSTGRES", "YIKE_KEYS", "YIKE_HOME", "YIKE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def yike(stack: Stack) -> Yike:
    return Yike(stack.folder)


class TestCalls:
    def test_every_command_explains_itself(self) -> None:
        for name in (name for group in COMMANDS.values() for name in group):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert main([name, "--help"]) == 0
            assert "Usage: yike" in out.getvalue()
            app = build()[name]
            assert app.help

    async def test_without_a_stack_the_ways_to_one_are_named(self, tmp_path: Path) -> None:
        outcome = await Yike(tmp_path / "nothing")("status")
        assert outcome.status == 3
        assert outcome.out == ""
        assert "yike up" in outcome.error["hint"]
        assert "YIKE_POSTGRES" in outcome.error["hint"]

    async def test_a_wrong_call_is_told_apart_from_a_failure(self, tmp_path: Path) -> None:
        yike = Yike(tmp_path)
        for words in (["statsu"], ["dlq", "replay", "nonsense"], ["dlq", "replay"], ["token", "guardian", "me"]):
            assert (await yike(*words)).status == 2

    async def test_a_person_gets_words_and_a_program_json(self, tmp_path: Path) -> None:
        outcome = await Yike(tmp_path)("down", as_json=False)
        assert (outcome.status, outcome.out.split()[:2]) == (0, ["Nothing", "ran"])
        assert (await Yike(tmp_path)("down")).data["stopped_servers"] is False

    async def test_only_the_folder_of_a_stack_is_deleted(self, tmp_path: Path) -> None:
        (tmp_path / "letters").mkdir()
        assert (await Yike(tmp_path)("down", "--delete", "--yes")).status == 1
        assert (tmp_path / "letters").exists()


class TestTopics:
    async def test_all_topics_are_listed_with_what_kafka_has(self, yike: Yike, stack: Stack) -> None:
        outcome = await yike("topics", "list")
        assert outcome.status == 0
        assert [one["name"] for one in outcome.data] == [topic.name for topic in topics_of(stack.client_settings)]
        assert all(one["partitions"] == one["partitions_found"] for one in outcome.data)

    async def test_a_lost_topic_is_noticed_and_made_again(self, yike: Yike, stack: Stack) -> None:
        lost = stack.site.namespace + "gateway.mobile.replies.v1"
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
        await admin.start()
        try:
            await admin.delete_topics([lost])
        finally:
            await admin.close()

        async def missing() -> bool:
            return (await yike("topics", "list")).status == 1

        await until(missing, "the topic is gone")
        ensured = await yike("topics", "ensure")
        assert (ensured.status, ensured.data["created"]) == (0, [lost])
        assert len(ensured.data["present"]) == len(ALL_TOPICS) - 1
        assert (await yike("topics", "list")).status == 0


class TestStatus:
    async def test_every_road_is_told_and_nothing_stays_behind(self, yike: Yike, bought: Bought) -> None:
        async def settled() -> Any:
            data = (await yike("status")).data
            behind = [lag for lag in data["lag"] if lag["records"]] + [one for one in data["roads"] if one["unsent"]]
            return None if behind else data

        data = await until(settled, "everything is published and read")
        roads = {road["service"]: road for road in data["roads"]}
        assert tuple(roads) == PART_NAMES
        assert roads["escrow"]["inbox"] > 0
        assert [lag["group"].rpartition(".yike-")[2] for lag in data["lag"]] == list(PART_NAMES)
        assert data["alarms"] == [alarm for alarm in [horizon_alarm(shanghai(machine_now()).date())] if alarm]

    async def test_a_service_that_is_away_falls_behind(
        self, yike: Yike, stack: Stack, client: GatewayClient, bought: Bought
    ) -> None:
        async def lag_of_catalog() -> int:
            lags = (await yike("status")).data["lag"]
            return int(next(lag["records"] for lag in lags if lag["group"].endswith("yike-catalog")))

        await stack.halt("catalog")
        asked = asyncio.create_task(client.ask(ShowCourse(course_id=bought.course.course_id), timeout_s=WAIT_S))
        await until(lag_of_catalog, "a request waits for catalog")
        await stack.resume("catalog")
        await asked
        assert await lag_of_catalog() == 0


class TestTimeline:
    async def test_it_tells_a_purchase_from_the_request_to_the_seat(self, yike: Yike, bought: Bought) -> None:
        outcome = await yike("timeline", bought.order_id)
        assert outcome.status == 0
        said = outcome.data
        types = [one["type"] for one in said]
        assert (types[0], said[0]["service"], said[0]["ms"]) == ("orders.purchase.place.v1", "gateway test", 0)
        story = [
            "catalog.seat.reserve.v1",
            "catalog.seat.reserved.v1",
            "orders.contract.sign.v1",
            "orders.purchase.pay.v1",
            "escrow.payment.collect.v1",
            "bank.instruct.v1",
            "bank.result.v1",
            "escrow.held.v1",
            "catalog.seat.taken.v1",
            "orders.purchase.enrolled.v1",
        ]
        places = [types.index(type_) for type_ in story]
        assert places == sorted(places)
        assert {one["service"] for one in said} == {"gateway test", "orders", "catalog", "escrow", "bank"}

    async def test_no_effect_comes_before_its_cause(self, yike: Yike, bought: Bought) -> None:
        said = (await yike("timeline", bought.order_id)).data
        assert [one["ms"] for one in said] == sorted(one["ms"] for one in said)
        place = {one["id"]: number for number, one in enumerate(said)}
        for number, one in enumerate(said):
            assert place.get(one["causation_id"], -1) < number

    async def test_no_token_and_nothing_sealed_is_shown(self, yike: Yike, bought: Bought) -> None:
        shown = (await yike("timeline", bought.order_id)).out + (
            await yike("timeline", bought.order_id, as_json=False)
        ).out
        assert bought.guardian.token not in shown
        assert bought.guardian.phone not in shown

    async def test_an_unknown_order_is_said_to_be_unknown(self, yike: Yike) -> None:
        assert (await yike("timeline", uuid4())).status == 4


class TestLedger:
    async def test_right_books_are_proved(self, yike: Yike, bought: Bought) -> None:
        outcome = await yike("ledger", "check")
        assert (outcome.status, outcome.data["violations"]) == (0, {})
        assert outcome.data["custody_fen"] >= bought.course.price_fen

    async def test_a_missing_transfer_is_found(self, yike: Yike, stack: Stack, bought: Bought) -> None:
        async with connected(stack.dsn("escrow")) as connection:
            await connection.execute("CREATE TABLE aside AS SELECT * FROM transfers")
            await connection.execute("DELETE FROM transfers WHERE order_id = $1", bought.order_id)
            try:
                outcome = await yike("ledger", "check")
                words = await yike("ledger", "check", as_json=False)
            finally:
                await connection.execute("INSERT INTO transfers SELECT * FROM aside ON CONFLICT DO NOTHING")
                await connection.execute("DROP TABLE aside")
        assert outcome.status == words.status == 1
        assert str(bought.order_id) in outcome.data["violations"]["stored balances = sum of transfers"]
        assert str(bought.order_id) in words.out

    async def test_one_orders_books_are_shown(self, yike: Yike, bought: Bought) -> None:
        data = (await yike("ledger", "show", bought.order_id)).data
        assert data["account"]["held_fen"] == bought.course.price_fen
        assert [transfer["amount_fen"] for transfer in data["transfers"]] == [bought.course.price_fen]
        assert (await yike("ledger", "show", bought.order_id, as_json=False)).out.count(
            yuan(bought.course.price_fen)
        ) > 2
        assert (await yike("ledger", "show", uuid4())).status == 4


class TestReconciliation:
    async def written(self, yike: Yike, stack: Stack, folder: Path, form: str) -> tuple[str, Path]:
        """Today's statement of the stand-in bank, in a file."""
        day = shanghai(machine_now() + await get_offset(stack.admin_dsn)).date().isoformat()
        path = folder / f"{day}.{form}"
        outcome = await yike("bank", "statement", day, "--form", form, "--out", path)
        assert outcome.status == 0
        assert outcome.data["lines"] > 0
        return day, path

    @pytest.mark.parametrize("form", ["csv", "camt053"])
    async def test_a_day_without_breaks_says_so_and_so_does_a_rerun(
        self, yike: Yike, stack: Stack, bought: Bought, tmp_path: Path, form: str
    ) -> None:
        day, path = await self.written(yike, stack, tmp_path, form)
        outcome = await yike("reconcile", day, "--file", path)
        assert (outcome.status, outcome.data["no_breaks"], outcome.data["shown"]) == (0, True, [])
        assert outcome.data["closing_fen"] == outcome.data["ours_fen"] >= bought.course.price_fen
        again = await yike("reconcile", day, "--file", path)
        assert (again.status, again.data) == (0, outcome.data)
        words = await yike("reconcile", day, "--file", path, as_json=False)
        assert (words.status, "No breaks" in words.out) == (0, True)

    async def test_a_break_is_shown_said_why_and_agreed_to_by_somebody_else(
        self, yike: Yike, stack: Stack, bought: Bought, tmp_path: Path
    ) -> None:
        day, path = await self.written(yike, stack, tmp_path, "csv")
        lines = path.read_text().splitlines()
        fee = f"{day} 12:00:00,,fee-1,借,1.50,,已记账,0.00"
        path.write_text("\n".join([*lines[:-1], fee, lines[-1]]))
        outcome = await yike("reconcile", day, "--file", path)
        assert (outcome.status, outcome.data["breaks"]) == (1, {"balance": 1, "missing_here": 1})
        words = await yike("reconcile", day, "--file", path, as_json=False)
        assert words.status == 1
        assert "fee-1" in words.out
        listed = await yike("breaks", "list", "--day", day)
        assert (listed.status, len(listed.data["breaks"])) == (1, 2)
        assert "missing_here" in (await yike("breaks", "list", as_json=False)).out

        li, wang = [(await yike("token", "operator", name)).data["token"] for name in ("li", "wang")]
        for one in listed.data["breaks"]:
            said = await yike("breaks", "propose", one["break_id"], "--reason", "手续费", "--token", li)
            assert (said.status, said.data["state"]) == (0, "proposed")
            alone = await yike("breaks", "resolve", one["break_id"], "--token", li)
            assert alone.status == 1
            assert "break_second_person" in alone.error["error"]
            done = await yike("breaks", "resolve", one["break_id"], "--token", wang)
            assert (done.status, done.data["resolved_by"]) == (0, "wang")
        assert (await yike("breaks", "list", "--day", day)).status == 0
        outcome = await yike("reconcile", day, "--file", path)
        assert (outcome.status, outcome.data["no_breaks"], outcome.data["resolved"]) == (0, True, 2)
        assert (await yike("breaks", "resolve", uuid4(), "--token", wang)).status == 4

    async def test_a_bad_file_is_told_with_its_place_and_changes_nothing(
        self, yike: Yike, stack: Stack, bought: Bought, tmp_path: Path
    ) -> None:
        day, path = await self.written(yike, stack, tmp_path, "csv")
        path.write_text(path.read_text().replace(",贷,", ",来,"))
        outcome = await yike("reconcile", day, "--file", path)
        assert outcome.status == 2
        assert "line 3, column direction: '来'" in outcome.error["error"]
        assert (await yike("reconcile", day, "--file", tmp_path / "none")).status == 2
        assert (await yike("reconcile", "yesterday", "--file", path)).status == 2
        assert (await yike("bank", "statement", day)).status == 2


class TestDeadLetters:
    async def park(self, client: GatewayClient, yike: Yike, body: bytes | None = None) -> dict[str, Any]:
        """Sends catalog what it cannot handle; returns the letter."""
        before = {one["letter_id"] for one in (await yike("dlq", "list")).data}
        message_id = str(new_id())
        envelope = {"specversion": "1.0", "id": message_id, "source": "/test", "type": "catalog.nobody.v1", "data": {}}
        known = envelope | {"time": NOW.isoformat(), "correlationid": message_id, "actortoken": "secret"}
        headers = [("colour", b"green")]
        await client.send_raw("catalog.requests.v1", "k", json.dumps(known).encode() if body is None else body, headers)

        async def new() -> list[dict[str, Any]]:
            return [one for one in (await yike("dlq", "list")).data if one["letter_id"] not in before]

        letter: dict[str, Any] = (await until(new, "the message is parked"))[0]
        return letter

    async def test_a_letter_tells_where_it_came_from_and_keeps_secrets(self, yike: Yike, client: GatewayClient) -> None:
        letter = await self.park(client, yike)
        assert (letter["reason"], letter["consumer"], letter["type"]) == (
            "type_unknown",
            "catalog",
            "catalog.nobody.v1",
        )
        shown = (await yike("dlq", "show", letter["letter_id"])).data
        assert ["colour", "green"] in shown["headers"]
        assert shown["topic"].endswith("catalog.requests.v1")
        assert "secret" not in shown["body"]
        assert (await yike("dlq", "show", uuid4())).status == 4

    async def test_what_fails_once_more_is_a_new_letter_and_the_old_one_is_closed(
        self, yike: Yike, client: GatewayClient
    ) -> None:
        letter = await self.park(client, yike)
        outcome = await yike("dlq", "replay", letter["letter_id"])
        assert (outcome.status, outcome.data["replayed"]) == (0, [letter["letter_id"]])

        async def again() -> list[dict[str, Any]]:
            read = (await yike("dlq", "list", "--closed", "--consumer", "catalog")).data
            old = next(one for one in read if one["letter_id"] == letter["letter_id"])
            return [one for one in read if one["offset"] > letter["offset"] and not old["open"]]

        second = (await until(again, "it is parked again"))[0]
        assert (second["partition"], second["open"]) == (letter["partition"], True)
        assert ["colour", "green"] in second["headers"]
        assert ["yike-replay", letter["letter_id"]] in second["headers"]
        # The old letter has had its effect.
        refused = await yike("dlq", "replay", letter["letter_id"])
        assert (refused.status, refused.data["replayed"]) == (1, [])

    async def test_a_mended_fault_is_replayed_and_has_its_effect_once(
        self, yike: Yike, stack: Stack, client: GatewayClient, scenario: Scenario
    ) -> None:
        institution = await scenario.open_institution("修好之前的机构")
        request = LookUpInstitution(query=institution.uscc)
        async with connected(stack.dsn("catalog")) as connection:
            await connection.execute("ALTER TABLE institutions RENAME TO away")
            try:
                assert await scenario.refusal(request) == "internal_error"
            finally:
                await connection.execute("ALTER TABLE away RENAME TO institutions")

        async def parked() -> list[dict[str, Any]]:
            read = (await yike("dlq", "list", "--reason", "handler_failed")).data
            return [one for one in read if one["type"] == LookUpInstitution.TYPE]

        letter = (await until(parked, "the request is parked"))[0]
        assert (await yike("dlq", "replay", letter["letter_id"])).status == 0

        async def none_open() -> bool:
            return not await parked()

        await until(none_open, "the replay was handled")
        assert isinstance(await client.ask(request), InstitutionView)

    async def test_many_are_sent_only_when_somebody_says_yes(self, yike: Yike, client: GatewayClient) -> None:
        letters = {(await self.park(client, yike))["letter_id"] for _ in range(2)}
        asked = await yike("dlq", "replay", "--all", "--reason", "type_unknown")
        assert (asked.status, asked.out) == (2, "")
        assert "--yes" in asked.error["hint"]
        dry = await yike("dlq", "replay", "--all", "--reason", "type_unknown", "--dry-run")
        assert dry.status == 0
        assert letters <= set(dry.data["replayed"])
        still = {one["letter_id"] for one in (await yike("dlq", "list")).data}
        assert letters <= still

    async def test_what_can_never_be_read_is_discarded(self, yike: Yike, client: GatewayClient) -> None:
        letter = await self.park(client, yike, b"{not json")
        assert letter["reason"] == "bad_json"
        replayed = await yike("dlq", "replay", letter["letter_id"])
        assert replayed.status == 0

        async def again() -> list[dict[str, Any]]:
            return list((await yike("dlq", "list", "--reason", "bad_json")).data)

        second = (await until(again, "it is parked again"))[0]
        assert second["letter_id"] != letter["letter_id"]
        assert (await yike("dlq", "discard", second["letter_id"], "--yes")).status == 0
        assert await again() == []


class TestOutbox:
    async def test_everything_is_published_again_and_changes_nothing(
        self, yike: Yike, stack: Stack, bought: Bought
    ) -> None:
        async def handled() -> list[int]:
            return [road["inbox"] for road in (await yike("status")).data["roads"]]

        async def all_sent() -> bool:
            data = (await yike("status")).data
            return not any(r["unsent"] for r in data["roads"]) and not any(lag["records"] for lag in data["lag"])

        await until(all_sent, "the road is quiet")
        before, books = await handled(), (await yike("ledger", "check")).data
        ends = sum(topic["records"] for topic in (await yike("topics", "list")).data)
        outcome = await yike("outbox", "republish", "--since", "30m", "--yes")
        assert outcome.status == 0
        marked = sum(one["rows"] for one in outcome.data["outboxes"])
        assert marked > 20
        await until(all_sent, "all is published and read again")
        assert sum(topic["records"] for topic in (await yike("topics", "list")).data) >= ends + marked
        assert await handled() == before
        assert (await yike("ledger", "check")).data == books

    async def test_it_asks_first_and_knows_moments(self, yike: Yike, bought: Bought) -> None:
        assert (await yike("outbox", "republish", "--since", "1h")).status == 2
        assert (await yike("outbox", "republish", "--since", "yesterday")).status == 2
        assert (await yike("outbox", "republish", "--since", "1h", "--service", "ordres", "--yes")).status == 2
        future = await yike("outbox", "republish", "--since", "2099-01-01", "--service", "orders")
        assert future.data["outboxes"] == [{"service": "orders", "rows": 0}]


class TestDevelopment:
    async def test_a_token_is_one_that_services_accept(self, yike: Yike, stack: Stack) -> None:
        outcome = await yike("token", "institution", "some-id", "--lifetime", "1h", "--scope", "read")
        now = datetime.now(UTC) + await get_offset(stack.admin_dsn)
        actor = verify_token(KeyRing.load(stack.keys, "catalog"), outcome.data["token"], now=now)
        assert (actor.subject, actor.role, actor.scope) == ("some-id", "institution", frozenset({"read"}))
        assert (await yike("token", "institution", "x", "--lifetime", "90d")).status == 2

    async def test_the_clock_of_others_is_not_moved(self, yike: Yike) -> None:
        assert (await yike("clock", "advance", "7d")).status == 2
        assert (await yike("clock", "show")).status == 0

    async def test_the_bank_is_told_what_to_do_and_says_what_it_did(self, yike: Yike, stack: Stack) -> None:
        order = uuid4()
        assert (await yike("bank", "tell", "slow", "--order", order, "--after", "1m30s", "--times", "2")).status == 0
        told = (await yike("bank", "behaviours")).data
        assert [(one["name"], one["order_id"], one["seconds"], one["times_left"]) for one in told] == [
            ("slow", str(order), 90.0, 2)
        ]
        assert (await yike("bank", "clear")).status == 0
        assert (await yike("bank", "behaviours")).data == []
        assert (await yike("bank", "tell", "dance")).status == 2
        before = (await yike("ledger", "check")).data["suspense_fen"]
        assert (await yike("bank", "deposit", "icbc", "nobody", "4200")).status == 0
        statement = await yike("bank", "statement", "--bank", "icbc")
        assert {"bank": "icbc", "account": "nobody", "balance_fen": 4200} in statement.data["balances"]
        assert statement.data["entries"][-1]["amount_fen"] == 4200

        async def in_suspense() -> bool:
            return bool((await yike("ledger", "check")).data["suspense_fen"] == before + 4200)

        await until(in_suspense, "the money that nobody asked for is in suspense")


class TestSuspense:
    async def deposit(self, yike: Yike, account: str, fen: int) -> Any:
        """Money that nobody asked for, as `yike suspense list` shows it."""
        came = (await yike("bank", "deposit", "icbc", account, fen)).data

        async def listed() -> Any:
            receipts = (await yike("suspense", "list", "--limit", 500)).data["receipts"]
            return [one for one in receipts if one["reference"] == came["reference"]]

        return (await until(listed, "the money is listed"))[0]

    async def test_money_that_belongs_nowhere_is_listed_and_sent_back(self, yike: Yike, stack: Stack) -> None:
        account = f"cli-{uuid4()}"
        receipt = await self.deposit(yike, account, 4300)
        assert (receipt["reason"], receipt["state"], receipt["overdue"]) == ("unknown_number", "open", False)
        status = (await yike("status")).data["needs_a_person"]
        assert status["open"] >= 1
        assert status["fen"] >= 4300
        drawn = await yike("suspense", "list", as_json=False)
        assert receipt["receipt_id"] in drawn.out
        assert "¥43.00" in drawn.out

        decided = await yike("suspense", "return", receipt["receipt_id"], "无主资金", "--by", "li.kuaiji")
        assert (decided.status, decided.data["state"], decided.data["decided_by"]) == (0, "returning", "li.kuaiji")

        async def gone() -> bool:
            listed = (await yike("suspense", "list", "--all", "--limit", 500)).data["receipts"]
            return [one["state"] for one in listed if one["receipt_id"] == receipt["receipt_id"]] == ["returned"]

        await until(gone, "the bank has sent it back")
        balances = (await yike("bank", "statement")).data["balances"]
        assert {"bank": "icbc", "account": account, "balance_fen": 0} in balances
        assert (await yike("ledger", "check")).status == 0

    async def test_a_purchase_that_waits_for_its_payment_goes_on_when_it_is_matched(
        self, yike: Yike, stack: Stack, scenario: Scenario, bought: Bought
    ) -> None:
        assert (await yike("bank", "tell", "accept_first", "--kind", "collect", "--after", "1h")).status == 0
        buying = asyncio.create_task(scenario.buy(await scenario.new_guardian(), bought.institution, bought.course))

        async def waits() -> Any:
            async with connected(stack.dsn("escrow")) as connection:
                return await connection.fetchval("SELECT order_id FROM accounts WHERE state = 'collecting'")

        order = await until(waits, "the order waits for its payment")
        account = bought.institution.account.supervised_account
        receipt = await self.deposit(yike, account, bought.course.price_fen)
        matched = await yike("suspense", "match", receipt["receipt_id"], order, "家长出示转账凭证")
        assert (matched.status, matched.data["state"], matched.data["matched_order_id"]) == (0, "matched", str(order))
        assert (await buying).order_id == order
        assert (await yike("ledger", "check")).status == 0

    async def test_what_is_refused_says_why_and_which_figures_decided(self, yike: Yike, bought: Bought) -> None:
        nothing = await yike("suspense", "return", uuid4(), "无主资金")
        assert (nothing.status, "suspense_unknown" in nothing.error["error"]) == (4, True)
        receipt = await self.deposit(yike, bought.institution.account.supervised_account, 1)
        paid = await yike("suspense", "match", receipt["receipt_id"], bought.order_id, "凭证")
        assert (paid.status, "order_state" in paid.error["error"], paid.error["hint"]) == (1, True, "state held")
        assert (await yike("suspense", "match", receipt["receipt_id"], bought.order_id, " ")).status == 2
        assert (await yike("suspense", "return", receipt["receipt_id"], "无主资金", "--by", "李会计")).status == 2

    async def test_payments_that_the_bank_refuses_are_listed(
        self, yike: Yike, stack: Stack, scenario: Scenario
    ) -> None:
        receipt = await self.deposit(yike, f"cli-{uuid4()}", 4400)
        told = ("--order", receipt["receipt_id"], "--reason", "payer_unknown")
        assert (await yike("bank", "tell", "refuse", *told)).status == 0
        assert (await yike("suspense", "return", receipt["receipt_id"], "无主资金")).status == 0

        async def listed() -> Any:
            payments = (await yike("trouble")).data["payments"]
            return [one for one in payments if one["receipt_id"] == receipt["receipt_id"]]

        (payment,) = await until(listed, "the refusal is listed")
        assert (payment["kind"], payment["why"], payment["amount_fen"]) == ("return", "payer_unknown", 4400)
        drawn = await yike("trouble", as_json=False)
        assert "payer_unknown" in drawn.out
        assert (await yike("status")).data["needs_a_person"]["trouble"] >= 1
        assert "yike trouble" in (await yike("status", as_json=False)).out


class TestStack:
    async def test_settings_of_a_restart_last_for_one_run(
        self, stack: Stack, client: GatewayClient, bought: Bought
    ) -> None:
        await stack.restart("catalog", {"YIKE_CRASH_AT": "commit:1"})
        before = stack.state("catalog").restarts
        asked = asyncio.create_task(client.ask(ShowCourse(course_id=bought.course.course_id), timeout_s=WAIT_S))
        await stack.until_crashed("catalog")
        await asked
        assert stack.state("catalog").restarts == before + 1
        assert stack.state("catalog").last_exit_code == 137

    async def test_a_process_that_does_not_exist_is_named(self, stack: Stack) -> None:
        with pytest.raises(StackError, match="paymnets"):
            process_specs(stack.site, extra_env={"paymnets": {}})

    async def test_where_everything_is_is_found_again(self, stack: Stack) -> None:
        assert Site.load(stack.folder) == stack.site
        assert (stack.folder / "site.json").stat().st_mode & 0o077 == 0

    @pytest.mark.slow
    async def test_up_status_and_down(self, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("YIKE_KAFKA", servers.kafka)
        monkeypatch.setenv("YIKE_POSTGRES", servers.postgres_admin_dsn)
        yike = Yike(tmp_path / "stack")
        try:
            up = await yike("up")
            assert up.status == 0, up.err
            assert set(up.data["urls"]) == set(PART_NAMES)
            status = await yike("status")
            assert status.status == 0
            processes = {one["name"]: one for one in status.data["processes"]}
            assert set(processes) == set(PART_NAMES)
            assert all(one["ready"] and one["restarts"] == 0 and one["rss_mib"] > 20 for one in processes.values())
            again = await yike("up")
            assert (again.status, again.data) == (0, up.data)
            still = {one["name"]: one["pid"] for one in (await yike("status")).data["processes"]}
            assert still == {name: one["pid"] for name, one in processes.items()}
            down = await yike("down")
            assert down.data == {"stopped_processes": True, "stopped_servers": True, "deleted": False}
            assert (await yike("status")).data["processes"] == []
        finally:
            await yike("down")
            await drop_databases(servers.postgres_admin_dsn, PART_NAMES)


class TestWords:
    def test_spans(self) -> None:
        assert span("7d") == timedelta(days=7)
        assert span("1h30m") == span("90min") == timedelta(minutes=90)
        for wrong in ("", "7", "d7", "7 d", "7x", "-1d"):
            with pytest.raises(CommandError):
                span(wrong)

    def test_moments_without_a_zone_are_shanghais(self) -> None:
        assert moment("2026-03-07T12:00", NOW) == NOW
        assert moment("2026-03-07T04:00Z", NOW) == NOW
        assert moment("2h", NOW) == NOW - timedelta(hours=2)

    def test_money(self) -> None:
        assert [yuan(0), yuan(5), yuan(-123_456_789)] == ["¥0.00", "¥0.05", "-¥1,234,567.89"]

    def test_facts_are_short_and_never_secret(self) -> None:
        data = {
            "order_id": "o",
            "title": "篮球",
            "proof": "signed",
            "details": {"jwe": "x"},
            "amount_fen": 10_000,
            "lesson_no": 3,
            "text": "long " * 20,
            "until": "2026-03-07T04:00:00Z",
        }
        assert what(data, "o") == "lesson_no 3, amount ¥100.00, title 篮球, until 03-07 12:00:00"

    def test_a_request_stands_before_what_it_caused_even_where_the_clock_was_moved(self) -> None:
        ahead = timedelta(days=7)
        request = said("gateway web", "orders.purchase.pay.v1", NOW)
        effect = said("orders", "escrow.payment.collect.v1", NOW + ahead + timedelta(milliseconds=40), request.id)
        effect = Said(**{**vars(effect), "made_at": NOW + timedelta(milliseconds=40)})
        later = said("gateway web", "orders.purchase.show.v1", NOW + timedelta(milliseconds=90))
        told = in_order([effect], [later, request])
        assert [(one.type, one.ms) for one in told] == [
            ("orders.purchase.pay.v1", 0),
            ("escrow.payment.collect.v1", 40),
            ("orders.purchase.show.v1", 90),
        ]
        assert [one.type for one in without_asking(told)] == ["orders.purchase.pay.v1", "escrow.payment.collect.v1"]


def said(service: str, type_: str, at: datetime, cause: UUID | None = None) -> Said:
    id_ = uuid4()
    return Said(at, 0, service, type_, "", "", id_, str(id_), str(cause or ""), True)


class TestWindUp:
    async def test_an_institution_that_is_gone_is_planned_refunded_and_looked_at_again(
        self, yike: Yike, stack: Stack, scenario: Scenario
    ) -> None:
        institution = await scenario.open_institution("常州远航培训中心")
        course = await scenario.publish_course(institution, "少儿跆拳道班")
        families = [await scenario.new_guardian() for _ in range(2)]
        orders = [await scenario.buy(family, institution, course) for family in families]
        gone = (institution.institution_id, "--by", "changzhou-edu")

        planned = await yike("windup", "plan", *gone)
        assert (planned.status, planned.data["orders"], planned.data["refund_fen"]) == (0, 2, 240_000)
        assert (await yike("windup", "show", *gone)).status == 4
        meant = await yike("windup", "start", institution.institution_id, "人去楼空", "--by", "changzhou-edu")
        assert meant.status == 2, "nobody was there to say yes"
        said = ("windup", "start", institution.institution_id, "人去楼空", "--by", "changzhou-edu", "--yes")
        done = await yike(*said)
        assert (done.status, done.data["done_orders"], done.data["done_fen"]) == (0, 2, 240_000)
        for order in orders:
            assert (await scenario.until_refund(order, "paid")).ground == "institution_gone"
        again = await yike(*said)
        assert (again.status, again.data["orders"], again.data["done_orders"]) == (0, 0, 0)
        drawn = await yike("windup", "show", *gone, as_json=False)
        assert "Finished: 0 orders" in drawn.out
        assert (await yike("ledger", "check")).status == 0
