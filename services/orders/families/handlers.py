"""What families hear."""

from collections.abc import Sequence

from services.orders.families import queries, use_cases
from shared.contracts.envelope import Message
from shared.contracts.orders import AddChild, SetSigner, ShowProfile, SignIn
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(SignIn)
@each
async def on_sign_in(work: UnitOfWork, message: Message[SignIn]) -> None:
    """Signs a phone in; the first time makes its account."""
    await use_cases.sign_in(work, message)


@handlers.on(AddChild)
@each
async def on_add_child(work: UnitOfWork, message: Message[AddChild]) -> None:
    """Adds a child."""
    await use_cases.add_child(work, message)


@handlers.on(SetSigner)
@each
async def on_set_signer(work: UnitOfWork, message: Message[SetSigner]) -> None:
    """Sets who signs."""
    await use_cases.set_signer(work, message)


@handlers.on(ShowProfile)
async def on_show_profile(work: UnitOfWork, messages: Sequence[Message[ShowProfile]]) -> None:
    """Shows families, those of a whole batch read at once."""
    await queries.show_profiles(work, messages)
