"""The contracts and what is generated from them: up to date, whole, and true to what the services hear."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]

from ops.check import contracts as generated
from shared.contracts.envelope import Command, Data, Event, Message, Reply, Request, encode
from shared.contracts.escrow import ReleaseLesson
from shared.contracts.topics import ALL_TOPICS, REPLY_TOPIC_PATTERN, TOPICS_BY_NAME
from shared.ids import new_id

# Those of the road's own test service are known only while it runs.
KNOWN = [contract for type_, contract in generated.contracts().items() if ".roadtest." not in type_]
TYPE = re.compile(r"^[a-z][a-z_]*(\.[a-z][a-z_]*)*\.v[1-9][0-9]*$")

each_contract = pytest.mark.parametrize("contract", KNOWN, ids=lambda contract: contract.TYPE)


def described() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((generated.DOCS / "contracts" / "asyncapi.json").read_text(encoding="utf-8"))
    return document


class TestFiles:
    def test_they_are_what_the_contracts_make(self) -> None:
        assert generated.differences(generated.files(), generated.DOCS) == []

    def test_they_are_made_the_same_every_time(self) -> None:
        assert generated.files() == generated.files()

    def test_missing_stale_and_left_over_files_are_noticed(self, tmp_path: Path) -> None:
        wanted = {"contracts/a.v1.json": "{}\n", "contracts/b.v1.json": "{}\n", "errors.md": "one\n"}
        generated.write(wanted, tmp_path)
        assert generated.differences(wanted, tmp_path) == []
        (tmp_path / "contracts/a.v1.json").unlink()
        (tmp_path / "contracts/c.v1.json").write_text("{}", encoding="utf-8")
        (tmp_path / "errors.md").write_text("two\n", encoding="utf-8")
        missing, stale, left_over = generated.differences(wanted, tmp_path)
        assert missing == "missing: contracts/a.v1.json"
        assert stale.splitlines()[0] == "stale: errors.md"
        assert {"-two", "+one"} <= set(stale.splitlines())
        assert left_over == "left over: contracts/c.v1.json"
        generated.write(wanted, tmp_path)
        assert generated.differences(wanted, tmp_path) == []


class TestContracts:
    @each_contract
    def test_each_says_what_it_is_for(self, contract: type[Data]) -> None:
        assert contract.__doc__
        assert contract.__doc__ != Data.__doc__

    @each_contract
    def test_each_type_ends_with_a_version(self, contract: type[Data]) -> None:
        assert TYPE.match(contract.TYPE)

    @each_contract
    def test_each_travels_on_a_topic_that_exists(self, contract: type[Data]) -> None:
        if contract.TOPIC:
            assert contract.TOPIC in TOPICS_BY_NAME
            assert TOPICS_BY_NAME[contract.TOPIC].kind in {
                "request": {"requests"},
                "command": {"commands", "instructions"},
                "event": {"events", "results"},
            }.get(generated.kind_of(contract), set())
        else:
            assert issubclass(contract, Reply) or contract.TYPE == "dead_letter.v1"

    @each_contract
    def test_each_key_is_a_field_and_a_type_names_its_owner(self, contract: type[Data]) -> None:
        if contract.KEY:
            assert contract.KEY in contract.model_fields
        if contract.TOPIC:
            assert contract.TYPE.split(".")[0] == contract.TOPIC.split(".")[0]

    @each_contract
    def test_each_request_has_an_answer_and_each_asked_thing_one_hearer(self, contract: type[Data]) -> None:
        if issubclass(contract, Request):
            assert contract.REPLY is not None
        if issubclass(contract, (Request, Command)):
            owner = "bank" if contract.TOPIC.startswith("bank.") else contract.TOPIC.split(".")[0]
            assert generated.hearers().get(contract.TYPE) == (owner,)
        if contract.REPLY is not None:
            assert issubclass(contract.REPLY, Reply)

    @each_contract
    def test_each_schema_is_one_and_names_every_field(self, contract: type[Data]) -> None:
        schema = generated.message_schema(contract)
        Draft202012Validator.check_schema(schema)
        assert schema["properties"]["type"] == {"const": contract.TYPE, "type": "string"}
        name = schema["properties"]["data"]["$ref"].rpartition("/")[2]
        assert set(schema["$defs"][name]["properties"]) == set(contract.model_fields)

    def test_what_the_road_sends_is_valid_and_what_it_refuses_is_not(self) -> None:
        validator = Draft202012Validator(generated.message_schema(ReleaseLesson))
        data = ReleaseLesson(order_id=new_id(), lesson_no=3)
        envelope = {
            "specversion": "1.0",
            "id": new_id(),
            "source": "/yike/orders",
            "type": ReleaseLesson.TYPE,
            "time": "2026-03-01T12:00:00Z",
            "correlationid": new_id(),
            "data": data,
        }
        body = json.loads(encode(envelope))
        assert Message[ReleaseLesson].model_validate(body).data == data
        validator.validate(body)
        for wrong in ({"type": "escrow.lesson.release.v2"}, {"data": {"order_id": str(new_id()), "lesson_no": 0}}):
            with pytest.raises(ValidationError):
                validator.validate(body | wrong)


class TestAsyncApi:
    def test_the_document_is_valid(self) -> None:
        assert generated.faults(described()) == []

    def test_a_broken_document_is_noticed(self) -> None:
        document = described()
        document["operations"]["orders.receive.orders.sign_in.v1"]["mesages"] = []
        document["channels"]["orders.events.v1"]["messages"]["nobody.v1"] = {"$ref": "#/components/messages/nobody.v1"}
        assert generated.faults(document) == [
            "operation orders.receive.orders.sign_in.v1: member 'mesages' is unknown",
            "#/components/messages/nobody.v1 leads nowhere",
        ]

    def test_every_topic_is_a_channel_with_its_partitions(self) -> None:
        channels = described()["channels"]
        for topic in ALL_TOPICS:
            assert channels[topic.name]["bindings"]["kafka"]["partitions"] == topic.partitions

    def test_every_request_is_answered_where_it_says(self) -> None:
        operations = described()["operations"]
        for contract in KNOWN:
            if issubclass(contract, Request):
                assert contract.REPLY is not None
                reply = operations[f"{contract.TYPE.split('.')[0]}.receive.{contract.TYPE}"]["reply"]
                assert reply["address"] == {"location": "$message.payload#/replyto"}
                answers = [message["$ref"].rpartition("/")[2] for message in reply["messages"]]
                assert answers == [contract.REPLY.TYPE, "problem.v1"]

    def test_every_event_has_one_sender(self) -> None:
        operations = described()["operations"]
        for contract in KNOWN:
            if issubclass(contract, Event) and contract.TOPIC:
                senders = [name for name in operations if name.endswith(f".send.{contract.TYPE}")]
                assert len(senders) == 1

    def test_replies_go_to_topics_that_a_request_may_name(self) -> None:
        for topic in ALL_TOPICS:
            may = bool(re.match(REPLY_TOPIC_PATTERN, topic.name))
            assert may == (topic.kind in ("replies", "gateway replies"))
