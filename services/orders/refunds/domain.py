"""The rules of refunds, pure: what goes back, who has a say, and what follows when somebody is silent.

One refund of an order at a time, and one that is paid: it takes every lesson nobody has filed as taught, and these
lessons cannot be filed, confirmed or released any more. [ours] unless a rule says else.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from services.orders.lessons.domain import Lesson
from shared.contracts.errors import Refused
from shared.contracts.orders import QuoteLine, RefundGround, RefundState
from shared.contracts.types import RefundTerms
from shared.money import yuan
from shared.policy import Policy
from shared.working_days import add_working_days

OPEN: Final = frozenset({"asked", "contested", "paying"})
"""States of a refund that is not over."""
LET_GO: Final = frozenset({"rejected", "withdrawn"})
"""States of a refund that came to nothing: its lessons may be taught, and asked back again."""
PENDING: Final = frozenset({"applied", "objected"})
"""States of a lesson that was filed as taught and is not decided."""
UNTAUGHT: Final = frozenset({"planned", "refunding"})
"""States of a lesson that nobody has filed as taught, asked back or not."""
LOOK_AGAIN_WORKING_DAYS: Final = 5
"""So often an authority that has not decided, and a bank that has not paid, is named as overdue again [ours]."""

_FULL: Final = "付款后{days}日内且未开课，全额退费 [law] 最高人民法院预付式消费司法解释(2025-05-01)第14条; 合同约定期限"
_UNTAUGHT: Final = "未消课时按合同单价退费 [law] GF-2021-2604"
_PENALTY: Final = "合同违约金 {points} 个基点 [law] GF-2021-2604"
_FAULT: Final = "因机构原因不能履行，不作扣除 [law] GF-2021-2604"


@dataclass(slots=True)
class Refund:
    """One refund. `lessons` go back; `fee_fen` is their price, of which the institution keeps `deduction_fen`.

    `act_by` is when its state is late: the institution's answer, the authority's decision, the bank's payment.
    `kept_paid_at`: when the institution has received what it keeps.
    """

    refund_id: UUID
    order_id: UUID
    account_id: UUID
    institution_id: UUID
    state: RefundState
    ground: RefundGround
    lessons: list[int]
    fee_fen: int
    deduction_fen: int
    materials_fen: int
    reason: str
    asked_at: datetime
    act_by: datetime | None
    answer: str = ""
    decision: str = ""
    decided_by: str = ""
    overdue: bool = False
    trouble: str = ""
    closed_at: datetime | None = None
    kept_paid_at: datetime | None = None

    @property
    def refund_fen(self) -> int:
        """What the guardian gets."""
        return self.fee_fen - self.deduction_fen


@dataclass(slots=True, frozen=True)
class Order:
    """What refunds need to know of a purchase."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID | None
    category: str
    state: str
    signed_at: datetime | None
    paid_at: datetime | None
    offer: dict[str, object] | None

    @property
    def terms(self) -> RefundTerms:
        """What the contract says of refunds, frozen when it was drawn."""
        return RefundTerms.model_validate(self.offer["refund_terms"]) if self.offer else RefundTerms()


@dataclass(slots=True, frozen=True)
class Quote:
    """What would go back now, line by line. `pending`: lessons that are neither untaught nor decided."""

    ground: RefundGround
    lessons: list[int]
    pending: list[int]
    lines: list[QuoteLine]
    materials_fen: int

    @property
    def fee_fen(self) -> int:
        """The price of the lessons."""
        return sum(line.amount_fen for line in self.lines if line.what == "fee")

    @property
    def deduction_fen(self) -> int:
        """What the institution keeps of it, never more than all of it."""
        return min(self.fee_fen, sum(line.amount_fen for line in self.lines if line.what == "deduction"))

    @property
    def refund_fen(self) -> int:
        """What the guardian gets, never below zero."""
        return self.fee_fen - self.deduction_fen

    @property
    def needs_answer(self) -> bool:
        """Whether the institution has a say."""
        return self.ground in ("untaught", "institution_at_fault")


