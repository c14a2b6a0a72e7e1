"""The model of catalog's institution: when it is frozen, and whose seats may have been kept; see `model.py`."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from tests.simulation.model import DAY, Said, Timers
from tests.simulation.model_banks import Banks
from tests.simulation.simulation import Heard

FREEZE_TIMER: Final = "catalog.institution.freeze_deadline.v1"
FREEZE_AT_MOST: Final = 183 * DAY


class Catalog:
    """The freezes of the one institution. `offered`: orders that asked for a seat while it could sell, `turned_away`:
    those that asked while it was frozen."""

    def __init__(self, authority: str, banks: Banks) -> None:
        self.authority = authority
        self.banks = banks
        self.frozen_until: datetime | None = None
        self.offered: set[str] = set()
        self.turned_away: set[str] = set()
        self.timers: Timers = {}
        self.said: Said = Counter()
        self.counts: Counter[str] = Counter()

    def hear(self, m: Heard) -> str:
        """One message."""
        match m.type:
            case "catalog.institution.freeze.v1" | "catalog.institution.thaw.v1" if m.actor != self.authority:
                return "!actor_forbidden"
            case "catalog.institution.freeze.v1":
                return self._freeze(m, m.data["institution_id"], datetime.fromisoformat(m.data["until"]))
            case "catalog.institution.thaw.v1":
                self.timers.pop((FREEZE_TIMER, m.data["institution_id"]), None)
                self._thaw(m, "thawed by the authority")
            case "catalog.institution.freeze_deadline.v1" if self.frozen_until and self.frozen_until <= m.now:
                self._thaw(m, "thawed: its time was over")
            case "catalog.seat.reserve.v1":
                frozen = self.frozen_until is not None and m.now < self.frozen_until
                (self.turned_away if frozen else self.offered).add(m.data["order_id"])
                self.banks.sell(m.data["order_id"])
            case "catalog.institution.disclose.v1":
                return self.banks.disclose(m)
        return "listed"

    def _freeze(self, m: Heard, institution: str, until: datetime) -> str:
        if until != self.frozen_until:
            if not timedelta() < until - m.now <= FREEZE_AT_MOST:
                return "!freeze_until"
            self.counts["frozen" if self.frozen_until is None else "frozen until another time"] += 1
            self.frozen_until = self.timers[FREEZE_TIMER, institution] = until
            self.said["catalog.institution.frozen.v1", institution] += 1
        return "listed"

    def _thaw(self, m: Heard, how: str) -> None:
        if self.frozen_until is not None:
            self.frozen_until = None
            self.said["catalog.institution.thawed.v1", m.data["institution_id"]] += 1
            self.counts[how] += 1
