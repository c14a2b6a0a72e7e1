"""The contract (GF-2021-2604, 中小学生校外培训服务合同), filled from frozen data. Its SHA-256 is what is signed."""

import hashlib
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from services.orders.families.domain import mask_name
from services.orders.families.queries import ContractParties
from shared.contracts.catalog import SeatReserved
from shared.documents import mask, mask_phone
from shared.keys import KeyRing
from shared.money import yuan
from shared.sealing import decrypt_at_rest, encrypt_at_rest
from shared.working_days import shanghai

FORM = "GF-2021-2604"


class StoredContract(BaseModel):
    """The text as signed, and the same text as it may be shown outside: the persons in it masked."""

    model_config = ConfigDict(frozen=True)
    text: str
    shown: str


def draw(offer: SeatReserved, parties: ContractParties, order_id: object, now: datetime) -> StoredContract:
    """The contract for one purchase: parties, lesson plan, price, supervised account and refund terms, all frozen."""
    plan = _plan(offer)
    return StoredContract(
        text=_filled(offer, plan, parties, order_id, now),
        shown=_filled(offer, plan, _masked(parties), order_id, now),
    )


def _masked(parties: ContractParties) -> ContractParties:
    return ContractParties(
        child_name=mask_name(parties.child_name),
        child_document=_masked_document(parties.child_document),
        signer_name=mask_name(parties.signer_name),
        signer_phone=mask_phone(parties.signer_phone),
        signer_address=mask(parties.signer_address),
        signer_document=_masked_document(parties.signer_document),
    )


def _masked_document(printed: str) -> str:
    kind, _, number = printed.partition(" ")
    return f"{kind} {mask(number)}"


def _plan(offer: SeatReserved) -> str:
    return "\n".join(
        f"  第{lesson.lesson_no}课 {shanghai(lesson.starts_at):%Y-%m-%d %H:%M}-{shanghai(lesson.ends_at):%H:%M}"
        for lesson in offer.lessons
    )


def _filled(offer: SeatReserved, plan: str, parties: ContractParties, order_id: object, now: datetime) -> str:
    terms = offer.refund_terms
    materials = f"，已领用材料费最高 {yuan(terms.materials_fen)} 元" if terms.materials_fen else ""
    return f"""中小学生校外培训服务合同（{FORM}）
合同编号：{order_id}
订立时间：{shanghai(now):%Y-%m-%d %H:%M}
甲方（培训机构）：{offer.institution_name}　统一社会信用代码：{offer.institution_uscc}
乙方（监护人）：{parties.signer_name}　{parties.signer_document}
　　电话：{parties.signer_phone}　地址：{parties.signer_address}
学员：{parties.child_name}　{parties.child_document}
一、培训项目：{offer.title}（{offer.category}，{"线上" if offer.online else "线下"}，{offer.district}）
二、课时安排（共 {len(offer.lessons)} 课时）：
{plan}
三、培训费用：人民币 {yuan(offer.price_fen)} 元，一次性存入监管账户：
　　{offer.account.bank} {offer.account.supervised_account}。每课经乙方确认后由监管银行拨付该课费用（一课一销）。
四、退费：付款后 {terms.full_refund_days} 日内且未上课的全额退费；
　　此后按未上课时退费，违约金 {terms.penalty_basis_points} 个基点{materials}。
五、因甲方原因不能履行的，未消课时费用全额退还，不作扣除。
"""


def sha256_of(contract: StoredContract) -> str:
    """What the signature covers: SHA-256 of the whole text in UTF-8, in hexadecimal."""
    return hashlib.sha256(contract.text.encode()).hexdigest()


def encrypted(ring: KeyRing, contract: StoredContract) -> str:
    """The contract as stored."""
    return encrypt_at_rest(ring, contract)


def shown(ring: KeyRing, stored: str) -> str:
    """The contract as it may travel: its persons masked. Empty before one is drawn."""
    return decrypt_at_rest(ring, stored, StoredContract).shown if stored else ""
