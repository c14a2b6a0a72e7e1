"""What is shown of a filing."""

from collections.abc import Sequence

from services.complaints.domain import Filing, as_number
from services.complaints.tables import FilingRow
from shared.contracts.complaints import FilingView, ShowFiling
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.messaging.work import UnitOfWork


def view(filing: Filing, *, with_order: bool) -> FilingView:
    """A filing without its reporter and its text. The order (`with_order`) would tell an institution who complains."""
    return FilingView(
        filing_id=filing.filing_id,
        number=filing.number,
        kind=filing.kind,
        type=filing.type,
        area=filing.area,
        category=filing.category,
        department=filing.department,
        hotline=filing.hotline,
        state=filing.state,
        state_reason=filing.state_reason,
        order_id=filing.order_id if with_order else None,
        submitted_at=filing.submitted_at,
        act_by=filing.act_by,
    )


async def show(work: UnitOfWork, messages: Sequence[Message[ShowFiling]]) -> None:
    """Answers by number, to whoever holds it; the order only to its complainant and to the authority."""
    numbers = {as_number(message.data.number) for message in messages}
    found = await work.load(FilingRow, Filing, numbers, by=("number",), lock=False)
    for message in messages:
        with work.answering(message):
            actor = work.actor(message) if message.actortoken else None
            filing = found.get(as_number(message.data.number))
            if filing is None:
                raise Refused("complaint_unknown")
            complainant = filing.account_id is not None and actor is not None and actor.role == "guardian"
            own = complainant and actor is not None and actor.subject == str(filing.account_id)
            with_order = own or (actor is not None and actor.role == "authority")
            work.reply(message, view(filing, with_order=with_order))
