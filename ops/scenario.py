"""Real families, institutions and authorities, as a gateway plays them: over Kafka only. For demo, tests and bench.

Everything goes through `GatewayClient`; the SMS code is read from the file of notify's file provider, as a person would
read it on the phone. Ids are made here, as gateways make them, so that a request may be sent again safely.
"""

import asyncio
import dataclasses
import json
import random
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from joserfc.jwk import OKPKey

from shared.actors import Actor, Role, issue_token
from shared.contracts.catalog import (
    BankAccount,
    CourseView,
    Disclosure,
    InstitutionView,
    Licence,
    PublishCourse,
    RegisterInstitution,
    SetInstitutionState,
    Teacher,
)
from shared.contracts.complaints import FileComplaint, FilingView
from shared.contracts.envelope import Reply, Request
from shared.contracts.notify import CheckCode, Code, CodeChecked, ContactNamed, NameContact, Phone, SendCode
from shared.contracts.orders import (
    AddChild,
    AnswerObjection,
    ApplyLesson,
    ChildDetails,
    ConfirmLesson,
    DecideObjection,
    Decision,
    LessonAnswer,
    ObjectionView,
    ObjectLesson,
    PayPurchase,
    PlacePurchase,
    PurchaseView,
    QuoteRefund,
    RefundQuote,
    RefundView,
    ReplyKey,
    RequestRefund,
    SetSigner,
    ShowObjection,
    ShowPurchase,
    ShowRefund,
    SignContract,
    SignedIn,
    SignerDetails,
    SignIn,
    Token,
)
from shared.contracts.types import LessonTime, RefundTerms
from shared.documents import DocumentType, Sex, card_check_digit, uscc_check_character
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging.rpc import GatewayClient, OutcomeUnknown, RequestRefused
from shared.policy import Category
from shared.sealing import seal, unseal
from shared.working_days import SHANGHAI

R = TypeVar("R", bound=Reply)

PROGRESS_S: Final = 0.05
"""How often a gateway asks how a purchase stands."""
PATIENCE_S: Final = 60.0
CODE_IN_SMS: Final = re.compile(r"验证码为(\d{6})")
LESSON_HOUR: Final = time(18, 0)


class ScenarioError(Exception):
    """What should have happened did not."""


@dataclass(slots=True)
class Institution:
    """An institution on the white list, and who acts for it."""

    institution_id: UUID
    name: str
    uscc: str
    account: BankAccount
    token: str = field(repr=False)


@dataclass(slots=True)
class Guardian:
    """A signed-in guardian with a child and a signer."""

    account_id: UUID
    phone: str
    token: str = field(repr=False)
    child_id: UUID | None = None


@dataclass(slots=True)
class Bought:
    """A purchase in its course."""

    order_id: UUID
    guardian: Guardian
    institution: Institution
    course: CourseView
    contract_sha256: str


