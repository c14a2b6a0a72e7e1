"""The rules of notify: limits of codes, what a typed code is worth, the life of an SMS."""

import dataclasses
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.notify import domain
from services.notify.domain import (
    Cause,
    Challenge,
    ChallengeState,
    Lane,
    Notice,
    Sms,
    SmsState,
    check_limits,
    code_sms,
    notice_sms,
    open_challenge,
    try_code,
)
from shared.contracts.errors import Refused
from shared.policy import CodeRules

RULES = CodeRules()
NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
NIGHT = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)  # 22:00 in Shanghai
MORNING = datetime(2026, 11, 24, 0, 0, tzinfo=UTC)  # 08:00 in Shanghai, the day after
CAUSE = Cause(uuid4(), uuid4(), "")


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def refused(now: datetime, *recent: list[datetime]) -> tuple[str, int]:
    with pytest.raises(Refused) as caught:
        check_limits(RULES, now, recent)
    retry_after_s = caught.value.figures["retry_after_s"]
    assert isinstance(retry_after_s, int)
    return caught.value.code, retry_after_s


def challenge() -> Challenge:
    return open_challenge(uuid4(), "sign_in", "encrypted phone", (b"phone", b"code"), RULES, NOON)


def sms_of_code() -> Sms:
    return code_sms(uuid4(), challenge(), "recipient", "encrypted code", 5, CAUSE)


def notice(now: datetime, phone: str | None = "encrypted phone", lives: timedelta = timedelta(days=1)) -> Sms:
    made = Notice(UUID(int=1), "contract.waiting", "order", {"title": "画画"}, now + lives, CAUSE)
    return notice_sms(uuid4(), made, phone, now)


def test_states_and_lanes_are_words_that_rows_hold() -> None:
    assert [state.value for state in ChallengeState] == ["open", "used", "killed"]
    assert [lane.value for lane in Lane] == ["code", "notice"]
    assert [state.value for state in SmsState] == [
        "no_contact", "queued", "sending", "sent", "failed", "unknown", "dropped",
    ]  # fmt: skip


class TestLimits:
    def test_the_first_code_is_free(self) -> None:
        check_limits(RULES, NOON, [[], [], []])

    def test_the_next_code_waits_sixty_seconds(self) -> None:
        assert refused(NOON + s(59.5), [NOON]) == ("code_too_soon", 1)
        assert refused(NOON + s(10), [NOON]) == ("code_too_soon", 50)
        check_limits(RULES, NOON + s(60), [[NOON]])

    def test_a_send_that_another_copy_has_just_made_counts_though_it_is_after_our_now(self) -> None:
        assert refused(NOON, [NOON + s(0.2)]) == ("code_too_soon", 61)

    def test_an_hour_holds_five(self) -> None:
        sends = [NOON + s(61 * n) for n in range(5)]
        now = NOON + s(61 * 5)
        assert refused(now, sends) == ("code_quota", 3600 - 61 * 5)
        check_limits(RULES, NOON + s(3600), [sends])

    def test_a_day_holds_ten(self) -> None:
        sends = [NOON + s(1800 * n) for n in range(10)]
        now = NOON + s(1800 * 12)
        assert refused(now, sends) == ("code_quota", 86400 - 1800 * 12)
        check_limits(RULES, NOON + s(86400), [sends[1:]])

    def test_order_of_the_times_does_not_matter(self) -> None:
        sends = [NOON + s(61 * n) for n in (3, 0, 4, 1, 2)]
        assert refused(NOON + s(400), sends)[0] == "code_quota"

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_phone_device_and_address_count_each_for_itself(self, place: int) -> None:
        recent: list[list[datetime]] = [[], [], []]
        recent[place] = [NOON]
        assert refused(NOON + s(1), *recent) == ("code_too_soon", 59)

    def test_the_longest_wait_is_told(self) -> None:
        assert refused(NOON + s(1), [NOON], [NOON - s(30)]) == ("code_too_soon", 59)
        five = [NOON - s(61 * n) for n in range(5)]
        assert refused(NOON, five) == ("code_quota", 3600 - 61 * 4)


