"""The proofs of the books: each finds its kind of damage, none cries over right books; and what PostgreSQL refuses.

All damage is done in transactions that are undone.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from services.escrow import audit
from shared.actors import Actor
from shared.contracts.bank import Instruct
from shared.contracts.catalog import InstitutionFrozen
from shared.contracts.escrow import (
    BookSettlement,
    CancelPayment,
    ChooseSettlement,
    CloseSettlement,
    DivideLesson,
    MatchSuspense,
    RefundOrder,
    ReleaseLesson,
    ResumeReleases,
    ReturnSuspense,
    Settled,
    SuspendReleases,
)
from shared.ids import new_id
from tests.escrowkit import LESSON_FEN, OPERATOR, Escrow, only, result, running
from tests.harness import Harness
from tests.integration.test_escrow_suspense import booked, decide


class Books:
    """Right books with an order of each kind, by name."""

    def __init__(self, dsn: str, orders: dict[str, str]) -> None:
        self.dsn = dsn
        self.orders = orders

    def sql(self, statement: str) -> str:
        """`statement` with the quoted id of an order for {name}."""
        return statement.format(**{name: f"'{order_id}'" for name, order_id in self.orders.items()})

    @asynccontextmanager
    async def changed(self, *statements: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """A connection that sees the books after `statements`; then all is as before."""
        connection = await asyncpg.connect(self.dsn)
        transaction = connection.transaction()
        await transaction.start()
        try:
            for statement in statements:
                status = await connection.execute(self.sql(statement))
                assert not status.endswith(" 0"), f"nothing was changed by {statement}"
            yield connection
        finally:
            await transaction.rollback()
            await connection.close()


async def open_books(escrow: Escrow) -> dict[str, str]:
    """Orders in every state, lessons in every state, open and closed complaints, suspense."""
    fresh, failed, waiting = escrow.collection(), escrow.collection(), await escrow.held()
    held, refunding, refunded = [await escrow.held() for _ in range(3)]
    collect = only(Instruct, await escrow.at_once(fresh))
    await escrow.at_once(failed)
    await escrow.at_once(CancelPayment(order_id=failed.order_id, reason="cancelled"))

    closed = new_id()
    await escrow.at_once(SuspendReleases(order_id=held.order_id, complaint_id=closed))
    await escrow.at_once(ResumeReleases(order_id=held.order_id, complaint_id=closed))
    payouts = [await escrow.payout(held, lesson_no) for lesson_no in (1, 2, 3, 4)]
    await escrow.at_once(result(payouts[1]), result(payouts[2], outcome="refused"), result(payouts[3]))
    await escrow.at_once(result(payouts[3], outcome="returned", reference=f"back-{payouts[3].number}"))

    for ask in (refunding, refunded):
        await escrow.at_once(result(await escrow.payout(ask, 1)))
    for ask in (waiting, refunded):
        await escrow.at_once(SuspendReleases(order_id=ask.order_id, complaint_id=new_id()))
        await escrow.at_once(ReleaseLesson(order_id=ask.order_id, lesson_no=2))
    await escrow.refund(refunding)
    await escrow.at_once(result(await escrow.refund(refunded)))

    wrong = result(collect, amount_fen=1, reference=f"wrong-{collect.number}")
    await escrow.at_once(
        wrong, wrong, result(collect, number=f"unknown-{new_id()}", order_id=None, reference=f"{new_id()}")
    )
    partly, divided, frozen = [await escrow.held() for _ in range(3)]
    part = RefundOrder(order_id=partly.order_id, reason="parent_asked", lessons=(9, 10), deduction_fen=10)
    said = await escrow.at_once(part)
    await escrow.at_once(*(result(one) for one in said if isinstance(one, Instruct) and one.kind == "refund"))
    for lesson_no, release_fen in ((1, 0), (2, 7), (3, LESSON_FEN)):
        await escrow.at_once(DivideLesson(order_id=divided.order_id, lesson_no=lesson_no, release_fen=release_fen))
    freeze = InstitutionFrozen(
        institution_id=frozen.institution_id, change_no=2, until="2027-01-01T00:00:00+08:00", reason="卷款风险"
    )
    await escrow.at_once(freeze)
    await escrow.at_once(ReleaseLesson(order_id=frozen.order_id, lesson_no=1))
    await escrow.at_once(DivideLesson(order_id=frozen.order_id, lesson_no=2, release_fen=7))

    matched = escrow.collection()
    await escrow.at_once(matched)
    receipts = [await booked(escrow) for _ in range(4)]
    match = MatchSuspense(receipt_id=receipts[0].receipt_id, order_id=matched.order_id, reason="转账凭证")
    await escrow.harness.ask(match, OPERATOR)
    backs: list[Instruct] = []  # one on its way, one made, one made that came back
    for receipt in receipts[1:]:
        _, told_back = await decide(escrow, ReturnSuspense(receipt_id=receipt.receipt_id, reason="无主"))
        backs.append(only(Instruct, told_back))
    await escrow.at_once(*(result(one) for one in backs[1:]))
    await escrow.at_once(result(backs[2], outcome="returned", reference=f"back-{backs[2].number}"))

    gathering, settled = await escrow.held(), await escrow.held()
    for ask in (gathering, settled):
        choice = ChooseSettlement(institution_id=ask.institution_id, mode="weekly")
        await escrow.harness.ask(choice, Actor("district-1", "authority"))
        await escrow.at_once(ReleaseLesson(order_id=ask.order_id, lesson_no=1))
    await escrow.at_once(ReleaseLesson(order_id=settled.order_id, lesson_no=2))
    told = only(Instruct, await escrow.at_once(CloseSettlement(institution_id=settled.institution_id, bank="icbc")))
    said = await escrow.at_once(result(told))
    await escrow.harness.until(lambda: escrow.harness.seen(Settled, settled.order_id))
    assert only(BookSettlement, said).step == 1

    named = {"fresh": fresh, "failed": failed, "waiting": waiting, "held": held, "matched": matched}
    named |= {"refunding": refunding, "refunded": refunded}
    named |= {"partly": partly, "divided": divided, "frozen": frozen, "gathering": gathering, "settled": settled}
    return {name: str(ask.order_id) for name, ask in named.items()}


@pytest.fixture(scope="module")
async def books(harness: Harness) -> AsyncIterator[Books]:
    """Right books of a service that runs."""
    async with running(harness) as escrow:
        yield Books(harness.dsns["escrow"], await open_books(escrow))


async def test_right_books_in_all_states_pass_every_proof(books: Books) -> None:
    report = await audit.check(books.dsn)
    assert report.violations == {}
    assert report.good
    assert report.checks == tuple(audit.CHECKS)
    assert report.orders >= len(books.orders)
    assert report.custody_fen > 0
    assert report.suspense_fen > LESSON_FEN


async def test_empty_books_are_right(books: Books) -> None:
    async with books.changed() as connection:
        await connection.execute("""
            TRUNCATE accounts, transfers, instructions, bank_results, suspense, suspensions, gathered, settlements""")
        report = await audit.prove(connection)
    assert report.violations == {}
    assert (report.orders, report.transfers, report.moved_fen) == (0, 0, 0)
    assert (report.paid_fen, report.custody_fen, report.suspense_fen) == (0, 0, 0)


async def test_a_connection_that_breaks_meanwhile_is_its_own_error(books: Books) -> None:
    async with books.changed() as connection:
        broken = await asyncpg.connect(books.dsn)
        await broken.close()
        with pytest.raises(asyncpg.InterfaceError):
            await audit.prove(connection, broken)
        assert (await audit.prove(connection)).good, "the other connection is not at work any more"


async def test_results_that_name_no_order_do_not_disturb_the_proofs(books: Books) -> None:
    async with books.changed(
        "UPDATE bank_results SET order_id = NULL", "UPDATE suspense SET order_id = NULL"
    ) as connection:
        assert (await audit.prove(connection)).violations == {}


async def test_no_more_places_are_shown_than_a_person_reads(books: Books) -> None:
    many = """INSERT INTO bank_results SELECT gen_random_uuid(), NULL, 'n', 'payout', 'paid', 1, 'icbc', 'r', '',
              now(), now(), 'conflict' FROM generate_series(1, 30)"""
    async with books.changed(many) as connection:
        violations = (await audit.prove(connection)).violations
    assert violations == {"no payment contradicts the books": ["n r"] * audit.MOST_SHOWN}


_TRANSFER = "INSERT INTO transfers (order_id, lesson_no, kind, turn, phase, debit, credit, amount_fen, made_at) VALUES"
_INSTRUCTION = """INSERT INTO instructions
    (order_id, lesson_no, kind, attempt, turn, state, amount_fen, reference, asks, returned, changed_at) VALUES"""
_OPENED = "UPDATE suspense SET state = 'open', matched_order_id = NULL"
_OF_HELD = "WHERE order_id = {held} AND lesson_no ="
_COLLECT_OF_HELD = "WHERE number LIKE 'C%' AND verdict = 'applied' AND order_id = {held}"

_GATHERED = "each gathered lesson is a payout of its order and follows its settlement"

DAMAGE = [
    # proof, at which order, what was done to the tables
    ("every transfer is a movement the rules know", "held", f"UPDATE transfers SET credit = 'paid' {_OF_HELD} 0"),
    ("every transfer is a movement the rules know", "held", f"UPDATE transfers SET debit = 'refunded' {_OF_HELD} 1"),
    ("every transfer is a movement the rules know", "held", f"UPDATE transfers SET turn = 1 {_OF_HELD} 0"),
    ("every transfer is a movement the rules know", "held", f"UPDATE transfers SET turn = -1 {_OF_HELD} 1"),
    ("every transfer is a movement the rules know", "held", f"UPDATE transfers SET kind = 'gift' {_OF_HELD} 1"),
    (
        "every transfer is a movement the rules know",
        "refunding",
        "UPDATE transfers SET phase = 2 WHERE order_id = {refunding} AND kind = 'refund'",
    ),
    ("every transfer is a movement the rules know", "held", f"UPDATE transfers SET lesson_no = 5 {_OF_HELD} 0"),
    (
        "stored balances = sum of transfers",
        "held",
        "UPDATE accounts SET held_fen = held_fen - 1, released_fen = released_fen + 1 WHERE order_id = {held}",
    ),
    ("stored balances = sum of transfers", "refunded", "DELETE FROM transfers WHERE order_id = {refunded}"),
    ("stored balances = sum of transfers", "waiting", "DELETE FROM accounts WHERE order_id = {waiting}"),
    (
        "stored balances = sum of transfers",
        "fresh",
        f"{_TRANSFER} ({{fresh}}, 0, 'hold', 0, 2, 'outside', 'held', 100001, now())",
    ),
    (
        "per order paid = held + releasing + released + refunding + refunded",
        "refunded",
        "DELETE FROM transfers WHERE order_id = {refunded} AND kind = 'refund' AND phase = 1",
    ),
    (
        "per order paid = held + releasing + released + refunding + refunded",
        "held",
        f"UPDATE transfers SET credit = 'lost' {_OF_HELD} 1",
    ),
    (
        "each lesson is released at most once",
        "held",
        f"{_TRANSFER} ({{held}}, 1, 'release', 1, 1, 'held', 'releasing', {LESSON_FEN}, now())",
    ),
    (
        "each lesson is released at most once",
        "held",
        f"{_TRANSFER} ({{held}}, 2, 'release', 1, 2, 'releasing', 'released', {LESSON_FEN}, now())",
    ),
    # Another lesson's money made good for it: the balances of the order do not notice.
    ("each lesson is released at most once", "held", f"DELETE FROM transfers {_OF_HELD} 2 AND phase = 1"),
    ("each lesson is released at most once", "held", f"DELETE FROM transfers {_OF_HELD} 4 AND turn = 0 AND phase = 2"),
    (
        "each lesson that was decided is decided at its price",
        "held",
        f"UPDATE transfers SET amount_fen = amount_fen + 1 {_OF_HELD} 2",
    ),
    (
        "each lesson that was decided is decided at its price",
        "held",
        f"{_TRANSFER} ({{held}}, 11, 'release', 0, 1, 'held', 'releasing', {LESSON_FEN}, now())",
    ),
    (
        "each lesson that was decided is decided at its price",
        "divided",
        "UPDATE transfers SET amount_fen = 8 WHERE order_id = {divided} AND lesson_no = 2 AND kind = 'release'",
    ),
    (
        "each lesson that was decided is decided at its price",
        "frozen",
        "UPDATE instructions SET amount_fen = 8 WHERE order_id = {frozen} AND lesson_no = 2 AND kind = 'payout'",
    ),
    (
        "no lesson is both released and refunded",
        "refunded",
        f"{_INSTRUCTION} ({{refunded}}, 5, 'payout', 0, 0, 'waiting', {LESSON_FEN}, '', 0, '[]', now())",
    ),
    (
        "no lesson is both released and refunded",
        "refunding",
        "UPDATE instructions SET amount_fen = amount_fen - 1 WHERE order_id = {refunding} AND kind = 'refund'",
    ),
    (
        "no lesson is both released and refunded",
        "partly",
        "UPDATE accounts SET given_back = '[8, 9, 10]' WHERE order_id = {partly}",
    ),
    (
        "no lesson is both released and refunded",
        "divided",
        "UPDATE accounts SET given_back = '[1, 2]' WHERE order_id = {divided}",
    ),
    (
        "what an institution keeps of a refund has a refund",
        "partly",
        "DELETE FROM instructions WHERE order_id = {partly} AND kind = 'refund'",
    ),
    (
        "every pending transfer is a payment on its way",
        "held",
        f"UPDATE instructions SET state = 'paid' {_OF_HELD} 1",
    ),
    ("every pending transfer is a payment on its way", "held", f"UPDATE instructions SET turn = 0 {_OF_HELD} 4"),
    ("every pending transfer is a payment on its way", "held", f"UPDATE instructions SET amount_fen = 1 {_OF_HELD} 3"),
    (
        "every pending transfer is a payment on its way",
        "refunding",
        "DELETE FROM instructions WHERE order_id = {refunding} AND kind = 'refund'",
    ),
    (
        "every payment on its way is a transfer",
        "held",
        f"{_INSTRUCTION} ({{held}}, 9, 'payout', 0, 0, 'sent', {LESSON_FEN}, '', 0, '[]', now())",
    ),
    (
        "every payment on its way is a transfer",
        "waiting",
        "UPDATE instructions SET state = 'sent' WHERE order_id = {waiting} AND kind = 'payout'",
    ),
    ("every payment on its way is a transfer", "held", f"UPDATE instructions SET state = 'dropped' {_OF_HELD} 1"),
    ("every payment made is booked, and nothing else", "held", f"UPDATE instructions SET state = 'paid' {_OF_HELD} 3"),
    ("every payment made is booked, and nothing else", "held", f"UPDATE instructions SET state = 'sent' {_OF_HELD} 2"),
    ("every payment made is booked, and nothing else", "held", f"UPDATE instructions SET state = 'sent' {_OF_HELD} 0"),
    ("every payment made is booked, and nothing else", "held", f"UPDATE instructions SET amount_fen = 1 {_OF_HELD} 0"),
    (
        "the state of an order agrees with its money",
        "held",
        "UPDATE accounts SET state = 'refunded' WHERE order_id = {held}",
    ),
    (
        "the state of an order agrees with its money",
        "held",
        "UPDATE accounts SET state = 'failed' WHERE order_id = {held}",
    ),
    (
        "the state of an order agrees with its money",
        "refunding",
        "UPDATE accounts SET state = 'held' WHERE order_id = {refunding}",
    ),
    (
        "the state of an order agrees with its money",
        "refunded",
        "UPDATE accounts SET state = 'refunding' WHERE order_id = {refunded}",
    ),
    (
        "the state of an order agrees with its money",
        "fresh",
        "UPDATE accounts SET state = 'held' WHERE order_id = {fresh}",
    ),
    (
        "releases wait for open complaints and frozen institutions only",
        "waiting",
        "UPDATE suspensions SET ended = true WHERE order_id = {waiting}",
    ),
    (
        "releases wait for open complaints and frozen institutions only",
        "waiting",
        "UPDATE accounts SET suspensions = 0 WHERE order_id = {waiting}",
    ),
    (
        "releases wait for open complaints and frozen institutions only",
        "held",
        "UPDATE accounts SET suspensions = 1 WHERE order_id = {held}",
    ),
    (
        "releases wait for open complaints and frozen institutions only",
        "held",
        f"UPDATE instructions SET state = 'waiting' {_OF_HELD} 2",
    ),
    ("releases wait for open complaints and frozen institutions only", "frozen", "DELETE FROM freezes"),
    ("custody per bank = what its results say", "", f"UPDATE bank_results SET bank = 'abc' {_COLLECT_OF_HELD}"),
    ("custody per bank = what its results say", "", f"DELETE FROM bank_results {_COLLECT_OF_HELD}"),
    ("custody per bank = what its results say", "", f"UPDATE bank_results SET amount_fen = 1 {_COLLECT_OF_HELD}"),
    ("custody per bank = what its results say", "", "DELETE FROM suspense WHERE order_id = {fresh}"),
    ("custody per bank = what its results say", "", "UPDATE suspense SET state = 'open' WHERE state = 'returned'"),
    ("custody per bank = what its results say", "", "DELETE FROM bank_results WHERE number LIKE 'S%'"),
    ("every payment held came from its bank, or was matched", "matched", f"{_OPENED} WHERE state = 'matched'"),
    (
        "every payment held came from its bank, or was matched",
        "matched",
        "UPDATE suspense SET matched_order_id = {held} WHERE state = 'matched'",
    ),
    (
        "every payment held came from its bank, or was matched",
        "",
        "UPDATE accounts SET paid_reference = 'another' WHERE order_id = {held}",
    ),
    (
        "every payment held came from its bank, or was matched",
        "",
        "UPDATE suspense SET state = 'matched', matched_order_id = {fresh} WHERE order_id = {fresh}",
    ),
    ("what goes back of suspense is an instruction, and nothing else", "", f"{_OPENED} WHERE state = 'returning'"),
    (
        "what goes back of suspense is an instruction, and nothing else",
        "",
        "UPDATE suspense SET state = 'returned' WHERE order_id = {fresh}",
    ),
    (
        "what goes back of suspense is an instruction, and nothing else",
        "",
        "UPDATE instructions SET amount_fen = 1 WHERE kind = 'return' AND state = 'sent'",
    ),
    (
        "what goes back of suspense is an instruction, and nothing else",
        "",
        "UPDATE instructions SET state = 'sent' WHERE kind = 'return' AND state = 'dropped'",
    ),
    (
        "what goes back of suspense is an instruction, and nothing else",
        "",
        f"{_INSTRUCTION} ('{new_id()}', 0, 'return', 0, 0, 'sent', 1, '', 0, '[]', now())",
    ),
    ("custody per bank = what its results say", "", "UPDATE settlements SET booked_step = 0, amount_fen = 1"),
    (_GATHERED, "gathering", "DELETE FROM gathered WHERE order_id = {gathering}"),
    (_GATHERED, "gathering", "UPDATE gathered SET amount_fen = 1 WHERE order_id = {gathering}"),
    (_GATHERED, "gathering", "UPDATE gathered SET bank = 'abc' WHERE order_id = {gathering}"),
    (
        _GATHERED,
        "gathering",
        "UPDATE instructions SET state = 'sent' WHERE order_id = {gathering} AND kind = 'payout'",
    ),
    (_GATHERED, "settled", "UPDATE gathered SET settlement_id = NULL WHERE order_id = {settled} AND lesson_no = 1"),
    (_GATHERED, "settled", "UPDATE settlements SET supervised_account = 'S-2'"),
    (_GATHERED, "settled", "DELETE FROM settlements"),
    ("a settlement is the sum of its lessons", "", "UPDATE settlements SET amount_fen = amount_fen + 1"),
    ("a settlement is the sum of its lessons", "", "UPDATE settlements SET lessons = lessons + 1"),
    (
        "a settlement is the sum of its lessons",
        "",
        """UPDATE gathered SET settlement_id = (SELECT settlement_id FROM settlements LIMIT 1)
           WHERE order_id = {gathering}""",
    ),
    (
        _GATHERED,
        "settled",
        "UPDATE instructions SET state = 'gathered', reference = '' WHERE order_id = {settled} AND lesson_no = 2",
    ),
    (
        _GATHERED,
        "settled",
        "UPDATE instructions SET turn = 1 WHERE order_id = {settled} AND lesson_no = 2",
    ),
    (
        _GATHERED,
        "settled",
        "UPDATE instructions SET reference = 'other' WHERE order_id = {settled} AND lesson_no = 2",
    ),
    (_GATHERED, "settled", "UPDATE settlements SET state = 'sent', booked_step = 0"),
    ("a settlement is paid if its bank says so", "", "UPDATE settlements SET state = 'sent'"),
    ("a settlement is paid if its bank says so", "", "DELETE FROM bank_results WHERE number LIKE 'G%'"),
    ("a settlement is paid if its bank says so", "", "UPDATE bank_results SET amount_fen = 1 WHERE number LIKE 'G%'"),
    ("a settlement is paid if its bank says so", "", "DELETE FROM settlements"),
    ("money that belongs nowhere is suspense", "", "DELETE FROM suspense WHERE order_id = {fresh}"),
    ("money that belongs nowhere is suspense", "", "UPDATE suspense SET amount_fen = 2 WHERE order_id = {fresh}"),
    ("money that belongs nowhere is suspense", "", "DELETE FROM bank_results WHERE order_id = {fresh}"),
    (
        "each movement at a bank is booked once",
        "",
        f"UPDATE bank_results SET reference = (SELECT reference FROM suspense LIMIT 1) {_COLLECT_OF_HELD}",
    ),
    (
        "each movement at a bank is booked once",
        "",
        f"""UPDATE bank_results SET reference = (SELECT paid_reference FROM accounts WHERE order_id = {{refunded}})
            {_COLLECT_OF_HELD}""",
    ),
    ("no payment contradicts the books", "", f"UPDATE bank_results SET verdict = 'conflict' {_COLLECT_OF_HELD}"),
]


def test_every_proof_is_tested() -> None:
    assert {proof for proof, _, _ in DAMAGE} == set(audit.CHECKS)


@pytest.mark.parametrize(("proof", "order", "statement"), DAMAGE, ids=[proof for proof, _, _ in DAMAGE])
async def test_damage_is_found_by_its_proof(books: Books, proof: str, order: str, statement: str) -> None:
    async with books.changed(statement) as connection:
        report = await audit.prove(connection)
    assert not report.good
    assert report.violations[proof]
    if order:
        assert {place.split()[0] for place in report.violations[proof]} == {books.orders[order]}


async def test_a_lesson_moved_to_a_refunded_order_by_careful_hands_is_found(books: Books) -> None:
    """All rows that one proof looks at are made to agree: the others still find it."""
    async with books.changed(
        f"{_TRANSFER} ({{refunded}}, 5, 'release', 0, 1, 'held', 'releasing', {LESSON_FEN}, now())",
        f"{_INSTRUCTION} ({{refunded}}, 5, 'payout', 0, 0, 'sent', {LESSON_FEN}, '', 0, '[]', now())",
        f"UPDATE transfers SET amount_fen = amount_fen + {LESSON_FEN} WHERE order_id = {{refunded}} AND kind = 'hold'",
        f"""UPDATE accounts SET price_fen = price_fen + {LESSON_FEN}, paid_fen = paid_fen + {LESSON_FEN},
            releasing_fen = releasing_fen + {LESSON_FEN} WHERE order_id = {{refunded}}""",
    ) as connection:
        violations = (await audit.prove(connection)).violations
    assert "stored balances = sum of transfers" not in violations
    assert "no lesson is both released and refunded" in violations


# --- what PostgreSQL refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "statement"),
    [
        ("accounts_balanced_check", "UPDATE accounts SET held_fen = held_fen + 1 WHERE order_id = {held}"),
        ("accounts_balanced_check", "UPDATE accounts SET paid_fen = 0 WHERE order_id = {held}"),
        (
            "accounts_no_overdraft_check",
            "UPDATE accounts SET refunding_fen = -1, held_fen = held_fen + 1 WHERE order_id = {held}",
        ),
        (
            "accounts_no_overdraft_check",
            "UPDATE accounts SET held_fen = -1, released_fen = released_fen + held_fen + 1 WHERE order_id = {held}",
        ),
        ("accounts_paid_whole_check", "UPDATE accounts SET paid_fen = 1, held_fen = 1 WHERE order_id = {fresh}"),
        ("accounts_priced_check", "UPDATE accounts SET price_fen = 0 WHERE order_id = {fresh}"),
        ("accounts_priced_check", "UPDATE accounts SET lessons = 0 WHERE order_id = {fresh}"),
        ("accounts_state_check", "UPDATE accounts SET state = 'lost' WHERE order_id = {fresh}"),
        ("accounts_pkey", "INSERT INTO accounts SELECT * FROM accounts WHERE order_id = {held}"),
        ("transfers_pkey", "INSERT INTO transfers SELECT * FROM transfers WHERE order_id = {held} AND lesson_no = 1"),
        ("transfers_positive_check", "UPDATE transfers SET amount_fen = 0 WHERE order_id = {held}"),
        ("transfers_positive_check", "UPDATE transfers SET amount_fen = -1 WHERE order_id = {held}"),
        ("transfers_two_sides_check", "UPDATE transfers SET credit = debit WHERE order_id = {held}"),
        ("transfers_phase_check", "UPDATE transfers SET phase = 3 WHERE order_id = {waiting}"),
        ("instructions_pkey", "INSERT INTO instructions SELECT * FROM instructions WHERE order_id = {held}"),
        ("instructions_kind_check", "UPDATE instructions SET kind = 'gift' WHERE order_id = {fresh}"),
        ("instructions_state_check", "UPDATE instructions SET state = 'lost' WHERE order_id = {fresh}"),
        ("instructions_positive_check", "UPDATE instructions SET amount_fen = 0 WHERE order_id = {fresh}"),
        ("gathered_pkey", "INSERT INTO gathered SELECT * FROM gathered"),
        ("gathered_positive_check", "UPDATE gathered SET amount_fen = 0"),
        (
            "settlements_number_key",
            """INSERT INTO settlements SELECT (r).* FROM (
               SELECT json_populate_record(s, json_build_object('settlement_id', gen_random_uuid())) AS r
               FROM settlements s) copies""",
        ),
        ("settlements_state_check", "UPDATE settlements SET state = 'lost'"),
        ("settlements_positive_check", "UPDATE settlements SET lessons = 0"),
        ("settlement_modes_mode_check", "UPDATE settlement_modes SET mode = 'yearly'"),
        ("suspense_pkey", "INSERT INTO suspense SELECT * FROM suspense"),
        ("suspense_positive_check", "UPDATE suspense SET amount_fen = 0"),
        ("suspense_state_check", "UPDATE suspense SET state = 'lost' WHERE state = 'open'"),
        ("suspense_matched_check", "UPDATE suspense SET state = 'matched' WHERE state = 'open'"),
        ("suspense_matched_check", "UPDATE suspense SET matched_order_id = {fresh} WHERE state = 'open'"),
        ("suspensions_pkey", "INSERT INTO suspensions SELECT * FROM suspensions"),
    ],
)
async def test_postgresql_refuses_what_the_rules_must_never_let_through(
    books: Books, constraint: str, statement: str
) -> None:
    async with books.changed() as connection:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as caught:
            await connection.execute(books.sql(statement))
    assert caught.value.constraint_name == constraint