class Scenario:
    """Plays everybody at the gateway. `clock_offset` is how far the stack's clock stands from this machine's."""

    def __init__(
        self,
        client: GatewayClient,
        keys: Path,
        sms_file: Path,
        *,
        seed: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.client = client
        self.patience_s = patience_s
        self.sms_file = sms_file
        self.clock_offset = timedelta(0)
        self._public = KeyRing.load_public(keys)
        self._ops = KeyRing.load(keys, "ops")
        self._random = random.Random(seed if seed is not None else secrets.randbits(64))
        self._children: set[str] = set()
        # The gateway's own key: what is secret in an answer is sealed to it.
        self._own = OKPKey.generate_key("X25519", {"kid": f"gateway.seal.{secrets.token_hex(4)}"}, private=True)

    def now(self) -> datetime:
        """The time of the stack, as near as this machine knows it."""
        return datetime.now(UTC) + self.clock_offset

    def token(self, role: Role, subject: str) -> str:
        """A token as the operator's side issues it to authorities, institutions and operators."""
        return issue_token(self._ops, Actor(subject, role), now=self.now(), lifetime_seconds=30 * 86_400)

    async def ask(self, request: Request, answer: type[R], token: str = "") -> R:
        """Asks and awaits; where the outcome is unknown, the very same request is sent again."""
        message_id = new_id()
        loop = asyncio.get_running_loop()
        until = loop.time() + self.patience_s
        while True:
            try:
                reply = await self.client.ask(request, token=token, message_id=message_id, timeout_s=10.0)
            except OutcomeUnknown:
                if loop.time() > until:
                    raise
                await asyncio.sleep(PROGRESS_S)
            else:
                if not isinstance(reply, answer):
                    raise ScenarioError(f"{request.TYPE} was answered with {reply!r}")
                return reply

    # --- institutions -----------------------------------------------------------------------------------------------

    async def open_institution(
        self, name: str, *, category: Category = Category.SPORTS, district: str = "天宁区", bank: str = "icbc"
    ) -> Institution:
        """An institution that applied, disclosed everything, was put on the white list and has named a phone."""
        institution_id = new_id()
        authority = self.token("authority", "changzhou-edu")
        digits = "".join(str(self._random.randrange(10)) for _ in range(7))
        first = f"91320400MA{digits}"
        uscc = first + uscc_check_character(first)
        account = BankAccount(
            bank=bank, supervised_account=f"1105{digits}001", payout_account=f"6222{digits}{institution_id.hex[-6:]}"
        )
        now = self.now()
        licence = Licence(
            number=f"教民{digits}号",
            issued_by="常州市天宁区教育局",
            valid_from=now - timedelta(days=365),
            valid_until=now + timedelta(days=3 * 365),
        )
        registered = RegisterInstitution(
            institution_id=institution_id,
            uscc=uscc,
            name=name,
            district=district,
            category=category,
            disclosure=Disclosure(
                licences=(licence,),
                venue="常州市天宁区锦绣路 2 号 3 楼",
                teachers=(Teacher(name="王教练", qualification="二级社会体育指导员"),),
                materials="自编教材，已备案",
                fee_standard="每课 100 元起，已公示",
                refund_rules="未上课时全额退费",
                account=account,
            ),
        )
        await self.ask(registered, InstitutionView, authority)
        listed = SetInstitutionState(institution_id=institution_id, state="listed", reason="审核通过")
        await self.ask(listed, InstitutionView, authority)
        token = self.token("institution", str(institution_id))
        phone = seal(self._public, "notify", Phone(phone=f"1386{digits}"))
        await self.ask(NameContact(institution_id=institution_id, phone=phone), ContactNamed, token)
        return Institution(institution_id, name, uscc, account, token)

    async def publish_course(
        self,
        institution: Institution,
        title: str,
        *,
        lessons: int = 12,
        price_fen: int = 120_000,
        seats: int = 20,
        refund_terms: RefundTerms | None = None,
        course_id: UUID | None = None,
    ) -> CourseView:
        """A course of one lesson a day at six in the evening, beginning tomorrow."""
        first_day = self.now().astimezone(SHANGHAI).date() + timedelta(days=1)
        plan = []
        for number in range(lessons):
            starts_at = datetime.combine(first_day + timedelta(days=number), LESSON_HOUR, SHANGHAI).astimezone(UTC)
            plan.append(
                LessonTime(lesson_no=number + 1, starts_at=starts_at, ends_at=starts_at + timedelta(minutes=60))
            )
        request = PublishCourse(
            course_id=course_id or new_id(),
            institution_id=institution.institution_id,
            title=title,
            price_fen=price_fen,
            lessons=tuple(plan),
            refund_terms=refund_terms or RefundTerms(),
            seats=seats,
        )
        return await self.ask(request, CourseView, institution.token)

    # --- families ---------------------------------------------------------------------------------------------------

    async def sign_in(self, phone: str | None = None) -> Guardian:
        """Phone, code from the SMS, agreement: the first time makes the account."""
        phone = phone or "139" + "".join(str(self._random.randrange(10)) for _ in range(8))
        challenge_id = new_id()
        sending = SendCode(challenge_id=challenge_id, phone=seal(self._public, "notify", Phone(phone=phone)))
        await self.ask(sending, Reply, "")
        code = await self._code_sent_to(phone)
        checking = CheckCode(challenge_id=challenge_id, code=seal(self._public, "notify", Code(code=code)))
        checked = await self.ask(checking, CodeChecked)
        public: dict[str, Any] = dict(self._own.as_dict(private=False))
        reply_key = ReplyKey(kid=str(public["kid"]), x=str(public["x"]))
        signing_in = SignIn(proof=checked.proof, agreement_version="2026-09", reply_key=reply_key)
        signed_in = await self.ask(signing_in, SignedIn)
        assert signed_in.sealed_token is not None
        mine = KeyRing("gateway", None, {reply_key.kid: self._own}, {}, {}, None, None)
        token = unseal(mine, signed_in.sealed_token, Token).token
        return Guardian(signed_in.account_id, phone, token)

    async def _code_sent_to(self, phone: str) -> str:
        """The code in the newest SMS to `phone`, as soon as it is there."""
        async with asyncio.timeout(self.patience_s):
            while True:
                for sms in reversed(read_sms(self.sms_file)):
                    found = CODE_IN_SMS.search(sms["text"])
                    if found and sms["phone"].endswith(phone):
                        return found[1]
                await asyncio.sleep(PROGRESS_S)

    async def add_family(self, guardian: Guardian, child: str = "张小明", signer: str = "张伟") -> None:
        """A child and a signer, with documents that pass every check."""
        await self._add_child(guardian, child)
        signing = SignerDetails(
            name=signer,
            phone=guardian.phone,
            address="常州市天宁区青龙街道 8 号",
            document_type=DocumentType.RESIDENT_IDENTITY_CARD,
            document_number=self._card("19850307", male=True),
        )
        setting = SetSigner(account_id=guardian.account_id, details=seal(self._public, "orders", signing))
        await self.ask(setting, Reply, guardian.token)

    async def with_another_child(self, guardian: Guardian) -> Guardian:
        """The same guardian, buying for one child more."""
        other = dataclasses.replace(guardian)
        await self._add_child(other, "张小华")
        return other

    async def _add_child(self, guardian: Guardian, name: str) -> None:
        guardian.child_id = new_id()
        born, number = self._new_child()
        details = ChildDetails(
            name=name,
            sex=Sex.MALE,
            birth_date=f"{born[:4]}-{born[4:6]}-{born[6:]}",
            document_type=DocumentType.RESIDENT_IDENTITY_CARD,
            document_number=number,
        )
        adding = AddChild(
            account_id=guardian.account_id, child_id=guardian.child_id, details=seal(self._public, "orders", details)
        )
        await self.ask(adding, Reply, guardian.token)

    def _new_child(self) -> tuple[str, str]:
        """Birthday and card of a child: no two have one card, or they would be one child."""
        while True:
            born = f"2016{self._random.randrange(1, 13):02d}{self._random.randrange(1, 29):02d}"
            number = self._card(born, male=True)
            if number not in self._children:
                self._children.add(number)
                return born, number

    def _card(self, born: str, *, male: bool) -> str:
        """A resident identity card number that nobody has: a valid form for the district 320402."""
        order = self._random.randrange(100) * 10 + self._random.randrange(5) * 2 + male
        first = f"320402{born}{order:03d}"
        return first + card_check_digit(first)

    async def new_guardian(self, phone: str | None = None) -> Guardian:
        """Somebody who can buy."""
        guardian = await self.sign_in(phone)
        await self.add_family(guardian)
        return guardian

    # --- purchase and lessons ---------------------------------------------------------------------------------------

    async def buy(self, guardian: Guardian, institution: Institution, course: CourseView) -> Bought:
        """Place, contract, signature, payment: until the child is in the course, else ScenarioError."""
        order_id = new_id()
        placing = PlacePurchase(
            order_id=order_id, account_id=guardian.account_id, child_id=guardian.child_id, course_id=course.course_id
        )
        await self.ask(placing, PurchaseView, guardian.token)
        drawn = await self.until_state(order_id, guardian.token, "to_sign")
        signing = SignContract(order_id=order_id, contract_sha256=drawn.contract_sha256)
        await self.ask(signing, PurchaseView, guardian.token)
        await self.ask(PayPurchase(order_id=order_id, method="alipay"), PurchaseView, guardian.token)
        await self.until_state(order_id, guardian.token, "enrolled")
        return Bought(order_id, guardian, institution, course, drawn.contract_sha256)

    async def until_state(self, order_id: UUID, token: str, *states: str) -> PurchaseView:
        """Asks how the purchase stands until it stands in one of `states`. Raises ScenarioError when it has ended."""
        async with asyncio.timeout(self.patience_s):
            while True:
                view = await self.show(order_id, token)
                if view.state in states:
                    return view
                if view.state == "ended":
                    raise ScenarioError(f"the purchase ended: {view.reason}")
                await asyncio.sleep(PROGRESS_S)

    async def show(self, order_id: UUID, token: str) -> PurchaseView:
        """How the purchase stands."""
        return await self.ask(ShowPurchase(order_id=order_id), PurchaseView, token)

    async def until_lesson(self, bought: Bought, lesson_no: int, state: str) -> PurchaseView:
        """Asks until the lesson stands in `state`."""
        async with asyncio.timeout(self.patience_s):
            while True:
                view = await self.show(bought.order_id, bought.guardian.token)
                if view.lessons[lesson_no - 1].state == state:
                    return view
                await asyncio.sleep(PROGRESS_S)

    async def apply_for(self, bought: Bought, lesson_no: int) -> LessonAnswer:
        """The institution files a lesson as taught."""
        request = ApplyLesson(order_id=bought.order_id, lesson_no=lesson_no)
        return await self.ask(request, LessonAnswer, bought.institution.token)

    async def confirm(self, bought: Bought, lesson_no: int) -> LessonAnswer:
        """The guardian confirms a lesson."""
        request = ConfirmLesson(order_id=bought.order_id, lesson_no=lesson_no)
        return await self.ask(request, LessonAnswer, bought.guardian.token)

    async def object_to(self, bought: Bought, lesson_no: int, reason: str, evidence: str = "") -> LessonAnswer:
        """The guardian objects to a lesson."""
        request = ObjectLesson(order_id=bought.order_id, lesson_no=lesson_no, reason=reason, evidence=evidence)
        return await self.ask(request, LessonAnswer, bought.guardian.token)

    async def ask_refund(
        self, bought: Bought, reason: str, *, at_fault: bool = False, excluded: tuple[int, ...] = ()
    ) -> RefundView:
        """The guardian looks at the quote and asks for what it says."""
        order_id, token = bought.order_id, bought.guardian.token
        quote = await self.ask(QuoteRefund(order_id=order_id, at_fault=at_fault), RefundQuote, token)
        request = RequestRefund(
            order_id=order_id,
            refund_id=new_id(),
            reason=reason,
            quoted_fen=quote.refund_fen,
            at_fault=at_fault,
            excluded=excluded,
        )
        return await self.ask(request, RefundView, token)

    async def until_refund(self, bought: Bought, *states: str) -> RefundView:
        """Asks until the order's refund stands in one of `states`."""
        async with asyncio.timeout(self.patience_s):
            while True:
                view = await self.ask(ShowRefund(order_id=bought.order_id), RefundView, bought.guardian.token)
                if view.state in states:
                    return view
                await asyncio.sleep(PROGRESS_S)

    async def answer_objection(
        self, bought: Bought, lesson_no: int, text: str, *, accepts: bool = False
    ) -> ObjectionView:
        """The institution answers an objection, or agrees to give the fee back."""
        request = AnswerObjection(order_id=bought.order_id, lesson_no=lesson_no, text=text, accepts=accepts)
        return await self.ask(request, ObjectionView, bought.institution.token)

    async def decide_objection(
        self, bought: Bought, lesson_no: int, decision: Decision, reason: str, release_fen: int = 0
    ) -> ObjectionView:
        """The authority decides on an objection; `release_fen` is the institution's part of a split."""
        request = DecideObjection(
            order_id=bought.order_id, lesson_no=lesson_no, decision=decision, release_fen=release_fen, reason=reason
        )
        return await self.ask(request, ObjectionView, self.token("authority", "changzhou-edu"))

    async def show_objection(self, bought: Bought, lesson_no: int) -> ObjectionView:
        """How the objection to a lesson stands."""
        request = ShowObjection(order_id=bought.order_id, lesson_no=lesson_no)
        return await self.ask(request, ObjectionView, bought.guardian.token)

    async def complain(self, order_id: UUID, guardian: Guardian, institution: Institution) -> FilingView:
        """The guardian complains about an order: the institution gives no invoice."""
        request = FileComplaint(
            filing_id=new_id(),
            kind="complaint",
            type="no_invoice",
            area="天宁区",
            category="体育类",
            institution_name=institution.name,
            order_id=order_id,
            text="机构拒绝开具发票",
        )
        return await self.ask(request, FilingView, guardian.token)

    async def refusal(self, request: Request, token: str = "") -> str:
        """Asks for what must be refused; the code."""
        try:
            reply = await self.client.ask(request, token=token, timeout_s=self.patience_s)
        except RequestRefused as refused:
            return refused.code
        raise ScenarioError(f"{request.TYPE} was not refused: {reply!r}")


def read_sms(path: Path) -> list[dict[str, Any]]:
    """All SMS in the file of notify's file provider, oldest first; a last line that is still being written is left
    out: it may end in the middle of a character."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]
