"""What is said: which event becomes which notice (提醒), and the wording of every SMS. Pure.

The wording is neutral: what happened and what can be done, no praise and no offer. A provider with templates of its
own fills them by the same purpose and params, so params are short.
"""

import hashlib
import unicodedata
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from services.notify.domain import Cause, Notice
from shared.contracts.complaints import FilingMoved
from shared.contracts.envelope import Message
from shared.contracts.escrow import PayoutReturned, Refunded, Settled, SettlementDelayed
from shared.contracts.orders import ContractDrawn, LessonApplied, LessonConfirmed, LessonWaiting, RefundMoved
from shared.money import yuan
from shared.working_days import until_words

SIGNATURE: Final = "【一课】"
LIFETIME: Final = timedelta(days=30)
"""A notice that could not be sent for so long (no contact, sender stopped) is dropped [ours]."""
TITLE_CHARACTERS: Final = 20
NAME_CHARACTERS: Final = 30
"""Longest text of others in an SMS: providers cut or refuse longer ones, and a title is no place to advertise."""

CONTRACT_WAITING: Final = "contract.waiting"
LESSON_WAITING: Final = "lesson.waiting"
LESSON_WAITING_LATER: Final[Mapping[str, str]] = MappingProxyType(
    {"third_day": "lesson.waiting.third", "last_day": "lesson.waiting.last"}
)
LESSON_AUTO_CONFIRMED: Final = "lesson.auto_confirmed"
LESSON_SETTLED: Final = "lesson.settled"
ORDER_REFUNDED: Final = "order.refunded"
REFUND_MOVED: Final = "refund.moved"
COMPLAINT_MOVED: Final = "complaint.moved"
COMPLAINT_OVERDUE: Final = "complaint.overdue"
PAYOUT_RETURNED: Final = "payout.returned"
SETTLEMENT_RETURNED: Final = "settlement.returned"

WORDING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "code.sign_in": "您的登录验证码为{code}，{minutes}分钟内有效。请勿告知他人，非本人操作请忽略。",
        CONTRACT_WAITING: "您购买的“{title}”培训服务合同待签署，请于{until}前登录查看并签署。",
        LESSON_WAITING: (
            "“{title}”第{lesson}课次已提交销课申请，请核对后于{until}前确认或提出异议，逾期未答复视为确认。"
        ),
        LESSON_WAITING_LATER["third_day"]: (
            "“{title}”第{lesson}课次的销课申请仍待您答复，请于{until}前确认或提出异议，逾期未答复视为确认。"
        ),
        LESSON_WAITING_LATER["last_day"]: (
            "“{title}”第{lesson}课次的销课申请将于{until}到期，请及时确认或提出异议，逾期未答复视为确认。"
        ),
        LESSON_AUTO_CONFIRMED: (
            "“{title}”第{lesson}课次在规定期限内未收到您的答复，已自动确认，费用将由监管银行拨付给培训机构，可登录查看。"
        ),
        LESSON_SETTLED: "订单尾号{order}第{lesson}课次的费用{yuan}元已由监管银行拨付给培训机构，可登录查看明细。",
        ORDER_REFUNDED: "订单尾号{order}的退费{yuan}元已由监管银行原路退回，到账时间以银行为准。",
        REFUND_MOVED: "订单尾号{order}的退费申请{state}，可登录查看。",
        COMPLAINT_MOVED: "您提交的{kind}（编号{number}）{state}，承办部门：{department}，电话：{hotline}。",
        COMPLAINT_OVERDUE: (
            "您提交的{kind}（编号{number}）超过规定期限尚未办结，已转督办，承办部门：{department}，电话：{hotline}。"
        ),
        PAYOUT_RETURNED: (
            "订单尾号{order}{part}{yuan}元拨付后被银行退回，银行原因：{reason}。"
            "请核对收款账户，如已变更请登录修改，系统将自动重新拨付。"
        ),
        SETTLEMENT_RETURNED: (
            "汇总结算款{yuan}元（编号{number}）拨付后被银行退回，银行原因：{reason}。"
            "请核对收款账户，如已变更请登录修改，系统将自动重新拨付。"
        ),
    }
)
"""The text of each purpose."""

