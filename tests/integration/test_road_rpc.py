"""Ask and answer, and the trace of a message: what a gateway sees of the road."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from shared.contracts.envelope import Message, encode
from shared.ids import new_id
from shared.messaging.rpc import GatewayClient, OutcomeUnknown, RequestRefused
from shared.messaging.trace import child_traceparent, new_traceparent
from shared.messaging.work import UnitOfWork
from tests.roadkit import (
    GATEWAY_REPLIES,
    REQUESTS,
    Ask,
    Balance,
    Noted,
    Put,
    Road,
    body,
    road,
)

__all__ = ["road"]

ANSWER_S = 15.0
SHORT_S = 0.3


@pytest.fixture
async def service(road: Road) -> AsyncIterator[Road]:
    """The service, running."""
    async with road.serve():
        yield road


async def ask(client: GatewayClient, account: Any, number: int, **options: Any) -> Any:
    """Asks and waits for the answer."""
    return await client.ask(Ask(account_id=account, number=number), **({"timeout_s": ANSWER_S} | options))


class TestAnswers:
    async def test_each_copy_of_a_gateway_hears_its_own_answers_and_needs_no_group(self, service: Road) -> None:
        account = new_id()
        async with (
            GatewayClient(service.client_settings, "test", partition=1) as one,
            GatewayClient(service.client_settings, "test", partition=2) as two,
        ):
            answers = await asyncio.gather(*(ask(client, account, 1) for client in (service.client, one, two)))
        assert sorted(answer.total for answer in answers) == [1, 2, 3]
        await service.expect_recorded()
        replies = [one for one in service.on(GATEWAY_REPLIES) if one["partitionkey"] == str(account)]
        assert sorted(reply["_partition"] for reply in replies) == [0, 1, 2]
        admin = AIOKafkaAdminClient(bootstrap_servers=service.servers.kafka)
        await admin.start()
        try:
            groups = [group for group, *_ in await admin.list_consumer_groups()]
        finally:
            await admin.close()
        assert [name for name in groups if name.startswith(service.name)] == [f"{service.name}.yike-escrow"]

    async def test_many_questions_at_once_each_get_their_own_answer(self, service: Road) -> None:
        accounts = [new_id() for _ in range(40)]
        answers = await asyncio.gather(*(ask(service.client, account, n) for n, account in enumerate(accounts)))
        assert [(a.account_id, a.total) for a in answers] == [(account, n) for n, account in enumerate(accounts)]
        assert service.client._waiting == {}

    async def test_a_refusal_is_a_problem_with_code_words_and_figures_and_changes_nothing(self, service: Road) -> None:
        account = new_id()
        with pytest.raises(RequestRefused) as refused:
            await ask(service.client, account, -5)
        problem = refused.value.problem
        assert (problem.code, problem.title, problem.status, problem.retryable) == (
            "amount_invalid",
            "金额有误",
            422,
            False,
        )
        assert problem.figures == {"number": -5}
        assert problem.request_type == Ask.TYPE
        assert problem.type == "urn:yike:problem:amount_invalid"
        assert (await ask(service.client, account, 1)).total == 1
        assert await service.numbers(account) == [1]

    async def test_a_refused_question_asked_again_is_refused_again_without_a_second_look(self, service: Road) -> None:
        account, id_ = new_id(), new_id()
        for _ in range(2):
            with pytest.raises(RequestRefused, match="amount_invalid"):
                await ask(service.client, account, -1, message_id=id_)
        await service.expect_recorded()
        assert len([one for one in service.on(REQUESTS) if one["id"] == str(id_)]) == 2

    async def test_what_cannot_be_read_among_the_answers_keeps_none_from_being_heard(self, service: Road) -> None:
        for value in (
            None,
            b"{",
            b"[1]",
            b'{"causationid": "17"}',
            b'{"causationid": 17, "type": []}',
            encode(body(Balance(account_id=new_id(), total=1), causationid=str(new_id())) | {"data": {}}).encode(),
        ):
            await service.publish_record(GATEWAY_REPLIES, value, partition=0)
        id_ = new_id()
        asking = asyncio.create_task(ask(service.client, new_id(), 4, message_id=id_))
        unfit = encode(body(Balance(account_id=new_id(), total=1), causationid=str(id_)) | {"data": {"total": "x"}})
        await service.publish_record(GATEWAY_REPLIES, unfit.encode(), partition=0)
        assert (await asking).total == 4


class TestTimeOut:
    async def test_means_unknown_and_the_same_id_may_be_sent_again(self, road: Road) -> None:
        account, id_ = new_id(), new_id()
        with pytest.raises(OutcomeUnknown) as unknown:
            await ask(road.client, account, 5, message_id=id_, timeout_s=SHORT_S)
        assert unknown.value.message_id == id_
        assert road.client._waiting == {}
        async with road.serve():
            await road.expect_numbers(account, 5)  # it was done after all
            assert (await ask(road.client, account, 5, message_id=id_)).total == 5
            await road.expect_numbers(account, 5)

    async def test_two_who_wait_for_the_same_id_do_not_get_in_each_others_way(self, road: Road) -> None:
        account, id_ = new_id(), new_id()
        patient = asyncio.create_task(ask(road.client, account, 5, message_id=id_))
        with pytest.raises(OutcomeUnknown):
            await ask(road.client, account, 5, message_id=id_, timeout_s=SHORT_S)
        async with road.serve():
            assert (await patient).total == 5
        assert await road.numbers(account) == [5]

    async def test_an_idempotency_key_gets_the_answer_even_under_a_new_id(self, road: Road) -> None:
        account = new_id()
        with pytest.raises(OutcomeUnknown):
            await ask(road.client, account, 5, idempotency_key=f"pay {account}", timeout_s=SHORT_S)
        async with road.serve():
            for _ in range(2):
                assert (await ask(road.client, account, 5, idempotency_key=f"pay {account}")).total == 5
            with pytest.raises(RequestRefused, match="idempotency_conflict"):
                await ask(road.client, account, 6, idempotency_key=f"pay {account}")
        assert await road.numbers(account) == [5]

    async def test_a_question_that_expired_on_the_way_is_refused_and_not_done(self, road: Road) -> None:
        account = new_id()
        late, timely = (
            body(
                Ask(account_id=account, number=number),
                replyto=GATEWAY_REPLIES,
                replypartition=0,
                expirytime=(road.now() + timedelta(seconds=left_s)).isoformat(),
            )
            for number, left_s in ((1, 0), (2, 600))
        )
        for envelope in (late, timely):
            await road.publish_record(REQUESTS, encode(envelope).encode(), key=str(account).encode())
        async with road.serve():
            problem = (await road.expect_answer(late["id"]))[0]["data"]
            assert (problem["code"], problem["retryable"]) == ("request_expired", True)
            await road.expect_numbers(account, 2)


class TestTrace:
    async def test_is_one_from_the_question_to_everything_it_caused(self, service: Road) -> None:
        account = new_id()
        id_ = await service.publish(Put(account_id=account, number=1), replyto=GATEWAY_REPLIES)
        asked = await service.expect_envelope(lambda e: e.get("id") == str(id_))
        said = await service.expect_envelope(lambda e: e["type"] == Noted.TYPE and e["partitionkey"] == str(account))
        answered = (await service.expect_answer(id_))[0]
        spans = {asked["traceparent"]}
        for caused in (said, answered):
            assert caused["correlationid"] == asked["correlationid"]
            assert caused["causationid"] == asked["id"]
            assert caused["traceparent"].split("-")[1] == asked["traceparent"].split("-")[1]
            assert dict(caused["_headers"])["traceparent"].decode() == caused["traceparent"]
            assert dict(caused["_headers"])["correlation_id"].decode() == caused["correlationid"]
            spans.add(caused["traceparent"])
        assert len(spans) == 3

    async def test_goes_through_the_dead_letter(self, road: Road) -> None:
        async def bug(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
            raise LookupError

        account = new_id()
        async with road.serve(bug):
            (id_,) = await road.put(account, 1)
            asked = await road.expect_envelope(lambda e: e.get("id") == str(id_))
            letter = await road.expect_envelope(lambda e: e.get("causationid") == str(id_))
        assert letter["type"] == "dead_letter.v1"
        assert letter["correlationid"] == asked["correlationid"]
        assert letter["traceparent"].split("-")[1] == asked["traceparent"].split("-")[1]

    @pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-abc-def-01\n"])
    def test_a_trace_that_is_none_is_begun_anew(self, given: str) -> None:
        child = child_traceparent(given)
        assert child.split("-")[1] != "0" * 32
        assert len(child) == len(new_traceparent())

    def test_a_trace_that_is_not_sampled_stays_so(self) -> None:
        parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
        child = child_traceparent(parent)
        assert (child[:36], child[-2:]) == (parent[:36], "00")
        assert child != parent
