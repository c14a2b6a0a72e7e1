"""Contacts and notices: what is written when a phone becomes known, or when its owner is to be told something."""

from collections.abc import Iterable, Mapping, Sequence
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
from shared.contracts.notify import ContactNamed, NameContact, Phone, SetContact
from shared.contracts.orders import LessonConfirmed, LessonObjected, LessonWaiting
from shared.documents import normalise_phone
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.sealing import encrypt_at_rest, keyed_hash, unseal
from shared.working_days import next_waking_time

log = structlog.get_logger()

# Sorted, so that two batches about the same recipients wait for each other and never deadlock. The row is locked even
# where nothing changes: who inserts a notice for one without a contact holds that lock until he has committed.
_SET_CONTACTS: Final = text("""
INSERT INTO contacts AS c (recipient_id, phone, phone_hash, changed_at)
SELECT u.recipient_id, u.phone, u.phone_hash, :now
FROM unnest(CAST(:recipient_id AS uuid[]), CAST(:phone AS text[]), CAST(:phone_hash AS bytea[]))
  AS u (recipient_id, phone, phone_hash) ORDER BY u.recipient_id
ON CONFLICT (recipient_id) DO UPDATE SET phone = excluded.phone, phone_hash = excluded.phone_hash, changed_at = :now
  WHERE c.phone_hash IS DISTINCT FROM excluded.phone_hash
RETURNING recipient_id
""")

# What waited for the contact is released; what is queued goes to the new phone.
_RELEASE: Final = text("""
UPDATE sms SET state = 'queued', phone = u.phone,
  not_before = CASE WHEN state = 'no_contact' THEN greatest(not_before, :waking) ELSE not_before END
FROM unnest(CAST(:recipient AS text[]), CAST(:phone AS text[])) AS u (recipient, phone)
WHERE sms.recipient = u.recipient AND lane = 'notice' AND state IN ('no_contact', 'queued')
""")

_KNOWN_OR_WAITING: Final = text("""
INSERT INTO contacts AS c (recipient_id, changed_at)
SELECT u.recipient_id, :now FROM unnest(CAST(:recipient_id AS uuid[])) AS u (recipient_id) ORDER BY u.recipient_id
ON CONFLICT (recipient_id) DO UPDATE SET recipient_id = excluded.recipient_id RETURNING c.recipient_id, c.phone
""")

_DROP: Final = text("""
UPDATE sms SET state = 'dropped', reason = :reason, phone = NULL, finished_at = :now
FROM unnest(CAST(:recipient AS text[]), CAST(:purpose AS text[]), CAST(:subject AS text[]))
  AS u (recipient, purpose, subject)
WHERE sms.recipient = u.recipient AND sms.purpose = u.purpose AND sms.subject = u.subject
  AND state IN ('no_contact', 'queued')
""")


@dataclass(slots=True)
class Contact:
    """The phone of an account or an institution, encrypted; None as long as it was not told."""

    recipient_id: UUID
    phone: str | None


async def set_contacts(work: UnitOfWork, messages: Sequence[Message[SetContact]]) -> None:
    """Keeps the phones of accounts."""
    told: dict[UUID, str] = {}
    for message in messages:
        with work.answering(message):
            try:
                told[message.data.account_id] = _phone(work, message)
            except Refused as refused:
                # Who sends commands may not listen for a refusal: this account will not be told anything.
                log.error("contact not kept", account=str(message.data.account_id), code=refused.code)
                raise
    await _keep(work, told)


async def name_contacts(work: UnitOfWork, messages: Sequence[Message[NameContact]]) -> None:
    """Keeps the phones of institutions. Each names its own and nobody else does, as with its payout account."""
    told: dict[UUID, str] = {}
    for message in messages:
        with work.answering(message):
            institution_id = message.data.institution_id
            work.actor(message, "institution", subject=institution_id)
            told[institution_id] = _phone(work, message)
            work.reply(message, ContactNamed(institution_id=institution_id))
    await _keep(work, told)


def _phone(work: UnitOfWork, message: Message[SetContact] | Message[NameContact]) -> str:
    """Raises Refused: sealed_unreadable, phone_invalid."""
    return normalise_phone(unseal(work.ring, message.data.phone, Phone).phone)


async def _keep(work: UnitOfWork, told: Mapping[UUID, str]) -> None:
    """Writes the phones and releases the notices that waited for them. The same phone again changes nothing."""
    if not told:
        return
    encrypted = {recipient: encrypt_at_rest(work.ring, phone) for recipient, phone in told.items()}
    connection = await work.connection()
    parameters = {
        "recipient_id": list(told),
        "phone": list(encrypted.values()),
        "phone_hash": [keyed_hash(work.ring, phone) for phone in told.values()],
        "now": work.now,
    }
    changed = (await connection.execute(_SET_CONTACTS, parameters)).scalars().all()
    if changed:
        released = {
            "recipient": [str(recipient) for recipient in changed],
            "phone": [encrypted[recipient] for recipient in changed],
            "waking": next_waking_time(work.now),
        }
        await connection.execute(_RELEASE, released)


async def remind(work: UnitOfWork, found: Iterable[Notice | None]) -> None:
    """Queues the notices, each at most once; those of recipients without a contact wait for it. None tells nobody."""
    notices = [notice for notice in found if notice is not None]
    if not notices:
        return
    phones = await phones_of(work, {notice.recipient_id for notice in notices})
    rows = [notice_sms(new_id(), notice, phones[notice.recipient_id], work.now) for notice in notices]
    work.insert(SmsRow, rows, ignore_existing=True)


async def phones_of(work: UnitOfWork, recipients: Iterable[UUID]) -> dict[UUID, str | None]:
    """The encrypted phones of `recipients`; None for one that has none, and then nobody can set it before we commit.

    Without that lock a contact could be set between our look and our insert, and release everything but our notice.
    """
    wanted = set(recipients)
    known = await work.load(ContactRow, Contact, wanted, lock=False)
    phones = {recipient: contact.phone for recipient, contact in known.items()}
    waiting = [recipient for recipient in wanted if phones.get(recipient) is None]
    if waiting:
        parameters = {"recipient_id": waiting, "now": work.now}
        rows = await (await work.connection()).execute(_KNOWN_OR_WAITING, parameters)
        phones.update((row.recipient_id, row.phone) for row in rows)
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
    asked = [message.data for message in messages for _ in purposes]
    parameters = {
        "recipient": [str(lesson.account_id) for lesson in asked],
        "purpose": [*purposes] * len(messages),
        "subject": [lesson_subject(lesson.order_id, lesson.lesson_no) for lesson in asked],
        "reason": reason,
        "now": work.now,
    }
    await (await work.connection()).execute(_DROP, parameters)
