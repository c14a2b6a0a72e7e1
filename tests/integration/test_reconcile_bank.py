"""The stand-in bank's own statement, in both forms, against instructions and ledger that it has played with."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.bank import statements as bank_files
from services.escrow.statements import StatementFile
from shared.contracts.escrow import CollectPayment, ReleaseLesson
from shared.working_days import SHANGHAI
from tests.escrowkit import LESSON_FEN, PRICE_FEN, Escrow
from tests.harness import Harness
from tests.integration.test_reconcile import Bank


@pytest.fixture(scope="module")
async def escrow(harness: Harness) -> AsyncIterator[Escrow]:
    async with harness.service("bank"), harness.service("escrow") as service:
        yield Escrow(harness, service)


@pytest.mark.parametrize("form", ["csv", "camt053"])
async def test_the_stand_in_banks_statement_fits_in_both_forms(escrow: Escrow, tmp_path: Path, form: Any) -> None:
    harness = escrow.harness
    bank = Bank(escrow, tmp_path)
    today = harness.now().astimezone(SHANGHAI).date()
    ask = escrow.collection(account=bank.account)
    await escrow.tell(ask)
    await harness.until(lambda: paid_instructions(escrow, ask, 1))
    await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=1))
    await harness.until(lambda: paid_instructions(escrow, ask, 2))
    path = tmp_path / "statement"
    with path.open("w", encoding="utf-8", newline="") as out:
        assert await bank_files.write(harness.dsns["bank"], bank.code, today, form, out) == 2
    file = StatementFile.open(path, today)
    assert file.form == form
    view = await bank.load(file)
    assert view.no_breaks, await bank.breaks(today)
    assert (view.in_fen, view.out_fen, view.closing_fen) == (PRICE_FEN, LESSON_FEN, PRICE_FEN - LESSON_FEN)

    tomorrow = today + timedelta(days=1)
    with path.open("w", encoding="utf-8", newline="") as out:
        assert await bank_files.write(harness.dsns["bank"], bank.code, tomorrow, form, out) == 0
    view = await bank.load(StatementFile.open(path, tomorrow))
    assert (view.no_breaks, view.opening_fen) == (True, PRICE_FEN - LESSON_FEN)


async def paid_instructions(escrow: Escrow, ask: CollectPayment, count: int) -> bool:
    """Whether so many of an order's instructions are paid."""
    return list((await escrow.instructions(ask)).values()).count("paid") == count
