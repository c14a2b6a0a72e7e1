"""Families on the real servers: sign-in, children, signer, profile, and what purchases read of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pydantic_core
import pytest
from joserfc.jwk import OKPKey
from sqlalchemy import event

from services.orders.families.handlers import on_sign_in
from services.orders.families.queries import contract_parties, families_of
from shared.actors import Actor, Role, issue_proof, issue_token, verify_token
from shared.contracts.envelope import Message, Request
from shared.contracts.notify import Phone, SetContact
from shared.contracts.orders import (
    AddChild,
    ChildDetails,
    ProfileView,
    ReplyKey,
    SetSigner,
    ShowProfile,
    SignedIn,
    SignerDetails,
    SignIn,
    Token,
)
from shared.database import Database
from shared.documents import DocumentType, Sex, card_check_digit
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging.rpc import RequestRefused
from shared.messaging.work import UnitOfWork
from shared.sealing import seal, unseal
from tests.harness import Harness

CHANCE = Random(new_id().int)


@pytest.fixture(scope="module")
async def running(harness: Harness) -> AsyncIterator[Harness]:
    async with harness.service("orders"):
        yield harness


def new_phone() -> str:
    return f"139{CHANCE.randrange(10**8):08}"


def proof(harness: Harness, typed: str, *, issuer: str = "notify", to: str = "orders", **changes: Any) -> str:
    """What notify gives to who typed the right code."""
    ring = harness.ring(issuer)
    claims = {"challenge_id": str(new_id()), "phone": seal(ring, "orders", Phone(phone=typed)).jwe} | changes
    return issue_proof(ring, audience=to, claims=claims, now=harness.now())


async def signed_in(harness: Harness, phone: str | None = None) -> Actor:
    """The guardian of a phone, by default of one never seen before."""
    asked = SignIn(proof=proof(harness, phone or new_phone()), agreement_version="2026-09")
    answer: SignedIn = await harness.ask(asked)
    return Actor(str(answer.account_id), "guardian")


def child(**changes: Any) -> ChildDetails:
    """A boy with a card of his own."""
    first_17 = f"32040220150601{CHANCE.randrange(500) * 2 + 1:03}"
    return ChildDetails(
        **{
            "name": "张小明",
            "sex": Sex.MALE,
            "birth_date": "2015-06-01",
            "document_type": DocumentType.RESIDENT_IDENTITY_CARD,
            "document_number": first_17 + card_check_digit(first_17),
        }
        | changes
    )


def numbered(number: int) -> ChildDetails:
    return child(document_type=DocumentType.PASSPORT, document_number=f"E{number:08}")


def mother(**changes: Any) -> SignerDetails:
    return SignerDetails(
        **{
            "name": "李华",
            "phone": "13912345678",
            "address": "常州市天宁区和平路 1 号",
            "document_type": DocumentType.RESIDENT_IDENTITY_CARD,
            "document_number": "11010519491231002X",
        }
        | changes
    )


def adding(harness: Harness, who: Actor, details: ChildDetails, child_id: UUID | None = None) -> AddChild:
    sealed = seal(harness.ring("orders"), "orders", details)
    return AddChild(account_id=UUID(who.subject), child_id=child_id or new_id(), details=sealed)


def setting(harness: Harness, who: Actor, details: SignerDetails) -> SetSigner:
    return SetSigner(account_id=UUID(who.subject), details=seal(harness.ring("orders"), "orders", details))


async def refused_without_a_trace(harness: Harness, code: str, request: Request, actor: Actor | None = None) -> None:
    before = await harness.content("orders")
    assert await harness.refusal(request, actor) == code
    assert await harness.content("orders") == before


# --- sign-in ------------------------------------------------------------------------------------------------------


async def test_the_first_sign_in_makes_an_account_and_tells_notify_its_phone(running: Harness) -> None:
    phone = new_phone()
    answer: SignedIn = await running.ask(SignIn(proof=proof(running, phone), agreement_version="2026-09"))
    assert answer.created
    assert verify_token(running.ring("escrow"), answer.token, now=running.now()) == Actor(
        str(answer.account_id), "guardian"
    )
    contact = await running.expect(SetContact, answer.account_id)
    assert unseal(running.ring("notify"), contact.phone, Phone).phone == f"+86{phone}"
    agreed = await running.rows("orders", "SELECT version FROM agreements WHERE account_id = $1", answer.account_id)
    assert [row["version"] for row in agreed] == ["2026-09"]


async def test_the_next_sign_in_of_a_phone_finds_its_account_and_records_the_new_agreement(running: Harness) -> None:
    phone = new_phone()
    first: SignedIn = await running.ask(SignIn(proof=proof(running, phone), agreement_version="2026-09"))
    for version in ("2026-09", "2026-11"):
        typed = f"+86 {phone[:3]} {phone[3:]}"
        again: SignedIn = await running.ask(SignIn(proof=proof(running, typed), agreement_version=version))
        assert (again.account_id, again.created) == (first.account_id, False)
    sql = "SELECT version FROM agreements WHERE account_id = $1 ORDER BY agreed_at"
    agreed = await running.rows("orders", sql, first.account_id)
    assert [row["version"] for row in agreed] == ["2026-09", "2026-11"]
    await running.expect_recorded()
    assert len(running.seen(SetContact, first.account_id)) == 1


async def test_a_token_for_a_gateway_with_a_key_is_readable_by_it_alone_and_lives_a_month(running: Harness) -> None:
    private = OKPKey.generate_key("X25519", {"kid": "web-1"})
    public = ReplyKey.model_validate(private.as_dict(private=False))
    asked = SignIn(proof=proof(running, new_phone()), agreement_version="1", reply_key=public)
    answer: SignedIn = await running.ask(asked)
    assert answer.token == ""
    assert answer.sealed_token is not None
    gateway = KeyRing("web", None, {"web-1": private}, {}, {}, None, None)
    token = unseal(gateway, answer.sealed_token, Token).token
    nearly = answer.expires_at - timedelta(seconds=1)
    assert verify_token(running.ring("orders"), token, now=nearly).subject == str(answer.account_id)
    assert answer.expires_at - running.now() > timedelta(days=29, hours=23)
    kept = await running.rows("orders", "SELECT reply AS text FROM inbox UNION ALL SELECT body FROM outbox")
    assert not any(token in (row["text"] or "") for row in kept)
    assert not any(token in str(envelope) for envelope in running.recorded)


async def test_a_token_in_clear_lives_half_a_day(running: Harness) -> None:
    answer: SignedIn = await running.ask(SignIn(proof=proof(running, new_phone()), agreement_version="1"))
    assert answer.sealed_token is None
    assert answer.expires_at - running.now() <= timedelta(hours=12)


async def test_the_phone_is_nowhere_in_clear(running: Harness) -> None:
    phone = new_phone()
    await signed_in(running, phone)
    assert phone not in str(await running.content("orders"))
    assert not any(phone in str(envelope) for envelope in running.recorded)


async def test_a_sign_in_without_agreement_is_refused(running: Harness) -> None:
    asked = SignIn(proof=proof(running, new_phone()))
    await refused_without_a_trace(running, "agreement_missing", asked)


async def test_a_proof_is_taken_once_and_the_same_message_answered_again(running: Harness) -> None:
    asked = SignIn(proof=proof(running, new_phone()), agreement_version="1")
    message_id = new_id()
    first: SignedIn = await running.ask(asked, message_id=message_id)
    assert await running.ask(asked, message_id=message_id) == first
    await refused_without_a_trace(running, "proof_invalid", asked)


async def test_a_proof_that_was_refused_may_be_shown_again(running: Harness) -> None:
    shown = proof(running, new_phone())
    assert await running.refusal(SignIn(proof=shown)) == "agreement_missing"
    assert (await running.ask(SignIn(proof=shown, agreement_version="1"))).created


BAD_PROOFS: dict[str, Callable[[Harness], str]] = {
    "no proof at all": lambda harness: "nonsense",
    "for another service": lambda harness: proof(harness, new_phone(), to="escrow"),
    "of another service": lambda harness: proof(harness, new_phone(), issuer="escrow"),
    "without a challenge": lambda harness: proof(harness, new_phone(), challenge_id="none"),
    "without a phone": lambda harness: proof(harness, new_phone(), phone=None),
    "with the phone in clear": lambda harness: proof(harness, new_phone(), phone="13912345678"),
    "with the phone sealed to another": lambda harness: proof(
        harness, new_phone(), phone=seal(harness.ring("notify"), "escrow", Phone(phone=new_phone())).jwe
    ),
    "too old": lambda harness: issue_proof(
        harness.ring("notify"), audience="orders", claims={}, now=harness.now() - timedelta(minutes=6)
    ),
}


@pytest.mark.parametrize("kind", BAD_PROOFS)
async def test_a_bad_proof_is_refused(running: Harness, kind: str) -> None:
    asked = SignIn(proof=BAD_PROOFS[kind](running), agreement_version="1")
    await refused_without_a_trace(running, "proof_invalid", asked)


async def test_a_proof_of_what_is_no_mobile_number_is_refused(running: Harness) -> None:
    asked = SignIn(proof=proof(running, "0519-12345678"), agreement_version="1")
    await refused_without_a_trace(running, "proof_invalid", asked)


async def test_a_reply_key_that_keeps_no_secret_is_refused(running: Harness) -> None:
    asked = SignIn(proof=proof(running, new_phone()), agreement_version="1", reply_key=ReplyKey(kid="z", x="A" * 43))
    await refused_without_a_trace(running, "request_invalid", asked)


async def test_challenges_long_past_are_swept_away(running: Harness) -> None:
    old = [new_id() for _ in range(2)]
    sql = "INSERT INTO used_challenges SELECT $1, yike_now() - interval '25 hours'"
    for challenge_id in old:
        await running.rows("orders", sql, challenge_id)
    await signed_in(running)
    left = await running.rows("orders", "SELECT 1 FROM used_challenges WHERE challenge_id = ANY($1)", old)
    assert left == []


async def test_two_copies_signing_a_new_phone_in_at_once_make_one_account(running: Harness) -> None:
    phone, ring = new_phone(), running.ring("orders")

    def message() -> Message[SignIn]:
        message_id = new_id()
        return Message[SignIn](
            id=message_id,
            source="/gateway/test",
            type=SignIn.TYPE,
            time=running.now(),
            correlationid=message_id,
            replyto="gateway.test.replies.v1",
            data=SignIn(proof=proof(running, phone), agreement_version="1"),
        )

    async def copy(handled: asyncio.Event, may_commit: Awaitable[Any]) -> tuple[SignedIn, int]:
        async with database.session() as session, session.begin():
            work = UnitOfWork("orders", session, ring, running.now())
            await on_sign_in(work, [message()])
            handled.set()
            await may_commit
        answer = pydantic_core.from_json(work.outbox[-1].body)["data"]
        return SignedIn.model_validate(answer), sum(row.type == SetContact.TYPE for row in work.outbox)

    async def one_waits() -> bool:
        sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(await running.rows("orders", sql))

    database = Database(running.dsns["orders"])
    try:
        handled, commit = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(copy(handled, commit.wait()))
        await handled.wait()
        second = asyncio.create_task(copy(asyncio.Event(), asyncio.sleep(0)))
        await running.until(one_waits)
        commit.set()
        (winner, told), (loser, told_again) = await asyncio.gather(first, second)
    finally:
        await database.close()
    assert (winner.created, loser.created) == (True, False)
    assert winner.account_id == loser.account_id
    assert (told, told_again) == (1, 0)


# --- children -----------------------------------------------------------------------------------------------------


async def test_a_child_is_added_and_shown_masked(running: Harness) -> None:
    who, details = await signed_in(running), child()
    view: ProfileView = await running.ask(adding(running, who, details), who)
    assert [(one.name, one.roll_check) for one in view.children] == [("张**", "unchecked")]
    assert view.children[0].document == f"320*************{details.document_number[-2:]}"
    assert view.missing == ("signer",)
    for text in (str(await running.content("orders")), *map(str, running.recorded)):
        assert details.document_number not in text
        assert "张小明" not in text


async def test_the_same_child_again_is_answered_the_same_and_changes_nothing(running: Harness) -> None:
    who = await signed_in(running)
    details, child_id = child(), new_id()
    view = await running.ask(adding(running, who, details, child_id), who)
    before = await running.content("orders")
    # Sealed anew, another message id, the number typed with blanks: still the same child.
    number = f"{details.document_number[:6]} {details.document_number[6:]}"
    spaced = details.model_copy(update={"document_number": number})
    assert await running.ask(adding(running, who, spaced, child_id), who) == view
    assert await running.content("orders") == before


async def test_a_child_whose_document_disagrees_is_refused_with_the_field(running: Harness) -> None:
    who = await signed_in(running)
    asked = adding(running, who, child(birth_date="2015-06-02"))
    await refused_without_a_trace(running, "document_invalid", asked, who)
    with pytest.raises(RequestRefused) as caught:
        await running.ask(asked, who)
    assert [fault.field for fault in caught.value.problem.errors] == ["birth_date"]


async def test_a_document_is_recorded_once_in_an_account_but_in_both_parents_accounts(running: Harness) -> None:
    who, other, details = await signed_in(running), await signed_in(running), child()
    await running.ask(adding(running, who, details), who)
    await refused_without_a_trace(running, "child_exists", adding(running, who, details), who)
    assert len((await running.ask(adding(running, other, details), other)).children) == 1


async def test_the_id_of_another_child_is_refused_whoever_has_it(running: Harness) -> None:
    who, other, child_id = await signed_in(running), await signed_in(running), new_id()
    await running.ask(adding(running, who, numbered(1), child_id), who)
    for asking in (who, other):
        asked = adding(running, asking, numbered(2), child_id)
        await refused_without_a_trace(running, "idempotency_conflict", asked, asking)


async def test_an_eleventh_child_is_refused(running: Harness) -> None:
    who = await signed_in(running)
    views = [await running.ask(adding(running, who, numbered(number)), who) for number in range(10)]
    assert [len(view.children) for view in views] == list(range(1, 11))
    await refused_without_a_trace(running, "child_limit", adding(running, who, numbered(10)), who)


# --- signer -------------------------------------------------------------------------------------------------------


async def test_a_signer_is_set_and_every_version_stays(running: Harness) -> None:
    who = await signed_in(running)
    typed = (mother(), mother(phone="+86 139 1234 5678"), mother(name="王芳"))
    views: list[ProfileView] = [await running.ask(setting(running, who, details), who) for details in typed]
    assert [view.signer for view in views] == ["李*", "李*", "王*"]
    assert views[-1].missing == ("child",)
    sql = "SELECT version, details FROM signers WHERE account_id = $1 ORDER BY valid_from"
    versions = await running.rows("orders", sql, UUID(who.subject))
    assert [row["version"] for row in versions] == [1, 2]
    for text in (str(await running.content("orders")), *map(str, running.recorded)):
        assert "11010519491231002X" not in text
        assert "天宁区和平路" not in text


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"phone": "0519-12345678"}, "phone_invalid", "phone"),
        ({"document_number": "110105194912310021"}, "document_invalid", "document_number"),
        ({"address": "  "}, "request_invalid", "address"),
    ],
)
async def test_a_signer_with_a_fault_is_refused(
    running: Harness, changes: dict[str, Any], code: str, field: str
) -> None:
    who = await signed_in(running)
    asked = setting(running, who, mother(**changes))
    await refused_without_a_trace(running, code, asked, who)
    with pytest.raises(RequestRefused) as caught:
        await running.ask(asked, who)
    assert [fault.field for fault in caught.value.problem.errors] == [field]


# --- profile, and who may ask -------------------------------------------------------------------------------------


async def test_a_new_account_shows_what_is_missing(running: Harness) -> None:
    who = await signed_in(running)
    view: ProfileView = await running.ask(ShowProfile(account_id=UUID(who.subject)), who)
    assert (view.children, view.signer, view.missing) == ((), "", ("child", "signer"))


async def test_many_profiles_asked_at_once_each_reach_who_asked(running: Harness) -> None:
    guardians = [await signed_in(running) for _ in range(5)]
    for number, who in enumerate(guardians):
        await running.ask(adding(running, who, numbered(number)), who)
    stranger = Actor(str(new_id()), "guardian")
    shown = [running.ask(ShowProfile(account_id=UUID(who.subject)), who) for who in guardians]
    *views, code = await asyncio.gather(
        *shown, running.refusal(ShowProfile(account_id=UUID(guardians[0].subject)), stranger)
    )
    assert [str(view.account_id) for view in views] == [who.subject for who in guardians]
    assert all(len(view.children) == 1 for view in views)
    assert code == "actor_forbidden"


def about(harness: Harness, who: Actor) -> list[Request]:
    return [
        ShowProfile(account_id=UUID(who.subject)),
        adding(harness, who, child()),
        setting(harness, who, mother()),
    ]


@pytest.mark.parametrize("which", range(3))
async def test_nobody_but_its_guardian_asks_about_a_family(running: Harness, which: int) -> None:
    asked = about(running, await signed_in(running))[which]
    await refused_without_a_trace(running, "actor_unauthenticated", asked)
    roles: tuple[Role, ...] = ("guardian", "institution", "authority", "operator")
    for role in roles:
        stranger = Actor(str(new_id()), role)
        await refused_without_a_trace(running, "actor_forbidden", asked, stranger)


@pytest.mark.parametrize("which", range(3))
async def test_a_token_without_an_account_is_no_sign_in(running: Harness, which: int) -> None:
    nobody = Actor(str(new_id()), "guardian")
    await refused_without_a_trace(running, "actor_unauthenticated", about(running, nobody)[which], nobody)


async def test_an_expired_token_is_refused(running: Harness) -> None:
    who = await signed_in(running)
    then = running.now() - timedelta(hours=13)
    token = issue_token(running.ring("orders"), who, now=then, lifetime_seconds=12 * 3600)
    with pytest.raises(RequestRefused) as caught:
        await running.client.ask(ShowProfile(account_id=UUID(who.subject)), token=token)
    assert caught.value.code == "actor_unauthenticated"


async def test_details_sealed_to_another_service_are_refused(running: Harness) -> None:
    who, ring = await signed_in(running), running.ring("orders")
    account_id = UUID(who.subject)
    for asked in (
        AddChild(account_id=account_id, child_id=new_id(), details=seal(ring, "notify", child())),
        SetSigner(account_id=account_id, details=seal(ring, "notify", mother())),
    ):
        await refused_without_a_trace(running, "sealed_unreadable", asked, who)


# --- what purchases read ------------------------------------------------------------------------------------------


async def test_the_families_of_a_batch_are_read_with_one_statement_for_each_table(running: Harness) -> None:
    whole, childless, nobody, child_id = await signed_in(running), await signed_in(running), new_id(), new_id()
    details = child()
    await running.ask(adding(running, whole, details, child_id), whole)
    for who in (whole, childless):
        await running.ask(setting(running, who, mother()), who)
    await running.ask(setting(running, whole, mother(name="王芳")), whole)

    database, statements = Database(running.dsns["orders"]), list[str]()
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    try:
        async with database.session() as session, session.begin():
            wanted = [UUID(whole.subject), UUID(childless.subject), nobody]
            families = await families_of(UnitOfWork("orders", session, running.ring("orders"), running.now()), wanted)
    finally:
        await database.close()

    assert [sum(f"FROM {table} " in sql for sql in statements) for table in ("accounts", "children", "signers")] == [
        1,
        1,
        1,
    ]
    assert not any("FOR UPDATE" in sql for sql in statements)
    complete, half, empty = (families[account_id] for account_id in wanted)
    assert (set(complete.child_ids), complete.signer_version, list(complete.missing)) == ({child_id}, 2, [])
    assert (half.child_ids, half.signer_version, half.missing) == (frozenset(), 1, ("child",))
    assert (empty.child_ids, empty.signer_version, empty.account) == (frozenset(), 0, None)
    parties = contract_parties(running.ring("orders"), complete, child_id)
    assert (parties.child_name, parties.signer_name) == ("张小明", "王芳")
    assert parties.child_document == f"居民身份证 {details.document_number}"
