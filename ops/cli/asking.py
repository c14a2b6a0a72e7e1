"""Asking a service as a gateway does, over Kafka, with a token of the stack's keys, an operator's or authority's."""

import asyncio
import getpass
from typing import Annotated, Final, TypeVar

from aiokafka.errors import KafkaError
from cyclopts import Parameter

from ops.cli.base import FOUND, NO_STACK, NOT_FOUND, WRONG_CALL, CommandError
from ops.cli.site import Found, clock_now
from shared.actors import Actor, Role, issue_token
from shared.contracts.envelope import Reply, Request
from shared.keys import KeyRing, KeysError
from shared.messaging.rpc import GatewayClient, OutcomeUnknown, RequestRefused

R = TypeVar("R", bound=Reply)

GATEWAY: Final = "ops"
ANSWER_S: Final = 15.0
OPEN_S: Final = 20.0
TOKEN_S: Final = 300
REASON_CHARACTERS: Final = 500


def _reason(_: type, given: str) -> None:
    if not 1 <= len(given.strip()) <= REASON_CHARACTERS:
        raise ValueError(f"a reason has 1 to {REASON_CHARACTERS} characters")


Reason = Annotated[str, Parameter(validator=_reason)]
"""Why a decision was made, as the contracts take it."""


def whoever() -> str:
    """Who sits at this machine: what a decision is recorded under, unless another name is given."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "operator"


async def ask(found: Found, request: Request, answer: type[R], by: str = "", role: Role = "operator") -> R:
    """Asks as `by` in `role` and returns the answer. Raises CommandError: refused, or no answer came."""
    try:
        actor = Actor(by or whoever(), role)
    except ValueError as error:
        raise CommandError(f"That is no {role}'s name: {error}", "Give one with --by.", WRONG_CALL) from None
    try:
        ring = KeyRing.load(found.keys, "ops")
        token = issue_token(ring, actor, now=await clock_now(found.admin_dsn), lifetime_seconds=TOKEN_S)
    except KeysError as error:
        raise CommandError(str(error), "The keys of a stack are made by `yike up` or `yike keys`.") from None
    return await ask_with(found, token, request, answer)


async def ask_with(found: Found, token: str, request: Request, answer: type[R]) -> R:
    """Asks with a token that somebody was given. Raises CommandError as `ask`."""
    client = GatewayClient(found.client_settings, GATEWAY)
    try:
        async with asyncio.timeout(OPEN_S + ANSWER_S), client:
            reply = await client.ask(request, token=token, timeout_s=ANSWER_S)
    except RequestRefused as refused:
        status = NOT_FOUND if refused.problem.status == 404 else FOUND
        figures = ", ".join(f"{name} {value}" for name, value in refused.problem.figures.items())
        raise CommandError(f"Refused: {refused}", figures, status) from None
    except OutcomeUnknown:
        hint = "It may be done all the same: look, then say it again; nothing is done twice. `yike status` tells more."
        raise CommandError(f"No answer within {ANSWER_S:.0f} s.", hint, NO_STACK) from None
    except (TimeoutError, KafkaError) as error:
        hint = "`yike status` says whether it is up; `yike topics ensure` makes topics that are missing."
        raise CommandError(f"Kafka does not answer: {error}", hint, NO_STACK) from None
    if not isinstance(reply, answer):
        raise CommandError(f"An answer that was not expected: {reply.TYPE}", "Is this command as new as the services?")
    return reply
