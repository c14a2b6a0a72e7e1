"""Message → use case. No SQL, no rules."""

from collections.abc import Sequence

from services.catalog import queries, use_cases
from shared.contracts.catalog import (
    ExpireSeat,
    ExtendSeat,
    FreezeDeadline,
    FreezeInstitution,
    GiveBackSeat,
    LookUpInstitution,
    PublishCourse,
    RegisterInstitution,
    ReserveSeat,
    SearchCourses,
    SetInstitutionState,
    ShowCourse,
    TakeSeat,
    ThawInstitution,
    UpdateDisclosure,
)
from shared.contracts.envelope import Message
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("catalog")


@handlers.on(RegisterInstitution)
@each
async def on_register_institution(work: UnitOfWork, message: Message[RegisterInstitution]) -> None:
    """An authority enters an institution."""
    await use_cases.register_institution(work, message)


@handlers.on(UpdateDisclosure)
@each
async def on_update_disclosure(work: UnitOfWork, message: Message[UpdateDisclosure]) -> None:
    """An authority enters what an institution discloses."""
    await use_cases.update_disclosure(work, message)


@handlers.on(SetInstitutionState)
@each
async def on_set_institution_state(work: UnitOfWork, message: Message[SetInstitutionState]) -> None:
    """An authority lists, suspends or closes an institution."""
    await use_cases.set_institution_state(work, message)


@handlers.on(FreezeInstitution)
@each
async def on_freeze_institution(work: UnitOfWork, message: Message[FreezeInstitution]) -> None:
    """An authority freezes an institution."""
    await use_cases.freeze_institution(work, message)


@handlers.on(ThawInstitution)
@each
async def on_thaw_institution(work: UnitOfWork, message: Message[ThawInstitution]) -> None:
    """An authority lifts a freeze."""
    await use_cases.thaw_institution(work, message)


@handlers.on(FreezeDeadline)
@each
async def on_freeze_deadline(work: UnitOfWork, message: Message[FreezeDeadline]) -> None:
    """The time of a freeze is over."""
    await use_cases.end_freeze(work, message)


@handlers.on(LookUpInstitution)
async def on_look_up_institution(work: UnitOfWork, messages: Sequence[Message[LookUpInstitution]]) -> None:
    """Anybody asks whether institutions are registered."""
    await queries.look_up_institutions(work, messages)


@handlers.on(PublishCourse)
@each
async def on_publish_course(work: UnitOfWork, message: Message[PublishCourse]) -> None:
    """An institution offers a course."""
    await use_cases.publish_course(work, message)


@handlers.on(ShowCourse)
async def on_show_course(work: UnitOfWork, messages: Sequence[Message[ShowCourse]]) -> None:
    """Anybody looks at courses."""
    await queries.show_courses(work, messages)


@handlers.on(SearchCourses)
async def on_search_courses(work: UnitOfWork, messages: Sequence[Message[SearchCourses]]) -> None:
    """Anybody looks for courses."""
    await queries.search_courses(work, messages)


@handlers.on(ReserveSeat)
async def on_reserve_seat(work: UnitOfWork, messages: Sequence[Message[ReserveSeat]]) -> None:
    """Purchases begin."""
    await use_cases.reserve_seats(work, messages)


@handlers.on(TakeSeat)
async def on_take_seat(work: UnitOfWork, messages: Sequence[Message[TakeSeat]]) -> None:
    """Purchases are paid."""
    await use_cases.take_seats(work, messages)


@handlers.on(GiveBackSeat)
async def on_give_back_seat(work: UnitOfWork, messages: Sequence[Message[GiveBackSeat]]) -> None:
    """Purchases have ended."""
    await use_cases.give_back_seats(work, messages)


@handlers.on(ExtendSeat)
async def on_extend_seat(work: UnitOfWork, messages: Sequence[Message[ExtendSeat]]) -> None:
    """Purchases wait for a bank."""
    await use_cases.extend_seats(work, messages)


@handlers.on(ExpireSeat)
async def on_expire_seat(work: UnitOfWork, messages: Sequence[Message[ExpireSeat]]) -> None:
    """The time of reservations is over."""
    await use_cases.expire_seats(work, messages)
