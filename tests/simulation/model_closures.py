"""The model of winding up: what goes back, order by order, once an authority has decided that an institution is gone;
see `model.py`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.ids import derived_id
from tests.simulation.model import DIVIDE, HOUR, Orders, Purchase, Refund
from tests.simulation.model_suspense import OPERATOR
from tests.simulation.simulation import ORDERS_AT_ONCE, Heard

VIEW: Final = "orders.windup.view.v1"
GO_ON: Final = "orders.windup.go_on.v1"
NOT_ENROLLED_YET: Final = ("placed", "to_sign", "to_pay", "paying", "held")
ON_ITS_WAY: Final = ("paying", "paid")
"""States of a refund that was decided, and that nothing makes larger."""
TOTALS: Final = ("orders", "lessons", "refund_fen", "given_up", "pending")
MOMENTS: Final = ("started_at", "finished_at")


@dataclass
class WindUp:
    """What there was to do when it was started, and what was done since. `run` counts the starts."""

    run: int
    reason: str
    by: str
    started_at: datetime
    orders: int
    lessons: int
    refund_fen: int
    given_up: int
    pending: int
    done_orders: int = 0
    done_fen: int = 0
    finished_at: datetime | None = None


class Closures(Orders):
    """Orders, and the institutions that an authority has wound up."""

    def __init__(self, institution: str, authority: str, contracts: dict[str, str]) -> None:
        super().__init__(institution, authority, contracts)
        self.wind_ups: dict[str, WindUp] = {}
        self.counts: Counter[str] = Counter()

    def hear(self, m: Heard) -> str:
        """One message."""
        if not m.type.startswith("orders.windup."):
            return super().hear(m)
        institution = m.data["institution_id"]
        known = self.wind_ups.get(institution)
        if m.type == GO_ON:
            if known is not None and known.run == m.data["run"] and known.finished_at is None:
                self._go_on(m, institution, known)
            return ""
        may = (self.authority, OPERATOR) if m.type == "orders.windup.show.v1" else (self.authority,)
        if m.actor not in may:
            return "!actor_forbidden"
        if m.type == "orders.windup.plan.v1":
            return in_words(dict(zip(TOTALS, self._totals(institution), strict=True)))
        if m.type == "orders.windup.show.v1":
            return in_words(vars(known)) if known else "!windup_unknown"
        if known is None or known.finished_at is not None or known.started_at + HOUR <= m.now:
            run, totals = (known.run if known else 0) + 1, self._totals(institution)
            known = self.wind_ups[institution] = WindUp(run, m.data["reason"], m.actor, m.now, *totals)
            self.said[GO_ON, institution] += 1
            self.counts["wound up" if run == 1 else "wound up again"] += 1
        return in_words(vars(known))

    def _of(self, institution: str) -> dict[str, Purchase]:
        """The orders that are known to be of it: a seat was kept, whether or not the family may have it."""
        known = sorted(id_ for id_, p in self.purchases.items() if p.drawn or p.told)
        return {id_: self.purchases[id_] for id_ in known if self.purchases[id_].institution == institution}

    def _totals(self, institution: str) -> tuple[int, int, int, int, int]:
        orders = lessons = fen = given_up = pending = 0
        for p in self._of(institution).values():
            given_up += p.state in NOT_ENROLLED_YET
            if p.state == "enrolled":
                back = goes_back(p)
                orders, lessons = orders + bool(back), lessons + len(back)
                fen += sum(p.lessons[number].fee for number in back)
                pending += sum(lesson.state in ("applied", "objected") for lesson in p.lessons.values())
        return orders, lessons, fen, given_up, pending

    def _go_on(self, m: Heard, institution: str, known: WindUp) -> None:
        after = m.data.get("after") or ""
        orders = [(id_, p) for id_, p in self._of(institution).items() if id_ > after][:ORDERS_AT_ONCE]
        for order, p in orders:
            if p.state in NOT_ENROLLED_YET:
                self.counts[f"wound up: {p.state}"] += 1
                self._give_up(order, p, "institution_gone", m)
            elif p.state == "enrolled" and (back := goes_back(p)):
                known.done_orders += 1
                known.done_fen += sum(p.lessons[number].fee for number in back)
                self._all_back(m, order, p, back)
        if len(orders) == ORDERS_AT_ONCE:
            self.said[GO_ON, institution] += 1
        else:
            known.finished_at = m.now
            self.said["orders.windup.finished.v1", institution] += 1

    def _all_back(self, m: Heard, order: str, p: Purchase, back: list[int]) -> None:
        """In one refund, where the order has none that was decided; else each lesson by itself."""
        one = p.refund
        self.counts[f"wound up: enrolled, refund {one.state if one else 'none'}"] += 1
        self.counts.update(f"wound up: a lesson {lesson.state}" for lesson in p.lessons.values())
        if one is not None and one.state in ON_ITS_WAY:
            for number in back:
                p.lessons[number].state = "divided"
                self.said[DIVIDE, order] += 1
            return
        if one is None or one.state not in ("asked", "contested"):
            id_ = str(derived_id("wind_up", order, len(p.refunds)))
            one = p.refunds[id_] = Refund("asked", back, None)
        one.lessons, one.deduction = back, 0
        self._pay_back(m, order, p, one)


def goes_back(p: Purchase) -> list[int]:
    """The lessons of an order that nobody has filed as taught, and whose fee is not on its way back already."""
    decided = p.refund is not None and p.refund.state in ON_ITS_WAY
    states = ("planned",) if decided else ("planned", "refunding")
    return [number for number, lesson in p.lessons.items() if lesson.state in states]


def in_words(numbers: Mapping[str, Any]) -> str:
    """All that an answer says of a winding up. One that was only planned was not started, and has done nothing."""
    told: dict[str, Any] = dict.fromkeys(MOMENTS) | {"done_orders": 0, "done_fen": 0} | dict(numbers)
    counts = [f"{name} {told[name]}" for name in TOTALS]
    moments = [f"{name} {told[name] and told[name].isoformat()}" for name in MOMENTS]
    return ", ".join([*counts, f"done {told['done_orders']} orders, {told['done_fen']} fen", *moments])


def told_in_words(data: dict[str, Any]) -> str:
    """An answer about a winding up, as the model gives it: to the fen."""
    return in_words(data | {name: datetime.fromisoformat(data[name]) for name in MOMENTS if data.get(name)})
