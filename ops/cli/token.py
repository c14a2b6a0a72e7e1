"""`yike token`: a token for an actor who does not sign in by SMS, for development."""

from datetime import timedelta
from typing import Annotated, Literal

from cyclopts import Parameter

from ops.cli.base import DONE, USUAL, WRONG_CALL, CommandError, Common
from ops.cli.site import Found, clock_now
from ops.cli.when import span
from shared.actors import Actor, issue_token
from shared.keys import KeyRing, KeysError


async def token(
    role: Literal["institution", "authority", "bank", "operator"],
    subject: str,
    *,
    scope: Annotated[tuple[str, ...], Parameter(name="--scope", negative="")] = (),
    lifetime: str = "8h",
    common: Common = USUAL,
) -> int:
    """Issue an actor's token, signed with the operator's key, and print it.

    For development: in production an identity provider stands behind the gateways. A guardian's token comes from
    signing in, and from nowhere else. The token is valid by the stack's own clock.

    For example:

        yike token institution 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11
        yike token authority changzhou --lifetime 30m
        TOKEN=$(yike token operator me)

    Parameters
    ----------
    role
        Who the actor is.
    subject
        Its id: for an institution its institution_id, else a name without spaces.
    scope
        A word that widens or narrows what the role may do; may be given several times.
    lifetime
        How long it is valid, such as 8h or 7d; at most 31d.
    """
    found = Found(common)
    seconds = int(span(lifetime).total_seconds())
    now = await clock_now(found.admin_dsn)
    try:
        ring = KeyRing.load(found.keys, "ops")
        issued = issue_token(ring, Actor(subject, role, frozenset(scope)), now=now, lifetime_seconds=seconds)
    except KeysError as error:
        raise CommandError(str(error), "The keys of a stack are made by `yike up` or `yike keys`.") from None
    except ValueError as error:
        raise CommandError(str(error), status=WRONG_CALL) from None
    data = {"token": issued, "role": role, "subject": subject, "expires_at": now + timedelta(seconds=seconds)}
    # Bare, never wrapped: it goes into a shell's variable.
    common.show(data, lambda _: print(issued))
    return DONE
