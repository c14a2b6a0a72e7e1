"""What the rules are in one region, for one category, on one date; and whether a course offer keeps them.

Limits are data with an effective date and a source, because law texts differ, are replaced, and cities add
to them. `RULES` is the whole table; `policy_for` folds it. Marks of sources as in DOMAIN.md: [law] [seed]
[local] [ours].
"""

import calendar
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from shared.contracts.errors import FieldError, Refused
from shared.money import yuan
from shared.working_days import is_rest_day, shanghai, spring_festival

MAX_ERRORS: Final = 100
"""Most faults named in one refusal [ours]."""

MAX_SESSIONS: Final = 1000
"""Most sessions looked at one by one; a plan beyond it is refused for its number of lessons alone [ours]."""


class Category(StrEnum):
    """Category of training (培训类别) [seed]. 学科类 reads as 学科, and so on."""

    SUBJECT = "学科"
    SCIENCE = "科技"
    CULTURE_AND_ART = "文化艺术"
    SPORTS = "体育"

    @classmethod
    def _missing_(cls, value: object) -> "Category | None":
        if not isinstance(value, str):
            return None
        bare = value.strip().removesuffix("类")
        return next((category for category in cls if category.value == bare), None)


@dataclass(frozen=True, slots=True)
class CodeRules:
    """SMS codes (短信验证码) [DOMAIN: SMS, ours]."""

    digits: int = 6
    lifetime_seconds: int = 300
    max_tries: int = 5
    resend_seconds: int = 60
    max_per_hour: int = 5
    max_per_day: int = 10


@dataclass(frozen=True, slots=True)
class ComplaintClocks:
    """Clocks of complaints (投诉) and reports (举报), in working days.

    [law: 市场监督管理投诉举报处理暂行办法, 2022 revision: 受理 7, 调解 45, 核查 15 + 15, 移送异议 5].
    """

    accept_working_days: int = 7
    mediate_working_days: int = 45
    check_working_days: int = 15
    check_extension_working_days: int = 15
    transfer_objection_working_days: int = 5


@dataclass(frozen=True, slots=True)
class ObjectionClocks:
    """Clocks of an objection to a lesson (异议), in working days [ours].

    The institution answers, the authority decides; an authority that is late is reminded again and again.
    """

    answer_working_days: int = 5
    decide_working_days: int = 15
    overdue_working_days: int = 5


