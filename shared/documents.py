"""Numbers that identify people and institutions: identity documents (证件), mobile phones, USCC.

Only the form of a number is judged here, never whether it was issued. No message or exception of this
module repeats the number: it is sensitive personal information [law: PIPL 28-31], and refusals are printed
in topics and logs.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from shared.contracts.errors import FieldError, Refused

MAX_RAW_LENGTH: Final = 64
"""Longest text looked at, before anything is folded: no input makes the work here grow [ours]."""


class DocumentType(StrEnum):
    """Kinds of documents a child or a contract signer (合同签订人) may have [seed: 证件类型]."""

    RESIDENT_IDENTITY_CARD = "resident_identity_card"  # 居民身份证
    HK_MACAO_TAIWAN_RESIDENCE_PERMIT = "hk_macao_taiwan_residence_permit"  # 港澳台居民居住证
    HK_MACAO_TRAVEL_PERMIT = "hk_macao_travel_permit"  # 港澳居民来往内地通行证 (回乡证)
    TAIWAN_TRAVEL_PERMIT = "taiwan_travel_permit"  # 台湾居民来往大陆通行证 (台胞证)
    FOREIGN_PERMANENT_RESIDENT_CARD = "foreign_permanent_resident_card"  # 外国人永久居留身份证
    PASSPORT = "passport"  # 护照
    BIRTH_CERTIFICATE = "birth_certificate"  # 出生医学证明


class Sex(StrEnum):
    """Sex (性别) as typed in the profile; 男 and 女 are read as well."""

    MALE = "male"
    FEMALE = "female"

    @classmethod
    def _missing_(cls, value: object) -> "Sex | None":
        return {"男": cls.MALE, "女": cls.FEMALE}.get(value) if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Document:
    """One checked document with its normalised number. Its repr shows the number masked."""

    type: DocumentType
    number: str

    def __repr__(self) -> str:
        return f"Document({self.type.value}, {mask(self.number)})"


@dataclass(frozen=True, slots=True)
class _Said:
    """What a number itself says of its owner; None where it says nothing (old cards: year in two digits)."""

    birth_date: date | None = None
    sex: Sex | None = None
    birth_yymmdd: str | None = None


# Provinces of GB/T 2260 that issue resident identity cards; 81-83 are residence permits, 9 foreigners.
_PROVINCES: Final = frozenset(
    map(
        str,
        (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71),
    )
)
_RESIDENCE_PERMIT_AREAS: Final = frozenset({"810000", "820000", "830000"})
# 2**(17-i) mod 11 for position i, ISO 7064 MOD 11-2; every weight is prime to 11, so one wrong digit always
# shows.
_CARD_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CARD_CHECKS: Final = "10X98765432"

# GB 32100: digits and letters without I O S V Z, so that none is read as a digit.
_USCC_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_USCC_VALUE: Final = {character: value for value, character in enumerate(_USCC_ALPHABET)}
_USCC_WEIGHTS: Final = tuple(pow(3, position, 31) for position in range(17))
_USCC_SHAPE: Final = re.compile(r"[0-9A-HJ-NP-RTUW-Y]{2}[0-9]{6}[0-9A-HJ-NP-RTUW-Y]{10}")

_CARD_SHAPE: Final = re.compile(r"[0-9]{17}[0-9X]")
_OLD_PERMANENT_SHAPE: Final = re.compile(r"[A-Z]{3}[0-9]{12}")
_HK_MACAO_TRAVEL_SHAPE: Final = re.compile(r"[HM](?:[0-9]{8}|[0-9]{10})")  # ten: with the count of renewals
_TAIWAN_TRAVEL_SHAPE: Final = re.compile(r"[0-9]{8}|[0-9]{10}(?:[A-Z]|\([A-Z]\))?")  # new; before 2015
_PASSPORT_SHAPE: Final = re.compile(r"(?=.*[0-9])[A-Z0-9]{5,9}")  # ICAO 9303: at most nine characters
_BIRTH_CERTIFICATE_SHAPE: Final = re.compile(r"[A-Z][0-9]{9}")
_MOBILE: Final = re.compile(r"(?:\+86|0086|86)?(1[3-9][0-9]{9})")

_UNREADABLE: Final = "证件号码格式不正确"


def card_check_digit(first_17: str) -> str:
    """The 18th character ("0".."9" or "X") for 17 digits. ISO 7064 MOD 11-2 as in GB 11643 [law]."""
    return _CARD_CHECKS[sum(int(d) * w for d, w in zip(first_17, _CARD_WEIGHTS, strict=True)) % 11]


def uscc_check_character(first_17: str) -> str:
    """The 18th character of a USCC for its first 17 characters. GB 32100, mod 31 [law]."""
    total = sum(_USCC_VALUE[c] * w for c, w in zip(first_17, _USCC_WEIGHTS, strict=True))
    return _USCC_ALPHABET[-total % 31]


def _folded(raw: str) -> str:
    """`raw` with full-width characters (全角) made ordinary, upper case, spaces and hyphens removed."""
    if len(raw) > MAX_RAW_LENGTH:
        return ""
    wide = unicodedata.normalize("NFKC", raw).upper()
    return "".join(c for c in wide if not c.isspace() and c not in "-‐‑–—")


def _refuse(message: str, field: str = "number") -> Refused:
    return Refused("document_invalid", message, errors=[FieldError(field=field, message=message)])


def _read_18(number: str) -> _Said:
    """Birth date and sex of any 18-character number built like GB 11643, after its check digit was proved."""
    if not _CARD_SHAPE.fullmatch(number):
        raise _refuse("证件号码应为 18 位数字，末位可为 X")
    if card_check_digit(number[:17]) != number[17]:
        raise _refuse("证件号码校验位不正确，请核对是否输错")
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        raise _refuse("证件号码中的出生日期不存在") from None
    if born.year < 1900:
        raise _refuse("证件号码中的出生日期不存在")
    return _Said(birth_date=born, sex=Sex.MALE if int(number[16]) % 2 else Sex.FEMALE)


def _resident_card(number: str) -> _Said:
    if number[:6] in _RESIDENCE_PERMIT_AREAS:
        raise _refuse("这是港澳台居民居住证号码，请选择相应证件类型", "type")
    if len(number) == 18 and number[:2] not in _PROVINCES:
        raise _refuse("证件号码的地区代码不正确")
    return _read_18(number)


def _residence_permit(number: str) -> _Said:
    if number[:6] not in _RESIDENCE_PERMIT_AREAS:
        raise _refuse("港澳台居民居住证号码应以 810000、820000 或 830000 开头")
    return _read_18(number)


def _permanent_resident_card(number: str) -> _Said:
    """Since 2023-12-01: 18 characters from "9", MOD 11-2. Before: 3 letters, place (4), YYMMDD, 2 more."""
    if len(number) == 18:
        if not number.startswith("9"):
            raise _refuse("新版外国人永久居留身份证号码应以 9 开头")
        return _read_18(number)
    if not _OLD_PERMANENT_SHAPE.fullmatch(number):
        raise _refuse("外国人永久居留身份证号码应为 18 位数字，或旧版 3 位字母加 12 位数字")
    # No check digit is proved: the rule of the old card was not found in any published text [ours].
    yymmdd = number[7:13]
    try:
        date(2000, int(yymmdd[2:4]), int(yymmdd[4:6]))  # a leap year: the century is not in the number
    except ValueError:
        raise _refuse("证件号码中的出生日期不存在") from None
    return _Said(birth_yymmdd=yymmdd)


def _shaped(shape: re.Pattern[str], message: str) -> Callable[[str], _Said]:
    """A reader for numbers that have a form, no check digit, and say nothing of their owner."""

    def read(number: str) -> _Said:
        if not shape.fullmatch(number):
            raise _refuse(message)
        return _Said()

    return read


_READERS: Final[dict[DocumentType, Callable[[str], _Said]]] = {
    DocumentType.RESIDENT_IDENTITY_CARD: _resident_card,
    DocumentType.HK_MACAO_TAIWAN_RESIDENCE_PERMIT: _residence_permit,
    DocumentType.HK_MACAO_TRAVEL_PERMIT: _shaped(
        _HK_MACAO_TRAVEL_SHAPE, "港澳居民来往内地通行证号码应为 H 或 M 加 8 位或 10 位数字"
    ),
    DocumentType.TAIWAN_TRAVEL_PERMIT: _shaped(
        _TAIWAN_TRAVEL_SHAPE, "台湾居民来往大陆通行证号码应为 8 位数字，或旧版 10 位数字加字母"
    ),
    DocumentType.FOREIGN_PERMANENT_RESIDENT_CARD: _permanent_resident_card,
    DocumentType.PASSPORT: _shaped(_PASSPORT_SHAPE, "护照号码应为 5 至 9 位字母和数字"),
    DocumentType.BIRTH_CERTIFICATE: _shaped(_BIRTH_CERTIFICATE_SHAPE, "出生医学证明编号应为 1 位字母加 9 位数字"),
}


def check_document(
    type: DocumentType | str, number: str, *, birth_date: date | None = None, sex: Sex | str | None = None
) -> Document:
    """The document with its number normalised: upper case, full-width folded, without spaces and hyphens.

    `birth_date` and `sex` are what was typed beside it; a number that carries them must agree [DOMAIN:
    profile]. Raises Refused `document_invalid` with the field at fault (`type`, `number`, `birth_date`,
    `sex`). Check digits: GB 11643 / ISO 7064 MOD 11-2 [law]; forms of travel permits, passport, birth
    certificate [ours].
    """
    try:
        kind = DocumentType(type)
    except ValueError:
        raise _refuse("不支持的证件类型", "type") from None
    normal = _folded(number)
    if not normal:
        raise _refuse(_UNREADABLE)
    said = _READERS[kind](normal)
    if birth_date is not None:
        agrees = said.birth_date in (None, birth_date)
        if said.birth_yymmdd is not None:
            agrees = birth_date.strftime("%y%m%d") == said.birth_yymmdd
        if not agrees:
            raise _refuse("出生日期与证件号码不一致", "birth_date")
    if sex is not None:
        try:
            typed = Sex(sex)
        except ValueError:
            raise _refuse("性别填写有误", "sex") from None
        if said.sex not in (None, typed):
            raise _refuse("性别与证件号码不一致", "sex")
    return Document(kind, normal)


def mask(number: str) -> str:
    """A document number for screens and logs: 3 first and 2 last of 15 and longer, else 1 and 1.

    Never shows the birth date, and always hides at least two characters; the length stays visible [ours].
    """
    head, tail = (3, 2) if len(number) >= 15 else (1, 1)
    if len(number) < head + tail + 2:
        return "*" * len(number)
    return number[:head] + "*" * (len(number) - head - tail) + number[-tail:]


def normalise_phone(raw: str) -> str:
    """A mainland mobile number (手机号) in E.164, "+8613912345678", from what a person typed.

    Full-width digits, spaces, hyphens and the prefixes +86, 0086, 86 are read. Raises Refused
    `phone_invalid`.
    """
    found = _MOBILE.fullmatch(_folded(raw))
    if found is None:
        message = "请输入 11 位中国大陆手机号码"
        raise Refused("phone_invalid", message, errors=[FieldError(field="phone", message=message)])
    return "+86" + found.group(1)


def mask_phone(phone: str) -> str:
    """A phone for screens and logs, "139****5678"; takes E.164 or 11 digits. Else all stars."""
    digits = phone.removeprefix("+86")
    if len(digits) != 11:
        return "*" * len(phone)
    return f"{digits[:3]}****{digits[-4:]}"


def check_uscc(code: str) -> str:
    """The unified social credit code (统一社会信用代码) normalised, or Refused `uscc_invalid`.

    18 characters, GB 32100, mod 31 [law]; 31 is prime, so one wrong character always shows. A regulator may
    override this check with a reason, which is the caller's matter.
    """
    normal = _folded(code)
    if not _USCC_SHAPE.fullmatch(normal):
        message = "统一社会信用代码应为 18 位数字和大写字母（不含 I、O、S、V、Z）"
    elif uscc_check_character(normal[:17]) != normal[17]:
        message = "统一社会信用代码校验位不正确"
    else:
        return normal
    raise Refused("uscc_invalid", message, errors=[FieldError(field="uscc", message=message)])
