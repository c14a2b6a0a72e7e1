"""The providers of development: a line in a file, a line on the console."""

import asyncio
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.notify.codes import _network, _plain
from services.notify.providers import Outgoing, Provider
from services.notify.providers.console import ConsoleProvider
from services.notify.providers.file import FileProvider

AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def outgoing(sms_id: UUID | None = None) -> Outgoing:
    text = "【一课】您的登录验证码为123456"
    return Outgoing(sms_id or uuid4(), "+8613912345678", "code.sign_in", {"code": "123456"}, text, AT)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


async def test_a_sent_sms_is_one_line(tmp_path: Path) -> None:
    provider: Provider = FileProvider(tmp_path / "new" / "sms.jsonl")
    sms = outgoing()
    await provider.send(sms)
    assert lines(tmp_path / "new" / "sms.jsonl") == [
        {
            "sms_id": str(sms.sms_id),
            "phone": "+8613912345678",
            "purpose": "code.sign_in",
            "text": sms.text,
            "sent_at": "2026-11-23T04:00:00+00:00",
        }
    ]


async def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sms.jsonl"
    path.touch(mode=0o644)
    await FileProvider(path).send(outgoing())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_file_can_tell_what_was_sent(tmp_path: Path) -> None:
    provider = FileProvider(tmp_path / "sms.jsonl")
    sent, never = outgoing(), outgoing()
    assert await provider.was_sent(sent.sms_id) is False
    await provider.send(sent)
    assert await provider.was_sent(sent.sms_id) is True
    assert await provider.was_sent(never.sms_id) is False


async def test_a_line_torn_by_a_power_cut_was_not_sent_and_spoils_no_other(tmp_path: Path) -> None:
    path, torn, whole = tmp_path / "sms.jsonl", outgoing(), outgoing()
    provider = FileProvider(path)
    path.write_text(json.dumps({"sms_id": str(torn.sms_id), "phone": "+86139"})[:-1])
    assert await provider.was_sent(torn.sms_id) is False
    await provider.send(whole)
    await provider.send(torn)
    assert await provider.was_sent(whole.sms_id) is True
    assert await provider.was_sent(torn.sms_id) is True


async def test_many_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "sms.jsonl"
    all_sms = [outgoing() for _ in range(50)]
    providers = FileProvider(path), FileProvider(path)
    await asyncio.gather(*(providers[n % 2].send(sms) for n, sms in enumerate(all_sms)))
    assert {line["sms_id"] for line in lines(path)} == {str(sms.sms_id) for sms in all_sms}


async def test_the_console_masks_the_phone_and_cannot_tell(capsys: pytest.CaptureFixture[str]) -> None:
    provider: Provider = ConsoleProvider()
    await provider.send(outgoing())
    printed = capsys.readouterr().out
    assert printed == "SMS 139****5678 【一课】您的登录验证码为123456\n"
    assert await provider.was_sent(uuid4()) is None


def test_an_outgoing_sms_shows_neither_phone_nor_code() -> None:
    shown = repr(outgoing(UUID(int=0)))
    assert "123456" not in shown
    assert "139" not in shown


@pytest.mark.parametrize(
    ("ip", "counted"),
    [
        (" 203.0.113.7 ", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_an_address_counts_as_its_subscriber(ip: str, counted: str) -> None:
    assert _network(ip) == counted


@pytest.mark.parametrize("typed", ["123456", " 123 456 ", "\uff11\uff12\uff13\uff14\uff15\uff16"])
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert _plain(typed) == "123456"
