"""What the stand-in bank hears: instructions and its own timers. Loads the book, lets it decide, writes it once."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import text

from ops.bank.behaviour import Behaviour, meet
from ops.bank.book import OUTSIDE, Account, Book, Entry, Key, Said, accounts_of
from ops.bank.tables import AccountRow, BehaviourRow, EntryRow
from shared.contracts.bank import ActLater, Instruct
from shared.contracts.envelope import Message
from shared.messaging.handlers import Handlers
from shared.messaging.work import UnitOfWork

handlers = Handlers("bank")

_ACTIVE: Final = text("""
SELECT id, name, kind, order_id, number_prefix, percentage, times_left, seconds, delta_fen, reason FROM behaviours
WHERE times_left IS NULL OR times_left > 0 ORDER BY id FOR UPDATE
""")


@handlers.on(Instruct)
async def on_instruct(work: UnitOfWork, messages: Sequence[Message[Instruct]]) -> None:
    """Collects, pays out, refunds; each number once."""
    active = await _behaviours(work)
    asked = [message.data for message in messages]
    numbers = {(one.bank, number) for one in asked for number in (one.number, one.refund_of) if number}
    collected = {(one.bank, one.refund_of) for one in asked if one.kind == "refund" and one.refund_of}
    accounts = {key for one in asked for key in accounts_of(one)}
    references = {one.refund_reference for one in asked if one.refund_reference}
    for came in await work.load_all(EntryRow, Entry, references, by=("reference",), lock=False):
        numbers.add((came.bank, came.number))
        collected.add((came.bank, came.number))
        accounts.add((came.bank, came.to_account))
    book = await _open(work, numbers, accounts, collected)
    used: dict[Any, Behaviour] = {}
    for message in messages:
        one = message.data
        behaviour = None
        if active:
            behaviour = meet(active, one, message.id, known=bool(book.entries_of(one.bank, one.number)))
        if behaviour is not None and behaviour.times_left is not None:
            used[behaviour.id] = behaviour
        _say(work, message, one.bank, one.number, book.instruct(one, behaviour, work.now))
    work.update(BehaviourRow, used.values(), "times_left")
    await _write(work, book)


@handlers.on(ActLater)
async def on_act_later(work: UnitOfWork, messages: Sequence[Message[ActLater]]) -> None:
    """What was put off is due."""
    numbers = {(message.data.bank, message.data.number) for message in messages}
    known = await work.load_all(EntryRow, Entry, numbers, by=("bank", "number"), lock=False)
    accounts = {(e.bank, name) for e in known for name in (e.from_account, e.to_account) if name != OUTSIDE}
    book = await _open(work, numbers, accounts)
    for message in messages:
        due = message.data
        _say(work, message, due.bank, due.number, book.act(due.bank, due.number, due.act, work.now))
    await _write(work, book)


async def _behaviours(work: UnitOfWork) -> list[Behaviour]:
    rows = await (await work.connection()).execute(_ACTIVE)
    return [Behaviour(*row) for row in rows]


async def _open(
    work: UnitOfWork, numbers: Collection[Key], accounts: Collection[Key], collected: Collection[Key] = ()
) -> Book:
    """The book for these numbers and accounts. Accounts are locked first: whoever waits for one then sees all entries.

    `collected` are numbers of collections to be paid back: what was paid back of them before is loaded too.
    """
    found = await work.load(AccountRow, Account, accounts)
    if missing := [Account(*key) for key in sorted(set(accounts) - found.keys())]:
        work.insert(AccountRow, missing, ignore_existing=True)
        found = await work.load(AccountRow, Account, accounts)
    entries = await work.load_all(EntryRow, Entry, numbers, by=("bank", "number"), lock=False)
    refunds = await work.load_all(EntryRow, Entry, collected, by=("bank", "refund_of"), lock=False)
    return Book(found.values(), entries, refunds)


async def _write(work: UnitOfWork, book: Book) -> None:
    work.insert(EntryRow, book.written)
    work.update(AccountRow, book.changed, "balance_fen")


def _say(work: UnitOfWork, message: Message[Any], bank: str, number: str, said: Said) -> None:
    for result in said.results:
        work.send(result, message)
    for later in said.later:
        data = ActLater(order_id=message.data.order_id, bank=bank, number=number, act=later.act)
        work.set_timer(data, later.due_at, message, subject=f"{bank}/{number}/{later.act}")
