"""Refusals: every way Yike says no, with one stable code each.

A refusal is an answer, not a failure: it changes nothing and travels back as an RFC 9457 problem. Codes are part of
the contract: they are added, never renamed or given another meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """What a code means to a parent (`title_zh`), to HTTP (`status`), and whether to try the same request again."""

    title_zh: str
    status: int
    retryable: bool = False


CODES: dict[str, ErrorCode] = {
    # the road
    "request_invalid": ErrorCode("请求内容有误", 422),
    "request_expired": ErrorCode("请求已过期，未执行", 410, retryable=True),
    "idempotency_conflict": ErrorCode("同一编号的请求内容不一致", 409),
    "type_unknown": ErrorCode("不支持的消息类型或版本", 400),
    "internal_error": ErrorCode("系统未能处理该请求，已转人工", 500),
    # who asks
    "actor_unauthenticated": ErrorCode("请先登录", 401),
    "actor_forbidden": ErrorCode("无权进行此操作", 403),
    "sealed_unreadable": ErrorCode("加密内容无法解读", 400),
    # people and documents
    "document_invalid": ErrorCode("证件信息有误", 422),
    "phone_invalid": ErrorCode("手机号码有误", 422),
    "uscc_invalid": ErrorCode("统一社会信用代码有误", 422),
    "agreement_missing": ErrorCode("请先阅读并同意用户协议", 422),
    "proof_invalid": ErrorCode("手机验证已失效，请重新验证", 401),
    "child_unknown": ErrorCode("未找到该孩子信息", 404),
    "child_exists": ErrorCode("该孩子已添加", 409),
    "child_limit": ErrorCode("一个账户最多可添加 10 个孩子", 409),
    "child_preschool": ErrorCode("学科类培训不得面向学龄前儿童", 422),
    # SMS codes
    "code_too_soon": ErrorCode("验证码发送过于频繁，请稍后再试", 429, retryable=True),
    "code_quota": ErrorCode("验证码发送次数已达上限", 429, retryable=True),
    "code_wrong": ErrorCode("验证码错误或已失效", 401),
    # catalog
    "institution_not_registered": ErrorCode("未在监管平台注册，属非正规机构，请勿交费", 404),
    "institution_exists": ErrorCode("该机构已登记", 409),
    "institution_not_listed": ErrorCode("该机构当前不得招生收费", 409),
    "institution_undisclosed": ErrorCode("机构公示信息不完整", 422),
    "institution_state": ErrorCode("机构状态不允许此操作", 409),
    "institution_frozen": ErrorCode("该机构已被冻结，暂停招生收费", 409, retryable=True),
    "freeze_until": ErrorCode("冻结期限有误", 422),
    "course_unknown": ErrorCode("未找到该课程", 404),
    "course_exists": ErrorCode("该课程已发布", 409),
    "course_limit_lessons": ErrorCode("一次收费超过 60 课时", 422),
    "course_limit_price": ErrorCode("一次收费超过 5000 元", 422),
    "course_limit_span": ErrorCode("一次收费跨度超过 3 个月", 422),
    "course_time_of_day": ErrorCode("培训时间不符合规定", 422),
    "course_lead_time": ErrorCode("不得早于开课前 1 个月收费", 422),
    "course_promotion_forbidden": ErrorCode("不得以预付优惠、买赠等方式促销", 422),
    "course_full": ErrorCode("课程名额已满", 409, retryable=True),
    "course_not_on_sale": ErrorCode("课程尚未开始报名", 409, retryable=True),
    "course_started": ErrorCode("课程已开课，不能再购买", 409),
    "seat_unknown": ErrorCode("未找到该名额", 404),
    "seat_expired": ErrorCode("名额保留已超时", 409),
    # purchase and lessons
    "profile_incomplete": ErrorCode("请先完善孩子和合同签订人信息", 409),
    "order_unknown": ErrorCode("未找到该订单", 404, retryable=True),
    "order_exists": ErrorCode("订单编号已被使用", 409),
    "order_state": ErrorCode("订单当前状态不允许此操作", 409),
    "contract_changed": ErrorCode("合同内容与所签不一致", 409),
    "lesson_unknown": ErrorCode("未找到该课次", 404),
    "lesson_not_over": ErrorCode("课程尚未结束，不可提前销课", 409, retryable=True),
    "lesson_state": ErrorCode("该课次当前状态不允许此操作", 409),
    # objections and refunds
    "objection_unknown": ErrorCode("未找到该课次的异议", 404),
    "objection_state": ErrorCode("该异议当前状态不允许此操作", 409),
    "refund_unknown": ErrorCode("未找到该退费申请", 404),
    "refund_exists": ErrorCode("该订单已有退费", 409),
    "refund_state": ErrorCode("退费申请当前状态不允许此操作", 409),
    "refund_nothing": ErrorCode("没有可退的费用", 409),
    "refund_pending": ErrorCode("有待确认或有异议的课次，请先处理或明确排除", 409),
    "windup_unknown": ErrorCode("该机构没有批量退费", 404),
    "refund_changed": ErrorCode("退费金额已变化，请重新查询", 409),
    # invoices
    "invoice_lesson_not_released": ErrorCode("该课次费用尚未拨付，不能开具发票", 409, retryable=True),
    "invoice_exists": ErrorCode("该课次已开具发票或发票号码已使用", 409),
    "invoice_amount": ErrorCode("发票金额与已拨付费用不一致", 422),
    "invoice_unknown": ErrorCode("未找到该发票", 404),
    "invoice_state": ErrorCode("该发票已红冲", 409),
    # escrow
    "hold_exists": ErrorCode("该订单资金已登记", 409),
    "amount_invalid": ErrorCode("金额有误", 422),
    "lesson_settled": ErrorCode("该课次费用已另行处理", 409),
    "escrow_insufficient": ErrorCode("监管账户余额不足", 409),
    "suspense_unknown": ErrorCode("未找到该笔挂账资金", 404),
    "suspense_state": ErrorCode("该笔挂账资金当前状态不允许此操作", 409),
    "suspense_elsewhere": ErrorCode("该笔资金不在该订单的监管账户", 409),
    "suspense_attempts": ErrorCode("该笔挂账资金退回次数已达上限，请与银行核对", 409),
    # complaints
    "route_unknown": ErrorCode("未找到该地区和类别的受理部门", 422),
    "complaint_unknown": ErrorCode("未找到该投诉举报", 404),
    "complaint_state": ErrorCode("投诉举报当前状态不允许此操作", 409),
    "complaint_needs_guardian": ErrorCode("投诉须由本人登录后提出，匿名请选择举报", 401),
}


class FieldError(BaseModel):
    """One fault of one field: `field` is a dotted path, `message` says what is wrong and what is allowed."""

    model_config = ConfigDict(frozen=True)
    field: str
    message: str
    code: str = ""


class Refused(Exception):
    """A business refusal. In: a code of `CODES`, what happened in words, faults by field, and the figures that decided.

    Raise it before anything is changed; the road turns it into a `Problem` and answers the request with it.
    """

    def __init__(self, code: str, detail: str = "", *, errors: Sequence[FieldError] = (), **figures: int | str) -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}: add it to shared/contracts/errors.py")
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.figures = figures


class ProblemBody(BaseModel):
    """The members of an RFC 9457 problem plus ours (`code`, `retryable`, `errors`, `figures`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: str
    title: str
    status: int
    detail: str = ""
    code: str
    retryable: bool
    errors: tuple[FieldError, ...] = ()
    figures: dict[str, int | str] = {}
    request_type: str
    language: Literal["zh-CN"] = "zh-CN"

    @classmethod
    def of(cls, refused: Refused, request_type: str) -> "ProblemBody":
        """The problem that tells `refused` to whoever sent a request of `request_type`."""
        meaning = CODES[refused.code]
        return cls(
            type=f"urn:yike:problem:{refused.code}",
            title=meaning.title_zh,
            status=meaning.status,
            detail=refused.detail,
            code=refused.code,
            retryable=meaning.retryable,
            errors=refused.errors,
            figures=refused.figures,
            request_type=request_type,
        )