_KINDS: Final = {"complaint": "投诉", "report": "举报"}
_REFUND_STATES: Final = {
    "asked": "（{yuan}元）已提交，机构应于{until}前答复，逾期视为同意",
    "contested": "（{yuan}元）机构有异议，由主管部门于{until}前裁定",
    "paying": "已通过，{yuan}元将于{until}前原路退回",
    "rejected": "经主管部门裁定不予退费",
    "withdrawn": "已撤回",
}
"""That it was paid is told by `order_refunded`."""
_STATES: Final = {
    "submitted": "已登记",
    "accepted": "已受理",
    "rejected": "不予受理，可登录查看原因",
    "transferred": "已移送其他部门办理",
    "in_progress": "正在办理",
    "mediated": "已调解办结",
    "filed": "已立案处理",
    "unfounded": "经核查未发现所反映的问题",
    "terminated": "已终止办理，可登录查看原因",
}


def wording(purpose: str, params: Mapping[str, str]) -> str:
    """The text of an SMS. Raises KeyError for a purpose or param that has no place in it."""
    return SIGNATURE + WORDING[purpose].format_map(params)


def cause_of(message: Message[Any]) -> Cause:
    """What an SMS keeps of the message that led to it."""
    return Cause(message.correlationid, message.id, message.traceparent)


def contract_waiting(message: Message[ContractDrawn], now: datetime) -> Notice:
    """合同待签署: once for an order, useless after `sign_by`."""
    event = message.data
    params = {"title": _short(event.title, TITLE_CHARACTERS), "until": until_words(event.sign_by)}
    return Notice(event.account_id, CONTRACT_WAITING, str(event.order_id), params, event.sign_by, cause_of(message))


def lesson_waiting(message: Message[LessonApplied] | Message[LessonWaiting], now: datetime) -> Notice:
    """销课申请待确认: with the time after which silence confirms. Once for a lesson when it is filed, once more on the
    third day and once on the last."""
    event = message.data
    purpose = LESSON_WAITING_LATER[event.reminder] if isinstance(event, LessonWaiting) else LESSON_WAITING
    params = {
        "title": _short(event.title, TITLE_CHARACTERS),
        "lesson": str(event.lesson_no),
        "until": until_words(event.answer_by),
    }
    subject = lesson_subject(event.order_id, event.lesson_no)
    return Notice(event.account_id, purpose, subject, params, event.answer_by, cause_of(message))


def lesson_auto_confirmed(message: Message[LessonConfirmed], now: datetime) -> Notice | None:
    """自动确认: once for a lesson. None: somebody has confirmed it, and knows."""
    event = message.data
    if event.by != "silence":
        return None
    params = {"title": _short(event.title, TITLE_CHARACTERS), "lesson": str(event.lesson_no)}
    subject = lesson_subject(event.order_id, event.lesson_no)
    return Notice(event.account_id, LESSON_AUTO_CONFIRMED, subject, params, now + LIFETIME, cause_of(message))


def lesson_settled(message: Message[Settled], now: datetime) -> Notice | None:
    """拨付: once for a lesson. None: what an institution keeps of a refund, of which the refund's steps tell."""
    event = message.data
    if event.lesson_no == 0:
        return None
    params = {
        "order": _tail(event.order_id),
        "lesson": str(event.lesson_no),
        "yuan": yuan(event.amount_fen),
    }
    subject = lesson_subject(event.order_id, event.lesson_no)
    return Notice(event.account_id, LESSON_SETTLED, subject, params, now + LIFETIME, cause_of(message))


def order_refunded(message: Message[Refunded], now: datetime) -> Notice | None:
    """退费: once for an order, because it goes back in one sum, and once for a lesson an authority gave back.
    None: nothing was left to go back."""
    event = message.data
    if event.amount_fen == 0:
        return None
    params = {"order": _tail(event.order_id), "yuan": yuan(event.amount_fen)}
    subject = lesson_subject(event.order_id, event.lesson_no) if event.lesson_no else str(event.order_id)
    return Notice(event.account_id, ORDER_REFUNDED, subject, params, now + LIFETIME, cause_of(message))


