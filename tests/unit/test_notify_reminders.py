"""Which event becomes which notice, and what people read."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import pytest

from services.notify import reminders
from services.notify.domain import Notice
from services.notify.reminders import WORDING, wording
from shared.contracts.complaints import FilingMoved, FilingState
from shared.contracts.envelope import Data, Message
from shared.contracts.escrow import PayoutReturned, Refunded, Settled, SettlementDelayed
from shared.contracts.orders import ContractDrawn, LessonApplied, LessonConfirmed, LessonWaiting
from shared.policy import promotion_fault

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
ORDER = UUID("018f0000-0000-7000-8000-0000005abcde")
ACCOUNT = UUID(int=1)
INSTITUTION = UUID(int=2)


def message(data: Data) -> Message[Any]:
    return Message[Any](
        id=UUID(int=7), source="/t", type=data.TYPE, time=NOW, correlationid=UUID(int=8), traceparent="t", data=data
    )


def text_of(notice: Notice | None) -> str:
    assert notice is not None
    return wording(notice.purpose, notice.params)


def drawn(title: str = "少儿国画启蒙班", sign_by: datetime = NOW + timedelta(minutes=15)) -> Message[ContractDrawn]:
    return message(
        ContractDrawn(
            order_id=ORDER,
            account_id=ACCOUNT,
            institution_id=INSTITUTION,
            title=title,
            contract_sha256="0" * 64,
            sign_by=sign_by,
        )
    )


def applied(answer_by: datetime) -> Message[LessonApplied]:
    return message(
        LessonApplied(
            order_id=ORDER,
            account_id=ACCOUNT,
            institution_id=INSTITUTION,
            lesson_no=3,
            title="国画",
            answer_by=answer_by,
        )
    )


def waiting(reminder: Literal["third_day", "last_day"], answer_by: datetime = NOW) -> Message[LessonWaiting]:
    first = applied(answer_by).data.model_dump()
    return message(LessonWaiting(**first, reminder=reminder))


def confirmed(by: Literal["guardian", "silence", "authority"]) -> Message[LessonConfirmed]:
    return message(LessonConfirmed(**applied(NOW).data.model_dump(exclude={"answer_by"}), by=by))


def moved(
    state: FilingState = "accepted", account: UUID | None = ACCOUNT, overdue: bool = False, department: str = "市教育局"
) -> Message[FilingMoved]:
    return message(
        FilingMoved(
            filing_id=UUID(int=5),
            number="TS20261123001",
            kind="complaint",
            account_id=account,
            order_id=None,
            state=state,
            department=department,
            hotline="0519-85681357",
            overdue=overdue,
        )
    )


def settled() -> Message[Settled]:
    return message(
        Settled(order_id=ORDER, account_id=ACCOUNT, institution_id=INSTITUTION, lesson_no=3, amount_fen=12345)
    )


def refund(lesson_no: int = 0) -> Message[Refunded]:
    return message(Refunded(order_id=ORDER, account_id=ACCOUNT, lesson_no=lesson_no, amount_fen=500000))


def returned(**changes: Any) -> Message[PayoutReturned]:
    values: dict[str, Any] = {"order_id": ORDER, "lesson_no": 3, "amount_fen": 12345, "reason": "账户已销户", "turn": 1}
    return message(PayoutReturned(institution_id=INSTITUTION, **(values | changes)))


def delayed(outcome: Literal["refused", "returned"] = "returned", reason: str = "") -> Message[SettlementDelayed]:
    return message(
        SettlementDelayed(
            settlement_id=UUID(int=9),
            institution_id=INSTITUTION,
            number="G000000000000000000000000900",
            amount_fen=5_000_000,
            outcome=outcome,
            reason=reason,
        )
    )


def test_the_text_of_a_code_holds_the_code_and_no_other_six_digits() -> None:
    text = wording("code.sign_in", {"code": "012345", "minutes": "5"})
    assert text.startswith("【一课】")
    assert re.findall(r"\d{6}", text) == ["012345"]


def test_a_contract_waits_until_the_seat_goes() -> None:
    notice = reminders.contract_waiting(drawn(), NOW)
    assert text_of(notice) == "【一课】您购买的“少儿国画启蒙班”培训服务合同待签署，请于11月23日12:15前登录查看并签署。"
    assert (notice.subject, notice.expires_at) == (str(ORDER), NOW + timedelta(minutes=15))
    assert (notice.cause.causationid, notice.cause.correlationid) == (UUID(int=7), UUID(int=8))


def test_a_lesson_names_the_day_whose_end_makes_silence_a_confirmation() -> None:
    midnight = datetime(2026, 12, 2, 16, 0, tzinfo=UTC)  # 00:00 of 3 December in Shanghai
    notice = reminders.lesson_waiting(applied(midnight), NOW)
    assert "第3课次" in text_of(notice)
    assert "请核对后于12月2日24时前确认或提出异议，逾期未答复视为确认" in text_of(notice)
    assert notice.subject == f"{ORDER}/3"


def test_the_last_night_of_a_month_is_named_by_its_own_date() -> None:
    midnight = datetime(2026, 11, 30, 16, 0, tzinfo=UTC)
    assert "11月30日24时前" in text_of(reminders.lesson_waiting(applied(midnight), NOW))


def test_each_reminder_of_a_lesson_is_its_own_and_says_until_when() -> None:
    midnight = datetime(2026, 12, 2, 16, 0, tzinfo=UTC)
    notices = [
        reminders.lesson_waiting(applied(midnight), NOW),
        reminders.lesson_waiting(waiting("third_day", midnight), NOW),
        reminders.lesson_waiting(waiting("last_day", midnight), NOW),
    ]
    assert [notice.purpose for notice in notices] == ["lesson.waiting", "lesson.waiting.third", "lesson.waiting.last"]
    assert {(notice.subject, notice.expires_at) for notice in notices} == {(f"{ORDER}/3", midnight)}
    assert len({text_of(notice) for notice in notices}) == 3
    for notice in notices:
        assert "“国画”第3课次" in text_of(notice)
        assert "12月2日24时" in text_of(notice)
        assert "逾期未答复视为确认" in text_of(notice)


def test_a_guardian_who_was_silent_is_told_what_that_means_and_who_answered_is_not() -> None:
    notice = reminders.lesson_auto_confirmed(confirmed("silence"), NOW)
    assert "“国画”第3课次在规定期限内未收到您的答复，已自动确认" in text_of(notice)
    assert notice is not None
    assert (notice.purpose, notice.subject) == ("lesson.auto_confirmed", f"{ORDER}/3")
    assert reminders.lesson_auto_confirmed(confirmed("guardian"), NOW) is None
    assert reminders.lesson_auto_confirmed(confirmed("authority"), NOW) is None


def test_a_payout_names_lesson_and_amount() -> None:
    text = text_of(reminders.lesson_settled(settled(), NOW))
    assert text == "【一课】订单尾号5ABCDE第3课次的费用123.45元已由监管银行拨付给培训机构，可登录查看明细。"


def test_a_refund_names_the_amount_and_the_way() -> None:
    notice = reminders.order_refunded(refund(), NOW)
    assert notice is not None
    assert "退费5,000.00元已由监管银行原路退回" in text_of(notice)
    assert notice.subject == str(ORDER)
    divided = reminders.order_refunded(refund(3), NOW)
    assert divided is not None
    assert divided.subject == f"{ORDER}/3", "each divided lesson is told by itself"


def test_an_institution_reads_what_came_back_why_and_what_to_do() -> None:
    notice = reminders.payout_returned(returned(), NOW)
    assert text_of(notice) == (
        "【一课】订单尾号5ABCDE第3课次的费用123.45元拨付后被银行退回，银行原因：账户已销户。"
        "请核对收款账户，如已变更请登录修改，系统将自动重新拨付。"
    )
    assert notice is not None
    assert (notice.recipient_id, notice.subject) == (INSTITUTION, f"{ORDER}/3/1")
    kept = text_of(reminders.payout_returned(returned(lesson_no=0, reason=" "), NOW))
    assert "订单尾号5ABCDE退费中应付机构的款项123.45元" in kept
    assert "银行原因：未说明。" in kept


def test_a_payout_that_comes_back_again_is_told_again() -> None:
    again = reminders.payout_returned(returned(turn=2), NOW)
    assert again is not None
    assert again.subject == f"{ORDER}/3/2"


def test_a_gathered_payout_is_told_as_one_sum() -> None:
    assert reminders.payout_returned(returned(settlement_id=UUID(int=9)), NOW) is None
    notice = reminders.settlement_returned(delayed(reason="account_closed"), NOW)
    assert "汇总结算款50,000.00元（编号G000000000000000000000000900）拨付后被银行退回" in text_of(notice)
    assert "银行原因：account_closed。请核对收款账户" in text_of(notice)
    assert notice is not None
    assert (notice.recipient_id, notice.subject) == (INSTITUTION, "G000000000000000000000000900")


def test_a_sum_that_the_bank_refused_is_not_told() -> None:
    assert reminders.settlement_returned(delayed("refused"), NOW) is None


@pytest.mark.parametrize("state", FilingState.__args__)  # type: ignore[attr-defined]
def test_every_state_of_a_complaint_has_words(state: FilingState) -> None:
    text = text_of(reminders.complaint_moved(moved(state), NOW))
    assert "您提交的投诉（编号TS20261123001）" in text
    assert "市教育局，电话：0519-85681357" in text
    assert state not in text


def test_an_anonymous_filing_tells_nobody() -> None:
    assert reminders.complaint_moved(moved(account=None), NOW) is None


def test_each_step_of_a_complaint_is_its_own_subject() -> None:
    steps = [
        moved("accepted"),
        moved("transferred"),
        moved("transferred", department="市科技局"),
        moved("accepted", overdue=True),
    ]
    keys = set()
    for step in steps:
        notice = reminders.complaint_moved(step, NOW)
        assert notice is not None
        keys.add((notice.purpose, notice.subject))
    assert len(keys) == len(steps)


def test_what_others_wrote_is_short_and_on_one_line() -> None:
    text = text_of(reminders.contract_waiting(drawn("名师“一对一”\n【优惠】\u202e" + "很长" * 30), NOW))
    assert "\n" not in text
    assert "\u202e" not in text
    assert text.count("“") == text.count("”") == text.count("【") == 1
    assert "名师一对一 优惠很长很长" in text
    assert "…" in text


def test_braces_in_a_title_are_no_wording() -> None:
    assert "“{code}”" in text_of(reminders.contract_waiting(drawn("{code}"), NOW))


@pytest.mark.parametrize("purpose", sorted(WORDING))
def test_no_wording_promotes_anything(purpose: str) -> None:
    assert promotion_fault(WORDING[purpose]) is None
    assert not re.search(r"恭喜|优惠|限时|点击|链接|http", WORDING[purpose])


def test_subjects_and_purposes_fit_their_columns() -> None:
    notices = [
        reminders.contract_waiting(drawn(), NOW),
        reminders.lesson_waiting(applied(NOW), NOW),
        reminders.lesson_waiting(waiting("third_day"), NOW),
        reminders.lesson_waiting(waiting("last_day"), NOW),
        reminders.lesson_auto_confirmed(confirmed("silence"), NOW),
        reminders.lesson_settled(settled(), NOW),
        reminders.order_refunded(refund(), NOW),
        reminders.complaint_moved(moved("in_progress", overdue=True), NOW),
        reminders.payout_returned(returned(lesson_no=40_000, turn=35), NOW),
        reminders.settlement_returned(delayed(), NOW),
    ]
    for notice in notices:
        assert notice is not None
        assert len(notice.subject) <= 100
        assert len(notice.purpose) <= 40
