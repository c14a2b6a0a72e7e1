"""The words of complaints: filings, their routing and their steps."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from shared.contracts import topics
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import Moment, Name, Reason, Text

_REQUESTS = topics.requests("complaints")
_COMMANDS = topics.commands("complaints")
_EVENTS = topics.events("complaints")

FilingKind = Literal["complaint", "report"]
FilingType = Literal[
    "cash",
    "outside_supervised_account",
    "unregistered",
    "outside_platform",
    "prepay_discount",
    "buy_n_get_m",
    "subject_by_non_subject",
    "disguised_child_care",
    "unlicensed_in_homes",
    "missing_disclosure",
    "no_contract",
    "no_invoice",
    "absconding",
    "refund_refused",
]
FilingState = Literal[
    "submitted",
    "accepted",
    "rejected",
    "transferred",
    "in_progress",
    "mediated",
    "filed",
    "unfounded",
    "terminated",
]


class FilingView(Reply, type="complaints.filing.view.v1"):
    """A filing: its number, who handles it, where it stands. The reporter is never shown."""

    filing_id: UUID
    number: str
    kind: FilingKind
    type: FilingType
    area: str
    category: str
    department: str
    hotline: str
    state: FilingState
    state_reason: str
    order_id: UUID | None
    submitted_at: Moment
    act_by: Moment | None


class FileComplaint(Request, type="complaints.file.v1", topic=_REQUESTS, key="filing_id", reply=FilingView):
    """A complaint (投诉, by a signed-in guardian, may be on an order) or a report (举报, may be anonymous).

    Routed by (area, category) to one department and hotline [seed]. A complaint on an order holds its further
    releases until it is closed [local]; a report has no effect on money.
    """

    filing_id: UUID
    kind: FilingKind
    type: FilingType
    area: Name
    category: Name
    institution_name: Annotated[str, Field(max_length=100)] = ""
    order_id: UUID | None = None
    text: Text


class ShowFiling(Request, type="complaints.show.v1", topic=_REQUESTS, key="number", reply=FilingView):
    """A filing's status by its number."""

    number: Annotated[str, Field(min_length=1, max_length=30)]


class MoveFiling(Request, type="complaints.move.v1", topic=_REQUESTS, key="filing_id", reply=FilingView):
    """The authority moves a filing one step on, with a reason; the last steps close it."""

    filing_id: UUID
    state: FilingState
    reason: Reason
    transferred_to: Annotated[str, Field(max_length=100)] = ""


class FilingDeadline(Command, type="complaints.deadline.v1", topic=_COMMANDS, key="filing_id"):
    """Timer: the filing has stood in `state` for as many working days as its clock allows: it is escalated."""

    filing_id: UUID
    state: FilingState


class FilingMoved(Event, type="complaints.filing.moved.v1", topic=_EVENTS, key="filing_id"):
    """A filing was submitted, moved on, or is overdue (`overdue`). `account_id` only of an identified complainant."""

    filing_id: UUID
    number: str
    kind: FilingKind
    account_id: UUID | None
    order_id: UUID | None
    state: FilingState
    department: str
    hotline: str
    overdue: bool = False