def quote(order: Order, lessons: Iterable[Lesson], policy: Policy, at_fault: bool, now: datetime) -> Quote:
    """What goes back if it is asked for at `now`: the price of every planned lesson, less what the contract lets the
    institution keep.

    In full within 7 days of the payment, or the contract's longer window, if no lesson was taken: none filed, and none
    begun by its plan [law: SPC 2025-05-01 art. 14; GF-2021-2604]. Later less the penalty, rounded down to the fen
    [ours]; nothing is kept where the institution is at fault.
    """
    all_lessons = list(lessons)
    untaught = [lesson for lesson in all_lessons if lesson.state == "planned"]
    numbers = [lesson.lesson_no for lesson in untaught]
    fee = sum(lesson.price_fen for lesson in untaught)
    terms, none_taken = order.terms, len(untaught) == len(all_lessons) and all(now < one.starts_at for one in untaught)
    days = max(policy.refund_window_days, terms.full_refund_days)
    ground: RefundGround = "institution_at_fault" if at_fault else "untaught"
    if none_taken and order.paid_at is not None and now < order.paid_at + timedelta(days=days):
        ground = "full_refund_window"
    rules = {"full_refund_window": _FULL.format(days=days), "untaught": _UNTAUGHT, "institution_at_fault": _FAULT}
    lines = [QuoteLine(what="fee", amount_fen=fee, lessons=tuple(numbers), rule=rules[ground])]
    if ground == "untaught" and (penalty := fee * terms.penalty_basis_points // 10_000):
        rule = _PENALTY.format(points=terms.penalty_basis_points)
        lines.append(QuoteLine(what="deduction", amount_fen=penalty, rule=rule))
    pending = [lesson.lesson_no for lesson in all_lessons if lesson.state in PENDING]
    return Quote(ground, numbers, pending, lines, terms.materials_fen if ground == "untaught" else 0)


def latest(refunds: Sequence[Refund]) -> Refund | None:
    """The one that counts: an order's others were rejected or withdrawn."""
    return max(refunds, key=lambda refund: (refund.state not in LET_GO, refund.asked_at), default=None)


def require_enrolled(order: Order) -> None:
    """Raises Refused order_state if the order is not paid, or has ended: there may be nothing to quote from then, not
    even a category, for that comes with the offer."""
    if order.state != "enrolled":
        raise Refused("order_state", state=order.state)


def require_refundable(existing: Refund | None, offered: Quote) -> None:
    """Raises Refused unless an enrolled order's refund may be asked for: refund_exists (one is open, or was paid),
    refund_nothing."""
    if existing is not None and existing.state not in LET_GO:
        raise Refused("refund_exists", state=existing.state)
    if offered.refund_fen == 0:
        raise Refused("refund_nothing", fee_fen=offered.fee_fen, deduction_fen=offered.deduction_fen)


def require_settled(offered: Quote, excluded: Collection[int], quoted_fen: int) -> None:
    """Raises Refused: refund_pending (a lesson that waits for its answer is not excluded by name), refund_changed."""
    waiting = [number for number in offered.pending if number not in excluded]
    if waiting:
        raise Refused("refund_pending", f"待处理课次：{'、'.join(map(str, waiting))}", lesson_no=waiting[0])
    if quoted_fen != offered.refund_fen:
        detail = f"现可退 {yuan(offered.refund_fen)} 元"
        raise Refused("refund_changed", detail, quoted_fen=quoted_fen, refund_fen=offered.refund_fen)


def ask(order: Order, offered: Quote, refund_id: UUID, reason: str, policy: Policy, now: datetime) -> Refund:
    """A new refund: the institution answers within 5 working days [law text]; one it has no say in is `approve`d."""
    assert order.institution_id is not None
    return Refund(
        refund_id=refund_id,
        order_id=order.order_id,
        account_id=order.account_id,
        institution_id=order.institution_id,
        state="asked",
        ground=offered.ground,
        lessons=offered.lessons,
        fee_fen=offered.fee_fen,
        deduction_fen=offered.deduction_fen,
        reason=reason,
        asked_at=now,
        act_by=add_working_days(now, policy.refund_silence_working_days),
        materials_fen=offered.materials_fen,
    )


def mark(lessons: Iterable[Lesson], numbers: Collection[int], state: str) -> list[Lesson]:
    """Moves lessons of a refund to `state`; those that were moved."""
    moved = [lesson for lesson in lessons if lesson.lesson_no in numbers and lesson.state != state]
    for lesson in moved:
        lesson.state = state
    return moved


def approve(refund: Refund, policy: Policy, now: datetime) -> None:
    """It is decided, and goes to the bank, which has 15 days [law]."""
    refund.state, refund.overdue = "paying", False
    refund.act_by = now + timedelta(days=policy.refund_return_days)


def close(refund: Refund, state: RefundState, now: datetime) -> None:
    """It is over: paid, rejected or withdrawn."""
    refund.state, refund.act_by, refund.overdue, refund.closed_at = state, None, False, now
    if state == "paid":
        refund.trouble = ""


def withdraw(refund: Refund, now: datetime) -> bool:
    """The guardian takes it back. False when that was done before. Raises Refused refund_state."""
    if refund.state == "withdrawn":
        return False
    _require(refund, "asked", "contested")
    close(refund, "withdrawn", now)
    return True


def answer(refund: Refund, agrees: bool, used_materials_fen: int, words: str, policy: Policy, now: datetime) -> bool:
    """The institution agrees, keeping the materials that were used, or objects: then the authority decides. False when
    that was said before.

    Raises Refused: refund_state, amount_invalid (more than the contract's price of the materials, or than is left).
    """
    materials = f"（材料费 {yuan(used_materials_fen)} 元）" if used_materials_fen else ""
    said = f"{'同意' if agrees else '不同意'}{materials}：{words}"
    if refund.answer == said:
        return False
    _require(refund, "asked")
    if used_materials_fen > refund.materials_fen or used_materials_fen >= refund.refund_fen:
        raise Refused("amount_invalid", "材料费不得超过合同约定", materials_fen=refund.materials_fen)
    refund.answer = said
    if agrees:
        refund.deduction_fen += used_materials_fen
        approve(refund, policy, now)
    else:
        refund.state, refund.overdue = "contested", False
        refund.act_by = add_working_days(now, policy.refund_decision_working_days)
    return True


def decide(
    refund: Refund,
    prices: dict[int, int],
    granted: bool,
    lessons: Sequence[int],
    deduction_fen: int,
    reason: str,
    by: str,
    policy: Policy,
    now: datetime,
) -> bool:
    """The authority decides a contested refund. False when it has decided so before.

    Granted for all its lessons, or for `lessons` of them, less `deduction_fen`; `prices` are those of its lessons.
    Raises Refused: refund_state, lesson_unknown (not of this refund), amount_invalid (nothing would be left).
    """
    if (refund.decision, refund.decided_by) == (reason, by) and granted == (refund.state != "rejected"):
        same = sorted(set(lessons) or refund.lessons) == refund.lessons and deduction_fen == refund.deduction_fen
        if same or not granted:
            return False
    _require(refund, "contested")
    chosen = sorted(set(lessons)) or refund.lessons
    strangers = [number for number in chosen if number not in refund.lessons]
    if strangers:
        raise Refused("lesson_unknown", lesson_no=strangers[0])
    fee = sum(prices[number] for number in chosen)
    if granted and deduction_fen >= fee:
        raise Refused("amount_invalid", fee_fen=fee)
    refund.decision, refund.decided_by = reason, by
    if granted:
        refund.lessons, refund.fee_fen, refund.deduction_fen = chosen, fee, deduction_fen
        approve(refund, policy, now)
    else:
        close(refund, "rejected", now)
    return True


def wind_up(refund: Refund, lessons: list[int], fee_fen: int, policy: Policy, now: datetime) -> bool:
    """The institution is gone: what its guardian has asked for is granted in full, and for all `lessons` that nobody
    has filed as taught, whose price is `fee_fen`. False for one that is decided."""
    if refund.state not in ("asked", "contested"):
        return False
    refund.ground, refund.lessons, refund.fee_fen, refund.deduction_fen = "institution_gone", lessons, fee_fen, 0
    approve(refund, policy, now)
    return True


def late(refund: Refund, policy: Policy, now: datetime) -> bool:
    """Its deadline has come: an institution's silence is agreement [law text]; an authority, or a bank, that is late is
    named as such, again and again. False when it has moved on, or its deadline was moved."""
    if refund.act_by is None or now < refund.act_by:
        return False
    if refund.state == "asked":
        refund.answer = "逾期未答复，视为同意"
        approve(refund, policy, now)
    else:
        refund.overdue = True
        refund.act_by = add_working_days(now, LOOK_AGAIN_WORKING_DAYS)
    return True


def delayed(refund: Refund, outcome: str, reason: str, policy: Policy, now: datetime) -> bool:
    """The bank refused it, or it came back: it is paid again under a new number, and a person looks why."""
    if refund.state not in ("paying", "paid"):
        return False
    refund.trouble = f"{outcome}: {reason}"[:200]
    if refund.state == "paid":
        approve(refund, policy, now)
        refund.closed_at = None
    return True


def kept(refund: Refund, paid_at: datetime | None) -> bool:
    """The bank has paid the institution what it keeps; None: that came back (退票), and will be paid again. False when
    that was known."""
    if (refund.kept_paid_at is None) == (paid_at is None):
        return False
    refund.kept_paid_at = paid_at
    return True


def not_taken(refund: Refund, code: str) -> bool:
    """Escrow has refused to pay it: a person looks why; it is told again when it is overdue."""
    if refund.state != "paying":
        return False
    refund.trouble = f"refused: {code}"
    return True


def _require(refund: Refund, *states: str) -> None:
    if refund.state not in states:
        raise Refused("refund_state", state=refund.state)
