"""The rules of complaints, pure: who may file, which step follows which, how long each may take.

Every function first refuses and only then changes the filing it was given.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from shared.contracts.complaints import FileComplaint, FilingKind, FilingState, FilingType
from shared.contracts.errors import FieldError, Refused
from shared.policy import ComplaintClocks
from shared.working_days import add_working_days, shanghai

MOST_HOPS: Final = 3
"""How often a filing may be handed on before somebody must decide [ours]."""

CLOSED: Final[frozenset[FilingState]] = frozenset({"rejected", "mediated", "filed", "unfounded", "terminated"})

_ENDS: Final[frozenset[FilingState]] = frozenset({"mediated", "filed", "unfounded", "terminated"})
_FIRST: Final[frozenset[FilingState]] = frozenset({"accepted", "rejected", "transferred"})
STEPS: Final[dict[FilingState, frozenset[FilingState]]] = {
    "submitted": _FIRST,
    # Who is handed a filing decides anew, or goes to work at once.
    "transferred": _FIRST | {"in_progress"},
    "accepted": frozenset({"in_progress"}),
    "in_progress": _ENDS,
}
"""submitted → accepted | rejected | transferred → in_progress → mediated | filed | unfounded | terminated [DOMAIN]."""

# 32 signs that a person can read out and not mix up (Crockford): no I, L, O, U.
_SIGNS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKALIKES: Final = str.maketrans("OIL", "011")
_NUMBER_SIGNS: Final = 12
_PREFIX: Final[dict[FilingKind, str]] = {"complaint": "TS", "report": "JB"}


@dataclass(slots=True)
class Filing:
    """A complaint or report; see `tables.FilingRow`."""

    filing_id: UUID
    number: str
    kind: FilingKind
    type: FilingType
    area: str
    category: str
    department: str
    hotline: str
    account_id: UUID | None
    order_id: UUID | None
    content: str
    content_hash: bytes
    state: FilingState
    state_reason: str
    submitted_at: datetime
    act_by: datetime | None
    overdue: int = 0
    hops: int = 0
    steps: int = 0


CHANGING: Final = ("department", "hotline", "state", "state_reason", "act_by", "overdue", "hops", "steps")
"""The columns that a step may change."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the history; see `tables.StepRow`."""

    filing_id: UUID
    step_no: int
    from_state: str
    to_state: str
    overdue: bool
    reason: str
    department: str
    decided_by: str
    happened_at: datetime


@dataclass(slots=True)
class Order:
    """Whose order it is."""

    order_id: UUID
    account_id: UUID


def check_filing(asked: FileComplaint, account_id: UUID | None, order: Order | None) -> None:
    """Refuses a complaint without a guardian, a report on an order, and an order that is not the complainant's."""
    if asked.kind == "complaint" and account_id is None:
        raise Refused("complaint_needs_guardian")
    if asked.order_id is None:
        return
    if asked.kind == "report":
        message = "举报不关联订单；涉及本人订单的，请另行投诉"
        raise Refused("request_invalid", message, errors=[FieldError(field="order_id", message=message)])
    if order is None:
        raise Refused("order_unknown")
    if order.account_id != account_id:
        raise Refused("actor_forbidden")


def filing_number(kind: FilingKind, secret: bytes, day: date) -> str:
    """The number a person is given: TS20261123-7K3QFM-2X9ABD, report JB….

    60 bits of `secret` (a keyed hash of the filing's id): the same for the same filing, and not to be guessed.
    """
    bits = int.from_bytes(secret[:8])
    signs = "".join(_SIGNS[bits >> 5 * place & 31] for place in range(_NUMBER_SIGNS))
    return f"{_PREFIX[kind]}{day:%Y%m%d}-{signs[:6]}-{signs[6:]}"


