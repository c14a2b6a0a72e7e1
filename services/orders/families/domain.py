"""The rules of families: what a sign-in needs, which children and signers are taken, what is shown of them.

Fields that hold what a person typed are encrypted text here; the rules see it only where it is handed to them.
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from shared.contracts.errors import FieldError, Refused
from shared.contracts.orders import ChildDetails, RollCheck, SignerDetails
from shared.documents import DocumentType, check_document, mask, normalise_phone

MAX_CHILDREN: Final = 10
"""Children of one account [ours]."""
SEALED_TOKEN_SECONDS: Final = 30 * 86_400
CLEAR_TOKEN_SECONDS: Final = 12 * 3600
"""Life of a guardian's token [ours]: one that stands readable in an answer lives for a day's errands only."""

DOCUMENT_TITLES_ZH: Final[dict[DocumentType, str]] = {
    DocumentType.RESIDENT_IDENTITY_CARD: "居民身份证",
    DocumentType.HK_MACAO_TAIWAN_RESIDENCE_PERMIT: "港澳台居民居住证",
    DocumentType.HK_MACAO_TRAVEL_PERMIT: "港澳居民来往内地通行证",
    DocumentType.TAIWAN_TRAVEL_PERMIT: "台湾居民来往大陆通行证",
    DocumentType.FOREIGN_PERMANENT_RESIDENT_CARD: "外国人永久居留身份证",
    DocumentType.PASSPORT: "护照",
    DocumentType.BIRTH_CERTIFICATE: "出生医学证明",
}


@dataclass(slots=True)
class Account:
    """One phone. `signer_version` is the version of the signer in force, 0 before the first."""

    account_id: UUID
    phone_hash: bytes
    phone: str
    signer_version: int
    created_at: datetime


@dataclass(slots=True)
class Agreement:
    """A version of the user agreement that an account ticked, and when first."""

    account_id: UUID
    version: str
    agreed_at: datetime


@dataclass(slots=True)
class UsedChallenge:
    """A challenge whose proof has been taken for a sign-in."""

    challenge_id: UUID
    used_at: datetime


@dataclass(slots=True)
class Child:
    """A child of an account; `details` is its ChildDetails, encrypted."""

    child_id: UUID
    account_id: UUID
    document_hash: bytes
    details: str
    roll_check: RollCheck
    added_at: datetime


@dataclass(slots=True)
class Signer:
    """One version of the signer of an account; `details` is its SignerDetails, encrypted. Never changed."""

    account_id: UUID
    version: int
    details: str
    valid_from: datetime


@dataclass(slots=True)
class Family:
    """An account with its children and the signer in force; empty, with no account, for an id that has none."""

    account_id: UUID
    account: Account | None = None
    children: dict[UUID, Child] = field(default_factory=dict)
    signer: Signer | None = None

    @property
    def child_ids(self) -> frozenset[UUID]:
        """Which children there are."""
        return frozenset(self.children)

    @property
    def signer_version(self) -> int:
        """The version of the signer in force; 0: there is none."""
        return self.signer.version if self.signer else 0

    @property
    def missing(self) -> tuple[Literal["child", "signer"], ...]:
        """What a purchase still needs [seed]."""
        missing: list[Literal["child", "signer"]] = []
        if not self.children:
            missing.append("child")
        if self.signer is None:
            missing.append("signer")
        return tuple(missing)


def agreed_version(version: str) -> str:
    """The version of the agreement that was ticked. Refused: agreement_missing."""
    if not version.strip():
        raise Refused("agreement_missing")
    return version.strip()


def checked_child(typed: ChildDetails, today: date) -> ChildDetails:
    """The child as typed with name and number in one form; `today` is a Shanghai date.

    Refused: document_invalid, with the field at fault.
    """
    try:
        born = date.fromisoformat(typed.birth_date)
    except ValueError:
        raise _invalid("document_invalid", "birth_date", "出生日期不存在") from None
    if born > today:
        raise _invalid("document_invalid", "birth_date", "出生日期晚于今天")
    number = _checked_number(typed.document_type, typed.document_number, born, typed.sex)
    return typed.model_copy(update={"name": _one_line(typed.name), "document_number": number})


def checked_signer(typed: SignerDetails) -> SignerDetails:
    """The signer as typed with name, phone (E.164), address and number in one form.

    Refused: document_invalid, phone_invalid, request_invalid (an address of blanks), with the field at fault.
    """
    number = _checked_number(typed.document_type, typed.document_number)
    phone = normalise_phone(typed.phone)
    address = _one_line(typed.address)
    if not address:
        raise _invalid("request_invalid", "address", "请填写联系地址")
    return typed.model_copy(
        update={"name": _one_line(typed.name), "phone": phone, "address": address, "document_number": number}
    )


def add_child(family: Family, child: Child, details: ChildDetails, recorded: ChildDetails | None) -> bool:
    """Adds `child`, whose checked `details` are given; False if it is there already and nothing is to be done.

    `recorded` is what the family's child of the same id holds, None if it has none. Refused: idempotency_conflict (the
    id stands for another child), child_exists (the document is recorded), child_limit.
    """
    if recorded is not None:
        if recorded != details:
            raise id_taken()
        return False
    if any(other.document_hash == child.document_hash for other in family.children.values()):
        raise Refused("child_exists")
    if len(family.children) >= MAX_CHILDREN:
        raise Refused("child_limit", limit=MAX_CHILDREN)
    family.children[child.child_id] = child
    return True


def id_taken() -> Refused:
    """The refusal of a child id that stands for another child, of this family or any other."""
    return Refused("idempotency_conflict", "child_id")


def next_signer(
    family: Family, account: Account, details: SignerDetails, recorded: SignerDetails | None, stored: str, now: datetime
) -> bool:
    """Puts a new version of the signer in force; False if `details` are what the present one has (`recorded`).

    `stored` is `details` encrypted. Versions before stay: contracts name the version they were signed with.
    """
    if recorded == details:
        return False
    account.signer_version += 1
    family.signer = Signer(account.account_id, account.signer_version, stored, now)
    return True


def mask_name(name: str) -> str:
    """A name for screens: its first character and one or two stars, 张三 → 张*, 欧阳小明 → 欧** [ours].

    A name of one character is all star. The length of a long name stays hidden.
    """
    return name[:1] + "*" * min(len(name) - 1, 2) if len(name) > 1 else "*"


def masked_document(number: str) -> str:
    """A document number for screens; the birth date in it is never shown."""
    return mask(number)


def printed_document(type_: DocumentType, number: str) -> str:
    """A document as a contract prints it: kind and whole number."""
    return f"{DOCUMENT_TITLES_ZH[type_]} {number}"


def _checked_number(type_: DocumentType, number: str, born: date | None = None, sex: str | None = None) -> str:
    """The normalised number. Refused document_invalid names the fields as the contract does."""
    try:
        return check_document(type_, number, birth_date=born, sex=sex).number
    except Refused as refused:
        names = {"type": "document_type", "number": "document_number"}
        errors = [
            FieldError(field=names.get(fault.field, fault.field), message=fault.message, code=fault.code)
            for fault in refused.errors
        ]
        raise Refused(refused.code, refused.detail, errors=errors) from None


def _invalid(code: str, field_name: str, message: str) -> Refused:
    return Refused(code, message, errors=[FieldError(field=field_name, message=message)])


def _one_line(text: str) -> str:
    """`text` with every run of blanks, tabs and line ends as one blank: it is printed in a line of the contract."""
    return " ".join(text.split())