class TestTyping:
    def test_a_new_challenge_is_open_and_nobody_has_tried(self) -> None:
        one = challenge()
        assert (one.purpose, one.phone, one.phone_hash, one.code_hash) == (
            "sign_in", "encrypted phone", b"phone", b"code",
        )  # fmt: skip
        assert (one.state, one.tries, one.sent_at) == (ChallengeState.OPEN, 0, NOON)
        assert (one.resend_after, one.expires_at) == (NOON + s(60), NOON + s(300))

    def test_the_right_code_gives_the_phone_once(self) -> None:
        one = challenge()
        assert try_code(one, True, RULES, NOON + s(299)) == "encrypted phone"
        assert (one.state, one.phone) == (ChallengeState.USED, None)
        assert try_code(one, True, RULES, NOON + s(299)) is None

    def test_a_code_lives_five_minutes(self) -> None:
        one = challenge()
        assert try_code(one, True, RULES, NOON + s(300)) is None
        assert (one.state, one.tries) == (ChallengeState.OPEN, 0)

    def test_the_fifth_wrong_try_kills_it(self) -> None:
        one = challenge()
        for tries in range(1, 6):
            assert one.state is ChallengeState.OPEN
            assert try_code(one, False, RULES, NOON) is None
            assert one.tries == tries
        assert (one.state, one.phone) == (ChallengeState.KILLED, None)
        assert try_code(one, True, RULES, NOON) is None

    def test_the_fifth_try_may_still_be_right(self) -> None:
        one = challenge()
        for _ in range(4):
            try_code(one, False, RULES, NOON)
        assert try_code(one, True, RULES, NOON) == "encrypted phone"

    def test_a_dead_challenge_counts_no_more(self) -> None:
        one = challenge()
        for _ in range(7):
            try_code(one, False, RULES, NOON)
        assert one.tries == 5


