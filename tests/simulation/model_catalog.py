"""The model of catalog's institution: when it is closed or frozen, whose seats may have been kept; see `model.py`."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from tests.simulation.model import DAY, Said, Timers
from tests.simulation.model_banks import Banks
from tests.simulation.simulation import Heard

FREEZE_TIMER: Final = "catalog.institution.freeze_deadline.v1"
FREEZE_AT_MOST: Final = 183 * DAY
ACTS: Final = (*("catalog.institution.set_state.v1", "catalog.institution.freeze.v1", "catalog.institution.thaw.v1"),)
"""An authority's, and nobody else's."""
STEPS: Final = (("listed", "suspended"), ("suspended", "listed"), ("suspended", "closed"))


class Catalog:
    """Whether the one institution may sell; its neighbours always may. `offered`: orders that asked for a seat while it
    could, `turned_away`: those that asked while it could not."""

    def __init__(self, authority: str, banks: Banks) -> None:
        self.authority = authority
        self.banks = banks
        self.state, self.reason = "listed", ""
        self.frozen_until: datetime | None = None
        self.offered: set[str] = set()
        self.turned_away: set[str] = set()
        self.timers: Timers = {}
        self.said: Said = Counter()
        self.counts: Counter[str] = Counter()

    def hear(self, m: Heard) -> str:
        """One message."""
        match m.type:
            case type_ if type_ in ACTS and m.actor != self.authority:
                return "!actor_forbidden"
            case "catalog.institution.set_state.v1":
                return self._set_state(m, m.data["institution_id"], m.data["state"], m.data["reason"])
            case "catalog.institution.freeze.v1":
                return self._freeze(m, m.data["institution_id"], datetime.fromisoformat(m.data["until"]))
            case "catalog.institution.thaw.v1":
                self.timers.pop((FREEZE_TIMER, m.data["institution_id"]), None)
                self._thaw(m, "thawed by the authority")
            case "catalog.institution.freeze_deadline.v1" if self.frozen_until and self.frozen_until <= m.now:
                self._thaw(m, "thawed: its time was over")
            case "catalog.seat.reserve.v1":
                frozen = self.frozen_until is not None and m.now < self.frozen_until
                may_sell = m.data["course_id"] in self.banks.neighbours or (self.state == "listed" and not frozen)
                (self.offered if may_sell else self.turned_away).add(m.data["order_id"])
                self.banks.sell(m.data["order_id"], m.data["course_id"])
            case "catalog.institution.disclose.v1":
                return self.banks.disclose(m, self.state)
        return self.state

    def _set_state(self, m: Heard, institution: str, state: str, reason: str) -> str:
        if (self.state, self.reason) != (state, reason):
            if (self.state, state) not in STEPS:
                return "!institution_state"
            if state == "listed" and self.banks.disclosed is None:
                return "!institution_undisclosed"
            self.state, self.reason = state, reason
            self.said["catalog.institution.changed.v1", institution] += 1
            self.counts[f"institutions {state}"] += 1
        return self.state

    def _freeze(self, m: Heard, institution: str, until: datetime) -> str:
        if until != self.frozen_until:
            if self.state == "closed":
                return "!institution_state"
            if not timedelta() < until - m.now <= FREEZE_AT_MOST:
                return "!freeze_until"
            self.counts["frozen" if self.frozen_until is None else "frozen until another time"] += 1
            self.frozen_until = self.timers[FREEZE_TIMER, institution] = until
            self.said["catalog.institution.frozen.v1", institution] += 1
        return self.state

    def _thaw(self, m: Heard, how: str) -> None:
        if self.frozen_until is not None:
            self.frozen_until = None
            self.said["catalog.institution.thawed.v1", m.data["institution_id"]] += 1
            self.counts[how] += 1
