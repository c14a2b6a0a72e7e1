"""Two time-outs of the outside world, made short, so that sixty crashes do not cost sixty times six seconds.

Kafka keeps the partitions of a member that died without a word until its session is over (6 s at least), and the SMS
sender does not touch what another one claimed within the last minute. Both are right where nobody can know who is
dead. Here it is known: the process is gone. So its member is taken out of its group, and its leases run out at once;
what happens then is what would have happened later.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ops.stack_layout import PART_NAMES, Stack
from tests.faults.world import Databases, Kafka, databases_of, kafka_of

LOOK_S: Final = 0.05

# Who holds no connection is dead, and so is whoever claimed before the oldest connection there is now.
_END_LEASES: Final = """
UPDATE sms SET claimed_at = claimed_at - interval '1 hour'
WHERE state = 'sending' AND claimed_at > now() - interval '1 minute'
  AND claimed_at < (SELECT coalesce(min(backend_start), now()) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'yike')
"""


@asynccontextmanager
async def haste(stack: Stack) -> AsyncIterator[None]:
    """As long as the block lasts, a process that dies is missed at once."""
    async with kafka_of(stack) as kafka, databases_of(stack) as databases:
        watching = asyncio.create_task(_watch(stack, kafka, databases))
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def _watch(stack: Stack, kafka: Kafka, databases: Databases) -> None:
    known = {service: stack.state(service).pid for service in PART_NAMES}
    while True:
        for service in PART_NAMES:
            pid = stack.state(service).pid
            if pid != known[service]:
                # A new process needs a second to join: whoever is in the group now is the dead one.
                known[service] = pid
                _state, members = await kafka.members(service)
                for member_id in members:
                    await kafka.expel(service, member_id)
        await databases["notify"].execute(_END_LEASES)
        await asyncio.sleep(LOOK_S)