@dataclass(frozen=True, slots=True)
class Policy:
    """Every figure that may differ by region, category and date. Built by `policy_for` only.

    None means: no such limit at that time. Times of day are Shanghai time; months are calendar months.
    """

    max_span_months: int | None = None  # 一次收费的时间跨度
    max_lessons: int | None = None  # 一次收费的课时
    max_charge_fen: int | None = None  # 一次收费的金额
    lead_time_months: int | None = None  # 预收费不早于开课前
    offline_ends_by: time | None = None
    online_ends_by: time | None = None
    online_max_minutes: int | None = None
    online_gap_minutes: int | None = None
    subject_on_rest_days: bool = True
    subject_before_school_age: bool = True
    summer_vacation: tuple[str, str] | None = None  # 暑假 of every region, of any year: month-day of first and last
    winter_vacation_days: int = 0  # 寒假 of every region: so many days before and after the holidays of 春节
    school_vacations: tuple[tuple[date, date], ...] = ()  # a region's own 寒暑假, first and last day; see `RULES`
    promotions_allowed: bool = True  # 预付费享优惠、买赠、培训贷

    confirm_silence_working_days: int = 7  # 家长逾期未确认视为确认
    confirm_silence_cap_working_days: int = 15
    confirm_reminder_working_day: int = 3  # 提醒: 提交当日、第3个工作日、最后一个 [DOMAIN: SMS, ours]
    invoice_days: int = 30  # 拨付后逾期未开发票
    refund_window_days: int = 7  # 未上课全额退费
    refund_silence_working_days: int = 5  # 机构逾期未答复视为同意
    refund_decision_working_days: int = 15  # 有争议的退费由主管部门裁定 [ours]
    refund_return_days: int = 15  # 退费到账
    suspense_working_days: int = 3  # 挂账资金处理

    seat_reservation_seconds: int = 900
    payment_window_seconds: int = 900
    counter_payment_window_seconds: int = 86_400

    break_overdue_working_days: int = 3  # 对账差异应处理完毕 [ours]

    codes: CodeRules = field(default_factory=CodeRules)
    complaints: ComplaintClocks = field(default_factory=ComplaintClocks)
    objections: ObjectionClocks = field(default_factory=ObjectionClocks)

    sources: tuple[str, ...] = ()
    """The texts this policy rests on, oldest first."""

    def __post_init__(self) -> None:
        if not 1 <= self.confirm_silence_working_days <= self.confirm_silence_cap_working_days:
            raise ValueError("confirm_silence_working_days must be 1..confirm_silence_cap_working_days")


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: from the Shanghai date `effective` on, in `region`, for `categories`."""

    region: str
    effective: date
    source: str
    values: Mapping[str, Any]
    categories: frozenset[Category] = frozenset(Category)


_NON_SUBJECT: Final = frozenset(Category) - {Category.SUBJECT}

NATION: Final = "china"

_PARENTS: Final[Mapping[str, str]] = MappingProxyType({"changzhou": "jiangsu", "jiangsu": NATION})

# The eight areas of the seed notice; all follow the city. 经开区 has no division code of its own.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "320000": "jiangsu",
        "江苏省": "jiangsu",
        "320400": "changzhou",
        **dict.fromkeys(("常州市", "溧阳市", "金坛区", "武进区", "新北区", "天宁区", "钟楼区", "经开区"), "changzhou"),
        **dict.fromkeys(("320481", "320413", "320412", "320411", "320402", "320404"), "changzhou"),
    }
)

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        NATION,
        date(2018, 8, 22),
        "[law] 国办发〔2018〕80号 关于规范校外培训机构发展的意见: 不超过3个月, 不晚于20:30",
        {"max_span_months": 3, "offline_ends_by": time(20, 30)},
    ),
    Rule(
        NATION,
        date(2021, 7, 24),
        "[law] 中办国办 “双减”意见 (2021): 线上每课时≤30分钟、间隔≥10分钟、不晚于21点; "
        "学科类不占节假日、休息日、寒暑假; 不得面向学龄前儿童",
        {
            "online_ends_by": time(21),
            "online_max_minutes": 30,
            "online_gap_minutes": 10,
            "subject_on_rest_days": False,
            "subject_before_school_age": False,
        },
    ),
    Rule(
        NATION,
        date(2021, 7, 24),
        "[ours] 各地寒暑假起止不一, 这些日子在各地都是假期: 7月20日至8月15日, 春节假期前后各3天",
        {"summer_vacation": ("07-20", "08-15"), "winter_vacation_days": 3},
    ),
    Rule(
        NATION,
        date(2021, 10, 21),
        "[law] 教育部等六部门 关于加强校外培训机构预收费监管工作的通知 (2021): 不超过60课时, 不得使用培训贷",
        {"max_lessons": 60},
    ),
    Rule(
        NATION,
        date(2021, 10, 21),
        "[local] 各地实施细则: 预收费不早于新课开始前1个月; 未列明的地区也照此执行 [ours]",
        {"lead_time_months": 1},
    ),
    Rule(
        NATION,
        date(2022, 12, 29),
        "[law] 教育部等十三部门 关于规范面向中小学生的非学科类校外培训的意见 (2022): 不超过5000元",
        {"max_charge_fen": 500_000},
        _NON_SUBJECT,
    ),
    Rule(
        NATION,
        date(2023, 3, 24),
        "[law] 校外培训机构财务管理暂行办法 (2023): 3个月、60课时、5000元, 各类别一致",
        {"max_span_months": 3, "max_lessons": 60, "max_charge_fen": 500_000},
    ),
    Rule(
        "jiangsu",
        date(2022, 4, 19),
        "[local] 江苏省教育厅等十一部门 (2022-04): 不早于新课开始前1个月收取",
        {"lead_time_months": 1},
    ),
    Rule(
        "changzhou",
        date(2023, 4, 19),
        "[seed] 常州市“双减”联席会议办公室告知书 (2023-04-19): 抵制“预付费享优惠”“买多少送多少”",
        {"promotions_allowed": False},
    ),
    Rule(
        NATION,
        date(2023, 4, 19),
        "[ours] 其他地区的促销限制与常州一致",
        {"promotions_allowed": False},
    ),
    Rule(
        NATION,
        date(2023, 4, 19),
        "[ours] 挂账资金 (迟到、重复、短付、多付、无主) 3 个工作日内认领或退回",
        {"suspense_working_days": 3},
    ),
    Rule(
        NATION,
        date(2023, 4, 19),
        "[ours] 拨付后逾30日未开发票列入逾期名单: 发票管理办法第十九、二十条收款即应开具, 按月集中开票的机构有一个月",
        {"invoice_days": 30},
    ),
    Rule(
        NATION,
        date(2023, 4, 19),
        "[ours] 课次异议: 机构 5 个工作日内答复, 主管部门 15 个工作日内裁定, 逾期每 5 个工作日提醒",
        {"objections": ObjectionClocks()},
    ),
)
"""The table. A later date wins over an earlier one; on equal dates the narrower region wins.

