"""Field types shared by contracts. Everything has a limit."""

from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared.money import Fen

Word = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_.-]*$")]
"""A machine's word: a state, a region, a bank's code."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Text = Annotated[str, StringConstraints(max_length=2000)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
LessonNo = Annotated[int, Field(strict=True, ge=1, le=40_000)]
"""Which lesson of an order, from 1. Far above the legal limit (60, `policy.py`): as much as a bank number holds."""
PartNo = Annotated[int, Field(strict=True, ge=0, le=40_000)]
"""A lesson of an order; 0: of refunds the order's one sum, of payouts and invoices what the institution keeps of it."""
Count = Annotated[int, Field(strict=True, ge=1, le=40_000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
InstructionNumber = Annotated[str, StringConstraints(min_length=1, max_length=30, pattern=r"^[0-9A-Za-z-]+$")]
PageSize = Annotated[int, Field(strict=True, ge=1, le=100)]
Moment = AwareDatetime


class Part(BaseModel):
    """A part of a contract's data."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LessonTime(Part):
    """One planned lesson: its number from 1 and when it is taught (UTC)."""

    lesson_no: LessonNo
    starts_at: Moment
    ends_at: Moment


class InstitutionKey(Part):
    """A place in what is listed by institution: by district (by its code points), then by the institution's id."""

    district: Annotated[str, StringConstraints(max_length=100)] = ""
    institution_id: UUID


class RefundTerms(Part):
    """What the contract lets the institution keep on a later refund (GF-2021-2604): a penalty in basis points of what
    goes back, and materials that were handed out and used, up to their price."""

    full_refund_days: Annotated[int, Field(strict=True, ge=7, le=365)] = 7
    penalty_basis_points: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 0
    materials_fen: Fen = 0


__all__ = [
    "UUID",
    "Count",
    "InstitutionKey",
    "InstructionNumber",
    "LessonNo",
    "LessonTime",
    "Moment",
    "Name",
    "PageSize",
    "Part",
    "PartNo",
]
__all__ += ["Reason", "RefundTerms", "Sha256", "Text", "Word"]
