"""The institutions of a batch: which are frozen, how each is paid, and where; what is gathered for them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, cast
from uuid import UUID

from sqlalchemy import text

from services.escrow.domain import Account, Gathered, Instruction
from services.escrow.tables import GatheredRow
from shared.banks import next_cut_off
from shared.contracts.envelope import Message
from shared.contracts.escrow import CloseSettlement
from shared.messaging.work import UnitOfWork

# One statement for all there is to know of them; who has chosen nothing has no row.
_PAYEES: Final = text("""
SELECT institution_id, 'frozen' AS what, '' AS bank, '' AS value FROM (
  SELECT institution_id FROM freezes WHERE institution_id = ANY(CAST(:institutions AS uuid[])) AND state = 'frozen'
  ORDER BY institution_id FOR SHARE) f
UNION ALL
SELECT institution_id, 'mode', '', mode FROM (
  SELECT institution_id, mode FROM settlement_modes
  WHERE institution_id = ANY(CAST(:institutions AS uuid[])) AND mode <> 'at_once'
  ORDER BY institution_id FOR SHARE) m
UNION ALL
SELECT institution_id, 'account', bank, payout_account FROM payout_accounts
WHERE institution_id = ANY(CAST(:institutions AS uuid[]))
""")


@dataclass(slots=True)
class Payees:
    """What is known of the institutions of a batch, and what the batch gathers for them."""

    frozen: frozenset[UUID]
    modes: dict[UUID, Literal["daily", "weekly"]]
    """Of those that are not paid at once."""
    accounts: dict[tuple[UUID, str], str]
    """(institution, bank) → where payouts go, if that was changed."""
    gathered: list[Gathered] = field(default_factory=list)
    closing: set[tuple[UUID, str, datetime]] = field(default_factory=set)

    def redirected(self, account: Account) -> str | None:
        """Where payouts of this order go, if not to its own payout account."""
        return self.accounts.get((account.institution_id, account.bank))

    def gathers(self, account: Account, instruction: Instruction) -> bool:
        """Whether this payment goes out with others, at a cut-off."""
        return instruction.kind == "payout" and account.institution_id in self.modes

    def gather(self, work: UnitOfWork, account: Account, instruction: Instruction, cause: Message[Any]) -> None:
        """Puts a payout to the others, and sets the timer of the cut-off: one for all that is gathered until then."""
        one = Gathered(
            order_id=account.order_id,
            lesson_no=instruction.lesson_no,
            institution_id=account.institution_id,
            bank=account.bank,
            supervised_account=account.supervised_account,
            payout_account=self.redirected(account) or account.payout_account,
            amount_fen=instruction.amount_fen,
            gathered_at=work.now,
        )
        self.gathered.append(one)
        due_at = next_cut_off(one.bank, self.modes[one.institution_id], work.now)
        if (one.institution_id, one.bank, due_at) not in self.closing:
            self.closing.add((one.institution_id, one.bank, due_at))
            set_closing(work, one.institution_id, one.bank, due_at, cause)

    def write(self, work: UnitOfWork) -> None:
        """Writes what was gathered."""
        work.insert(GatheredRow, self.gathered)
        self.gathered = []


def set_closing(work: UnitOfWork, institution_id: UUID, bank: str, due_at: datetime, cause: Message[Any]) -> None:
    """Each cut-off has a timer of its own, so that a later lesson never moves an earlier one's."""
    data, subject = CloseSettlement(institution_id=institution_id, bank=bank), _cut_off(institution_id, bank, due_at)
    work.set_timer(data, due_at, cause, subject=subject)


def unset_closing(work: UnitOfWork, institution_id: UUID, bank: str, due_at: datetime) -> None:
    """What is gathered does not go out at this cut-off."""
    work.cancel_timer(CloseSettlement, _cut_off(institution_id, bank, due_at))


def _cut_off(institution_id: UUID, bank: str, due_at: datetime) -> str:
    return f"{institution_id}:{bank}:{due_at.isoformat()}"


async def payees_of(work: UnitOfWork, institution_ids: Iterable[UUID]) -> Payees:
    """How these institutions stand. Those that are frozen, or are paid daily or weekly, stay so until the commit:
    what begins to wait is seen by the thaw, or the choice, that comes after it."""
    institutions = set(institution_ids)
    rows: Sequence[Any] = ()
    if institutions:
        rows = (await (await work.connection()).execute(_PAYEES, {"institutions": list(institutions)})).all()
    return Payees(
        frozen=frozenset(row.institution_id for row in rows if row.what == "frozen"),
        modes={row.institution_id: cast(Any, row.value) for row in rows if row.what == "mode"},
        accounts={(row.institution_id, row.bank): row.value for row in rows if row.what == "account"},
    )