The figures are DOMAIN.md's. Titles and effective dates of the national texts were not checked against the originals
(no copy was at hand): do that before a decision rests on a date before 2023-04-19. School vacations (寒暑假) are a
city's calendar of one school year: no text of Changzhou's for 2025/26 or 2026/27 was at hand, so none stands here. What
is a vacation everywhere is refused without one; a [local] row of `school_vacations` adds the days around it.
"""


def _regions(region: str) -> tuple[str, ...]:
    """`region` and what it lies in, widest first; an unknown region is the nation alone."""
    known = region.strip().lower()
    known = _ALIASES.get(known, known)
    chain = [known]
    while chain[-1] in _PARENTS:
        chain.append(_PARENTS[chain[-1]])
    if chain[-1] != NATION:
        return (NATION,)
    return tuple(reversed(chain))


@lru_cache(maxsize=1024)
def policy_for(region: str, category: str, on: date) -> Policy:
    """The policy of `region` ("changzhou", "常州市", "320402", …) for `category` (学科 or 学科类) on a day.

    `on` is a Shanghai date. An unknown region gets the nation's rules. Raises ValueError for an unknown
    category. A contract keeps the policy of the day it was signed; ask again with that date, not today's.
    """
    kind = Category(category)
    chain = _regions(region)
    rows = [r for r in RULES if r.region in chain and kind in r.categories and r.effective <= on]
    rows.sort(key=lambda r: (r.effective, chain.index(r.region)))
    policy = Policy()
    for row in rows:
        policy = replace(policy, sources=(*policy.sources, row.source), **dict(row.values))
    return policy


def add_months(day: date, months: int) -> date:
    """The same day `months` later (or earlier), else the last day of that month (民法典 202) [law]."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def school_age_by(on: date) -> date:
    """The day by which who is of school age on the Shanghai date `on` has become six years old.

    Six years old by 31 August belongs to the school year that begins then (义务教育法 11) [law; the day:
    ours].
    """
    return date(on.year if on >= date(on.year, 9, 1) else on.year - 1, 8, 31)


def is_preschool(birth_date: date, on: date) -> bool:
    """Whether a child is of pre-school age (学龄前) on the Shanghai date `on`: see `school_age_by`."""
    return (birth_date.year + 6, birth_date.month, birth_date.day) > school_age_by(on).timetuple()[:3]


_NUMBER: Final = r"(?:\d+|[一二两三四五六七八九十百半几]+|多少)"
_UNIT: Final = r"(?:个?月|课时|节课?|次课?|期|年|门|科|元|块|份|套)?"
# Patterns run on NFKC text without spaces; every gap is bounded, so no text makes them slow.
_PROMOTIONS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("买赠", re.compile(rf"[买购报订续缴交]{_NUMBER}{_UNIT}[^。;]{{0,4}}?(?:送|赠|得|返|免){_NUMBER}")),
    (
        "预付优惠",
        re.compile(
            r"(?:预付|预存|预交|预缴|预充|预收|一次性(?:付|交|缴)|全款|存|充)[^。;]{0,12}?"
            r"(?:优惠|折扣|\d折|[一二三四五六七八九]折|立减|减免|返现|赠|送)"
        ),
    ),
    ("充值卡", re.compile(r"充值|储值|次卡|年卡|会员卡")),
    ("满额促销", re.compile(rf"满{_NUMBER}{_UNIT}(?:立?减|送|赠|返)")),
    ("培训贷", re.compile(r"培训贷|教育贷|学费贷|分期(?:付款|贷款|免息)|免息|贷款|花呗|白条")),
    ("现金", re.compile(r"(?:付|交|缴|收)现|现金(?:优惠|立减|打折|交费|缴费|付款|支付)")),
)
_DENIALS: Final = re.compile(r"(?:不|无|非|未|禁止|拒绝|谢绝|抵制|严禁|没有|杜绝)[^,。;!]{0,4}$")


