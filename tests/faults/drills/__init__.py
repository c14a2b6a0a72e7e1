"""The faults of `make faults`, by the name that ONE takes. The numbers are those of the proof issue."""

from typing import Final

from tests.faults.drills import machine, messages, processes, servers
from tests.faults.drills.base import Fault

_IMPATIENT: Final = {"escrow": {"YIKE_MAX_POLL_INTERVAL_MS": "10000"}}

FAULTS: Final[dict[str, Fault]] = {
    "kill-services": Fault(1, processes.kill_services),
    "crash-points": Fault(2, processes.crash_points, puppets=True),
    "kill-broker": Fault(3, servers.kill_broker),
    "restart-broker": Fault(3, servers.restart_broker),
    "broker-away": Fault(3, servers.broker_away),
    "kill-database": Fault(4, servers.kill_database),
    "database-away": Fault(4, servers.database_away),
    "end-backends": Fault(4, servers.end_backends, short=True),
    "lost-commits": Fault(5, servers.lose_commits),
    "send-again": Fault(6, messages.send_again, short=True),
    "ask-at-once": Fault(7, messages.ask_at_once, short=True),
    "reorder": Fault(8, messages.reorder),
    "rebalance": Fault(9, processes.rebalance, short=True),
    "stop-and-go": Fault(10, processes.stop_and_go),
    "poison": Fault(11, messages.poison, short=True),
    "lock-table": Fault(12, servers.lock_table, settings=_IMPATIENT),
    "clocks": Fault(13, machine.clocks),
    "full-postgres": Fault(14, servers.fill_postgres, limited="postgres"),
    "full-kafka": Fault(14, servers.fill_kafka, limited="kafka"),
    "mute": Fault(15, machine.mute),
    "bank": Fault(16, messages.bank),
    "kill-relays": Fault(17, processes.kill_relays, puppets=True),
    "two-copies": Fault(18, processes.two_copies, short=True),
    "roll": Fault(19, processes.roll, puppets=True),
    "lose-the-log": Fault(20, servers.lose_the_log, requests_lost=True),
    "soak": Fault(21, machine.soak, long=True),
}