class TestSms:
    def test_an_sms_says_to_whom_what_and_why(self) -> None:
        made, sms = challenge(), sms_of_code()
        assert (sms.purpose, sms.params, sms.recipient) == ("code.sign_in", {"minutes": "5"}, "recipient")
        assert (sms.phone, sms.code, sms.lane) == ("encrypted phone", "encrypted code", Lane.CODE)
        assert (sms.state, sms.created_at, sms.not_before, sms.expires_at) == (
            SmsState.QUEUED, made.sent_at, made.sent_at, made.expires_at,
        )  # fmt: skip
        told = notice(NOON)
        assert (told.purpose, told.subject, told.params) == ("contract.waiting", "order", {"title": "画画"})
        assert (told.recipient, told.phone, told.code) == (str(UUID(int=1)), "encrypted phone", None)
        for one in (sms, told):
            assert (one.reason, one.provider, one.tries) == ("", "", 0)
            assert (one.claim, one.claimed_at, one.finished_at) == (None, None, None)
            assert (one.correlationid, one.causationid, one.traceparent) == (
                CAUSE.correlationid, CAUSE.causationid, CAUSE.traceparent,
            )  # fmt: skip

    def test_all_that_the_life_of_an_sms_changes_is_written(self) -> None:
        new, sms = sms_of_code(), sms_of_code()
        domain.claim(sms, uuid4(), NOON, NOON)
        claimed = dataclasses.replace(sms)
        domain.postpone(sms, NOON, "flow", None)
        domain.end(sms, SmsState.SENT, "", NOON, "file")
        seen = {
            field.name
            for field in dataclasses.fields(Sms)
            for one in (claimed, sms)
            if getattr(new, field.name) != getattr(one, field.name)
        }
        assert seen - {"id", "subject"} | {"reason"} == set(domain.SMS_CHANGES)
        assert len(domain.SMS_CHANGES) == 10

    def test_one_that_nobody_has_sent_has_no_provider(self) -> None:
        sms = sms_of_code()
        domain.end(sms, SmsState.DROPPED, "late", NOON)
        assert sms.provider == ""

    def test_a_notice_that_would_come_just_when_it_is_useless_is_dropped(self) -> None:
        assert notice(NIGHT, lives=MORNING - NIGHT).state is SmsState.DROPPED
        assert notice(NIGHT, lives=MORNING - NIGHT + s(1)).state is SmsState.QUEUED

    def test_a_code_goes_out_at_any_hour(self) -> None:
        made = open_challenge(uuid4(), "sign_in", "p", (b"", b""), RULES, NIGHT)
        assert code_sms(uuid4(), made, "r", "c", 5, CAUSE).not_before == NIGHT

    def test_a_notice_waits_for_the_morning(self) -> None:
        assert notice(NIGHT).not_before == MORNING
        assert notice(NOON).not_before == NOON

    def test_a_notice_without_a_phone_waits_for_it(self) -> None:
        assert notice(NOON, phone=None).state is SmsState.NO_CONTACT
        assert notice(NOON).state is SmsState.QUEUED

    def test_a_notice_that_would_come_too_late_is_dropped_and_kept_as_a_record(self) -> None:
        late = notice(NIGHT, lives=timedelta(minutes=15))
        assert (late.state, late.reason, late.phone, late.finished_at) == (SmsState.DROPPED, "late", None, NIGHT)
        assert notice(NIGHT, phone=None, lives=timedelta(minutes=15)).state is SmsState.DROPPED

    def test_a_claimed_sms_is_sending(self) -> None:
        sms, claim_id = sms_of_code(), uuid4()
        assert domain.claim(sms, claim_id, NOON, NOON)
        assert (sms.state, sms.claim, sms.claimed_at) == (SmsState.SENDING, claim_id, NOON)

    def test_an_expired_code_is_not_sent_any_more(self) -> None:
        sms = sms_of_code()
        assert not domain.claim(sms, uuid4(), NOON, NOON + s(300))
        assert (sms.state, sms.code, sms.phone) == (SmsState.DROPPED, None, None)
        assert (sms.reason, sms.finished_at) == ("late", NOON + s(300))

    @pytest.mark.parametrize("state", [SmsState.SENT, SmsState.FAILED, SmsState.UNKNOWN, SmsState.DROPPED])
    def test_phone_and_code_go_when_it_is_over(self, state: SmsState) -> None:
        sms = sms_of_code()
        domain.claim(sms, uuid4(), NOON, NOON)
        domain.end(sms, state, "why", NOON, "file")
        assert (sms.phone, sms.code, sms.claim, sms.claimed_at) == (None, None, None, None)
        assert (sms.state, sms.reason, sms.finished_at, sms.provider) == (state, "why", NOON, "file")

    def test_a_throttled_one_comes_later_each_time(self) -> None:
        sms, pauses = sms_of_code(), []
        for _ in range(9):
            domain.claim(sms, uuid4(), NOON, NOON)
            domain.postpone(sms, NOON, "flow", None)
            assert (sms.state, sms.reason, sms.claim) == (SmsState.QUEUED, "flow", None)
            pauses.append((sms.not_before - NOON).total_seconds())
        assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]

    def test_what_the_provider_says_counts_when_it_is_longer(self) -> None:
        sms = sms_of_code()
        domain.postpone(sms, NOON, "flow", 90)
        assert sms.not_before == NOON + s(90)

    def test_a_notice_put_back_at_night_waits_for_the_morning(self) -> None:
        sms = notice(NOON)
        domain.requeue(sms, NIGHT)
        assert sms.not_before == MORNING
        code = sms_of_code()
        domain.requeue(code, NIGHT)
        assert (code.lane, code.not_before) == (Lane.CODE, NIGHT)