def promotion_fault(text: str) -> str | None:
    """The kind of forbidden promotion that `text` offers (买赠、预付优惠、充值卡 …), or None.

    [seed: “预付费享优惠”“买多少送多少”]; loans [law]; cards and cash [ours]. Words that deny it (不办次卡)
    are let pass. A person still decides in doubt: this is a sieve, and a complaint type stands behind it.
    """
    plain = "".join(unicodedata.normalize("NFKC", text).split())
    for kind, pattern in _PROMOTIONS:
        for found in pattern.finditer(plain):
            if not _DENIALS.search(plain, max(0, found.start() - 8), found.start()):
                return kind
    return None


def _fault(where: str, code: str, message: str) -> FieldError:
    return FieldError(field=where, message=message, code=code)


def _charge_faults(policy: Policy, price_fen: int, lessons: int) -> list[FieldError]:
    """Faults of amount and number of lessons; `price_fen` is one whole charge (一次收费)."""
    faults: list[FieldError] = []
    if lessons < 1:
        faults.append(_fault("sessions", "course_limit_lessons", "课程至少应有 1 课时"))
    if policy.max_lessons is not None and lessons > policy.max_lessons:
        message = f"一次收费 {lessons} 课时，上限 {policy.max_lessons} 课时"
        faults.append(_fault("sessions", "course_limit_lessons", message))
    if policy.max_charge_fen is not None and price_fen > policy.max_charge_fen:
        message = f"一次收费 {yuan(price_fen)} 元，上限 {yuan(policy.max_charge_fen)} 元"
        faults.append(_fault("price_fen", "course_limit_price", message))
    return faults


def _session_faults(
    policy: Policy, kind: Category, online: bool, number: int, starts: datetime, ends: datetime
) -> list[FieldError]:
    """Faults of one lesson's times, Shanghai datetimes; `number` is its 0-based place in the offer."""
    code, at = "course_time_of_day", f"sessions.{number}"
    if ends <= starts:
        return [_fault(f"{at}.ends_at", code, "下课时间应晚于上课时间")]
    faults: list[FieldError] = []
    ends_by = policy.online_ends_by if online else policy.offline_ends_by
    # A lesson over midnight ends early by the clock and is still too late.
    if ends_by is not None and (ends.date() != starts.date() or ends.time() > ends_by):
        where = "线上" if online else "线下"
        faults.append(_fault(f"{at}.ends_at", code, f"{where}培训结束时间不得晚于 {ends_by:%H:%M}"))
    longest = policy.online_max_minutes
    if online and longest is not None and ends - starts > timedelta(minutes=longest):
        faults.append(_fault(f"{at}.ends_at", code, f"线上培训每课时不得超过 {longest} 分钟"))
    if kind is Category.SUBJECT and not policy.subject_on_rest_days:
        day, days = starts.date(), (starts.date(), ends.date())
        if any(map(is_rest_day, days)):
            faults.append(_fault(f"{at}.starts_at", code, f"{day} 为休息日或节假日，不得开展学科类培训"))
        elif any(_is_in_vacation(policy, one) for one in days):
            faults.append(_fault(f"{at}.starts_at", code, f"{day} 在寒暑假期间，不得开展学科类培训"))
    return faults


def _is_in_vacation(policy: Policy, day: date) -> bool:
    """Whether the schools of the policy's region have vacation (寒暑假) on `day`, as far as that is known."""
    if policy.summer_vacation and policy.summer_vacation[0] <= f"{day:%m-%d}" <= policy.summer_vacation[1]:
        return True
    around = timedelta(days=policy.winter_vacation_days)
    festival = spring_festival(day.year)
    if around and festival and festival[0] - around <= day <= festival[1] + around:
        return True
    return any(first <= day <= last for first, last in policy.school_vacations)