def refund_moved(message: Message[RefundMoved], now: datetime) -> Notice | None:
    """退费进展: once for each state of a refund. None: its deadline has passed, or it is paid, which is told apart."""
    event = message.data
    if event.overdue or event.state not in _REFUND_STATES:
        return None
    until = until_words(event.act_by) if event.act_by else ""
    params = {
        "order": _tail(event.order_id),
        "state": _REFUND_STATES[event.state].format(until=until, yuan=yuan(event.refund_fen)),
    }
    subject = f"{event.refund_id}/{event.state}"
    return Notice(event.account_id, REFUND_MOVED, subject, params, now + LIFETIME, cause_of(message))


def complaint_moved(message: Message[FilingMoved], now: datetime) -> Notice | None:
    """投诉进展: once for each state of a filing in one department's hands, once more when it is overdue in it.

    None: an anonymous one, nobody is known to tell.
    """
    event = message.data
    if event.account_id is None:
        return None
    params = {
        "kind": _KINDS[event.kind],
        "number": _short(event.number, NAME_CHARACTERS),
        "state": _STATES[event.state],
        "department": _short(event.department, NAME_CHARACTERS),
        "hotline": _short(event.hotline, NAME_CHARACTERS),
    }
    purpose = COMPLAINT_OVERDUE if event.overdue else COMPLAINT_MOVED
    # A filing may be transferred, and accepted, more than once; each department's step is told.
    subject = f"{event.filing_id}/{event.state}/{hashlib.sha256(event.department.encode()).hexdigest()[:8]}"
    return Notice(event.account_id, purpose, subject, params, now + LIFETIME, cause_of(message))


def payout_returned(message: Message[PayoutReturned], now: datetime) -> Notice | None:
    """退票: to the institution, once for each time that a lesson's fee, or what it keeps of a refund, came back. None:
    it was paid with others, and their sum is told of."""
    event = message.data
    if event.settlement_id is not None:
        return None
    params = {
        "order": _tail(event.order_id),
        "part": f"第{event.lesson_no}课次的费用" if event.lesson_no else "退费中应付机构的款项",
        "yuan": yuan(event.amount_fen),
        "reason": _reason(event.reason),
    }
    subject = f"{lesson_subject(event.order_id, event.lesson_no)}/{event.turn}"
    return Notice(event.institution_id, PAYOUT_RETURNED, subject, params, now + LIFETIME, cause_of(message))


def settlement_returned(message: Message[SettlementDelayed], now: datetime) -> Notice | None:
    """汇总结算退票: to the institution, once for each number, because a number comes back only once. None: the bank
    refused the sum, no money has gone anywhere."""
    event = message.data
    if event.outcome != "returned":
        return None
    params = {"yuan": yuan(event.amount_fen), "number": event.number, "reason": _reason(event.reason)}
    return Notice(event.institution_id, SETTLEMENT_RETURNED, event.number, params, now + LIFETIME, cause_of(message))


def lesson_subject(order_id: object, lesson_no: int) -> str:
    """The subject of what concerns one lesson."""
    return f"{order_id}/{lesson_no}"


def _tail(order_id: object) -> str:
    """What a parent finds an order by in an SMS: its last six characters."""
    return str(order_id)[-6:].upper()


def _reason(words: str) -> str:
    """What a bank gives as its reason, if it gives one."""
    return _short(words, NAME_CHARACTERS) or "未说明"


def _short(text: str, most: int) -> str:
    """Text of others, on one line, without invisible characters and quotation marks, at most `most` characters long."""
    # Unicode's categories C: control, format, private use. Line breaks are among them, so blanks are folded first.
    one_line = " ".join(text.split())
    visible = "".join(character for character in one_line if unicodedata.category(character)[0] != "C")
    plain = visible.translate(_NO_QUOTES)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


_NO_QUOTES: Final = str.maketrans("", "", '“”"【】')