def as_number(typed: str) -> str:
    """A number as typed or read out, in the form it was given: small letters, O for 0, I and L for 1, no hyphens."""
    bare = "".join(sign for sign in typed.upper() if sign.isalnum())
    head, signs = bare[:10], bare[10:].translate(_LOOKALIKES)
    return f"{head}-{signs[:6]}-{signs[6:]}"


def clock_working_days(clocks: ComplaintClocks, filing: Filing) -> int:
    """Working days for the present state: to accept; then to mediate a complaint, or to check a report, once longer.

    [law: 市场监督管理投诉举报处理暂行办法: 受理 7, 调解 45, 核查 15 + 15]
    """
    if filing.state in ("submitted", "transferred"):
        return clocks.accept_working_days
    if filing.kind == "complaint":
        return clocks.mediate_working_days
    return clocks.check_extension_working_days if filing.overdue else clocks.check_working_days


def start(filing: Filing, clocks: ComplaintClocks, now: datetime) -> Step:
    """The first line of the history, and the first clock."""
    filing.act_by = add_working_days(now, clock_working_days(clocks, filing))
    return _note(filing, "", "", "", now)


def is_same_step(filing: Filing, state: FilingState, reason: str, transferred_to: str) -> bool:
    """Whether the filing stands where that very step has brought it: asked again, not a new step."""
    return (
        filing.state == state
        and filing.state_reason == reason
        and (state != "transferred" or filing.department == transferred_to)
    )


def move(
    filing: Filing,
    state: FilingState,
    reason: str,
    *,
    to: tuple[str, str] | None,
    decided_by: str,
    clocks: ComplaintClocks,
    now: datetime,
) -> Step:
    """One step on. `to`: department and hotline of a transfer, needed for that and for nothing else.

    The law counts mediating and checking from the acceptance, so going to work does not start the clock again.
    """
    _refuse_illegal(filing, state)
    if (to is None) == (state == "transferred"):
        message = "移送时须写明移送至哪个部门，其他步骤不得填写"
        raise Refused("request_invalid", message, errors=[FieldError(field="transferred_to", message=message)])
    before = filing.state
    filing.state, filing.state_reason = state, reason
    if to is not None:
        filing.department, filing.hotline = to
        filing.hops += 1
    if state in CLOSED:
        filing.act_by = None
    elif before != "accepted":
        filing.overdue = 0
        filing.act_by = add_working_days(now, clock_working_days(clocks, filing))
    return _note(filing, before, reason, decided_by, now)


def _refuse_illegal(filing: Filing, state: FilingState) -> None:
    allowed = STEPS.get(filing.state, frozenset())
    if filing.kind == "report":
        allowed -= {"mediated"}  # there is nobody to mediate between
    if state == "transferred" and filing.hops >= MOST_HOPS:
        allowed -= {"transferred"}
    if state not in allowed:
        raise Refused(
            "complaint_state",
            f"{filing.state} → {state}",
            state=filing.state,
            allowed=", ".join(sorted(allowed)),
            hops=filing.hops,
        )


def pass_deadline(filing: Filing, state: FilingState, clocks: ComplaintClocks, now: datetime) -> Step | None:
    """The deadline of `state` has passed: noted once, and a new one set. None if that is not so (any more)."""
    if filing.state != state or filing.act_by is None or now < filing.act_by:
        return None
    filing.overdue += 1
    filing.act_by = add_working_days(now, clock_working_days(clocks, filing))
    return _note(filing, filing.state, "", "", now, overdue=True)


def _note(filing: Filing, before: str, reason: str, decided_by: str, now: datetime, *, overdue: bool = False) -> Step:
    step = Step(
        filing_id=filing.filing_id,
        step_no=filing.steps,
        from_state=before,
        to_state=filing.state,
        overdue=overdue,
        reason=reason,
        department=filing.department,
        decided_by=decided_by,
        happened_at=now,
    )
    filing.steps += 1
    return step


def submitted_on(now: datetime) -> date:
    """The Shanghai date that stands in a number."""
    return shanghai(now).date()