def _plan_faults(
    policy: Policy, kind: Category, online: bool, plan: Sequence[tuple[int, datetime, datetime]]
) -> list[FieldError]:
    """Faults of all lessons' times: each by itself, the gaps between them, the span of the whole plan.

    `plan` holds (place in the offer, start, end) in Shanghai time, sorted by start, not empty.
    """
    faults: list[FieldError] = []
    for number, starts, ends in plan:
        faults += _session_faults(policy, kind, online, number, starts, ends)
    gap = timedelta(minutes=(policy.online_gap_minutes or 0) if online else 0)
    latest_end = plan[0][2]
    for number, starts, ends in plan[1:]:
        if starts < latest_end:
            faults.append(_fault(f"sessions.{number}.starts_at", "course_time_of_day", "与另一课时时间重叠"))
        elif starts < latest_end + gap:
            minutes = policy.online_gap_minutes
            message = f"线上培训课时之间应间隔至少 {minutes} 分钟"
            faults.append(_fault(f"sessions.{number}.starts_at", "course_time_of_day", message))
        latest_end = max(latest_end, ends)
    if policy.max_span_months is not None:
        first, last = plan[0][1].date(), latest_end.date()
        limit = add_months(first, policy.max_span_months)
        if last > limit:
            months = policy.max_span_months
            message = f"课程自 {first} 至 {last}，一次收费跨度上限 {months} 个月（至 {limit}）"
            faults.append(_fault("sessions", "course_limit_span", message))
    return faults


def _lead_fault(policy: Policy, sells_from: datetime | None, first: date) -> list[FieldError]:
    """A fault if selling starts more than the lead time before the first lesson's Shanghai date."""
    if sells_from is None or policy.lead_time_months is None:
        return []
    earliest = add_months(first, -policy.lead_time_months)
    if shanghai(sells_from).date() >= earliest:
        return []
    message = f"最早可于 {earliest} 开始收费（开课前 {policy.lead_time_months} 个月）"
    return [_fault("sells_from", "course_lead_time", message)]


def check_offer(
    policy: Policy,
    *,
    category: str,
    online: bool,
    price_fen: int,
    sessions: Sequence[tuple[datetime, datetime]],
    sells_from: datetime | None,
    promotion_text: str,
) -> None:
    """Nothing if the offer keeps every limit of `policy`, else one Refused that names all that are broken.

    Used when a course is published and again when it is bought (then `sells_from` is now, and price and
    sessions may be the sums over the child's open orders). `sessions` are (starts_at, ends_at), aware, in
    any order; `price_fen` is the whole charge in fen; `sells_from` None leaves the lead time to the
    purchase. Refused has the code of the first fault, all faults in `errors`, and the figures lessons,
    price_fen, faults and each limit. Codes: course_limit_lessons, course_limit_price, course_limit_span,
    course_time_of_day (end of day, length, gap, overlap, rest days), course_lead_time,
    course_promotion_forbidden. Raises ValueError for a naive datetime, a negative price or an unknown
    category: mistakes, not refusals.
    """
    if price_fen < 0:
        raise ValueError("a price is not negative")
    kind = Category(category)
    faults = _charge_faults(policy, price_fen, len(sessions))
    if 1 <= len(sessions) <= MAX_SESSIONS:
        plan = sorted(
            ((n, shanghai(starts), shanghai(ends)) for n, (starts, ends) in enumerate(sessions)),
            key=lambda row: (row[1], row[2], row[0]),
        )
        faults += _plan_faults(policy, kind, online, plan)
        faults += _lead_fault(policy, sells_from, plan[0][1].date())
    elif len(sessions) > MAX_SESSIONS and policy.max_lessons is None:
        faults.append(_fault("sessions", "course_limit_lessons", f"最多 {MAX_SESSIONS} 课时"))
    if not policy.promotions_allowed and (promotion := promotion_fault(promotion_text)) is not None:
        message = f"不得以“{promotion}”方式促销或收费"
        faults.append(_fault("promotion_text", "course_promotion_forbidden", message))
    if not faults:
        return
    figures: dict[str, int | str] = {"lessons": len(sessions), "price_fen": price_fen, "faults": len(faults)}
    for name in ("max_lessons", "max_charge_fen", "max_span_months"):
        limit = getattr(policy, name)
        if limit is not None:
            figures[name] = limit
    # One fault of each kind comes first, so that the cap can never hide a whole kind.
    shown = _one_of_each_first(faults)[:MAX_ERRORS]
    detail = "；".join(dict.fromkeys(fault.message for fault in shown[:10]))
    raise Refused(shown[0].code, detail, errors=shown, **figures)


def _one_of_each_first(faults: Sequence[FieldError]) -> list[FieldError]:
    """The same faults: the first of every code in order of appearance, then the rest in order."""
    first_of_code: dict[str, FieldError] = {}
    for fault in faults:
        first_of_code.setdefault(fault.code, fault)
    firsts = list(first_of_code.values())
    chosen = {id(fault) for fault in firsts}
    return firsts + [fault for fault in faults if id(fault) not in chosen]
