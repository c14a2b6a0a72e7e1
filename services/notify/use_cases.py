"""Contacts and notices: what is written when an account is told about, or when something is to be told to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import text

from services.notify.domain import Notice, notice_sms
from services.notify.reminders import LESSON_WAITING, LESSON_WAITING_LATER, lesson_subject
from services.notify.tables import ContactRow, SmsRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import Settled
from shared.contracts.notify import Phone, SetContact
from shared.contracts.orders import LessonConfirmed, LessonObjected, LessonWaiting
from shared.documents import normalise_phone
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.sealing import encrypt_at_rest, keyed_hash, unseal
from shared.working_days import next_waking_time

log = structlog.get_logger()

# Sorted, so that two batches about the same accounts wait for each other and never deadlock. The row is locked even
# where nothing changes: who inserts a notice for an account without a contact holds that lock until he has committed.
_SET_CONTACTS: Final = text("""
INSERT INTO contacts AS c (account_id, phone, phone_hash, changed_at)
SELECT u.account_id, u.phone, u.phone_hash, :now
FROM unnest(CAST(:account_id AS uuid[]), CAST(:phone AS text[]), CAST(:phone_hash AS bytea[]))
  AS u (account_id, phone, phone_hash) ORDER BY u.account_id
ON CONFLICT (account_id) DO UPDATE SET phone = excluded.phone, phone_hash = excluded.phone_hash, changed_at = :now
  WHERE c.phone_hash IS DISTINCT FROM excluded.phone_hash
RETURNING account_id
""")

# What waited for the contact is released; what is queued goes to the new phone.
_RELEASE: Final = text("""
UPDATE sms SET state = 'queued', phone = u.phone,
  not_before = CASE WHEN state = 'no_contact' THEN greatest(not_before, :waking) ELSE not_before END
FROM unnest(CAST(:recipient AS text[]), CAST(:phone AS text[])) AS u (recipient, phone)
WHERE sms.recipient = u.recipient AND lane = 'notice' AND state IN ('no_contact', 'queued')
""")

_KNOWN_OR_WAITING: Final = text("""
INSERT INTO contacts AS c (account_id, changed_at)
SELECT u.account_id, :now FROM unnest(CAST(:account_id AS uuid[])) AS u (account_id) ORDER BY u.account_id
ON CONFLICT (account_id) DO UPDATE SET account_id = excluded.account_id RETURNING c.account_id, c.phone
""")

_DROP: Final = text("""
UPDATE sms SET state = 'dropped', reason = :reason, phone = NULL, finished_at = :now
FROM unnest(CAST(:recipient AS text[]), CAST(:subject AS text[])) AS u (recipient, subject)
WHERE sms.recipient = u.recipient AND purpose = ANY(CAST(:purposes AS text[])) AND sms.subject = u.subject
  AND state IN ('no_contact', 'queued')
""")


@dataclass(slots=True)
class Contact:
    """An account's phone, encrypted; None as long as it was not told."""

    account_id: UUID
    phone: str | None


async def set_contacts(work: UnitOfWork, messages: Sequence[Message[SetContact]]) -> None:
    """Keeps the phones and releases the notices that waited for them. The same phone again changes nothing."""
    told: dict[UUID, tuple[str, bytes]] = {}
    for message in messages:
        with work.answering(message):
            try:
                phone = normalise_phone(unseal(work.ring, message.data.phone, Phone).phone)
            except Refused as refused:
                # Who sends commands may not listen for a refusal: this account will not be told anything.
                log.error("contact not kept", account=str(message.data.account_id), code=refused.code)
                raise
            told[message.data.account_id] = encrypt_at_rest(work.ring, phone), keyed_hash(work.ring, phone)
    if not told:
        return
    accounts = list(told)
    connection = await work.connection()
    parameters = {
        "account_id": accounts,
        "phone": [told[account][0] for account in accounts],
        "phone_hash": [told[account][1] for account in accounts],
        "now": work.now,
    }
    changed = (await connection.execute(_SET_CONTACTS, parameters)).scalars().all()
    if changed:
        released = {
            "recipient": [str(account) for account in changed],
            "phone": [told[account][0] for account in changed],
            "waking": next_waking_time(work.now),
        }
        await connection.execute(_RELEASE, released)


async def remind(work: UnitOfWork, notices: Sequence[Notice]) -> None:
    """Queues the notices, each at most once; those of accounts without a contact wait for it."""
    if not notices:
        return
    phones = await phones_of(work, {notice.account_id for notice in notices})
    rows = [notice_sms(new_id(), notice, phones[notice.account_id], work.now) for notice in notices]
    work.insert(SmsRow, rows, ignore_existing=True)


async def phones_of(work: UnitOfWork, accounts: Iterable[UUID]) -> dict[UUID, str | None]:
    """The encrypted phones of `accounts`; None for one that has none, and then nobody can set it before we commit.

    Without that lock a contact could be set between our look and our insert, and release everything but our notice.
    """
    wanted = set(accounts)
    known = await work.load(ContactRow, Contact, wanted, lock=False)
    phones = {account: contact.phone for account, contact in known.items()}
    waiting = [account for account in wanted if phones.get(account) is None]
    if waiting:
        parameters = {"account_id": waiting, "now": work.now}
        rows = await (await work.connection()).execute(_KNOWN_OR_WAITING, parameters)
        phones.update((row.account_id, row.phone) for row in rows)
    return phones


EVERY_REMINDER: Final = (LESSON_WAITING, *LESSON_WAITING_LATER.values())

AboutLesson = (
    Sequence[Message[LessonObjected]]
    | Sequence[Message[LessonConfirmed]]
    | Sequence[Message[LessonWaiting]]
    | Sequence[Message[Settled]]
)


async def drop_answered(work: UnitOfWork, messages: AboutLesson, purposes: Sequence[str] = (LESSON_WAITING,)) -> None:
    """Drops "waits for your confirmation" where it was not sent yet (at night) and the lesson was answered since."""
    await _drop(work, messages, purposes, "answered")


async def drop_overtaken(work: UnitOfWork, messages: Sequence[Message[LessonWaiting]]) -> None:
    """Drops earlier reminders that were not sent until a later one came: a sender that stood still for days sends one
    of them."""
    for reminder in LESSON_WAITING_LATER:
        of_this = [message for message in messages if message.data.reminder == reminder]
        earlier = EVERY_REMINDER[: EVERY_REMINDER.index(LESSON_WAITING_LATER[reminder])]
        await _drop(work, of_this, earlier, "overtaken")


async def _drop(work: UnitOfWork, messages: AboutLesson, purposes: Sequence[str], reason: str) -> None:
    if not messages:
        return
    parameters = {
        "recipient": [str(message.data.account_id) for message in messages],
        "subject": [lesson_subject(message.data.order_id, message.data.lesson_no) for message in messages],
        "purposes": list(purposes),
        "reason": reason,
        "now": work.now,
    }
    await (await work.connection()).execute(_DROP, parameters)
