"""Identity documents, phones and credit codes: what is accepted, what is refused, what is never repeated."""

from datetime import date

import pytest

from shared.contracts.errors import Refused
from shared.documents import (
    Document,
    DocumentType,
    Sex,
    card_check_digit,
    check_document,
    check_uscc,
    mask,
    mask_phone,
    normalise_phone,
)

CARD = DocumentType.RESIDENT_IDENTITY_CARD
PERMIT = DocumentType.HK_MACAO_TAIWAN_RESIDENCE_PERMIT
FOREIGN = DocumentType.FOREIGN_PERMANENT_RESIDENT_CARD

# The specimen of GB 11643 itself: a woman of Chaoyang, born on the last day of 1949.
SPECIMEN = "11010519491231002X"
BOY = "320402201506011234"  # born 2015-06-01
TAIWAN_LEAP_DAY = "830000201202290022"
FOREIGN_2023 = "911124198108030024"
FOREIGN_OLD = "CAN110081080310"


def refused(type: DocumentType | str, number: str, **typed: object) -> Refused:
    with pytest.raises(Refused) as caught:
        check_document(type, number, **typed)  # type: ignore[arg-type]
    assert caught.value.code == "document_invalid"
    return caught.value


# The codes of GB/T 2260 for provinces that issue the card.
PROVINCES = {
    *(11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46),
    *(50, 51, 52, 53, 54, 61, 62, 63, 64, 65, 71),
}


def card(first_17: str) -> str:
    return first_17 + card_check_digit(first_17)


def test_the_kinds_are_words_that_rows_and_gateways_hold() -> None:
    assert [kind.value for kind in DocumentType] == [
        "resident_identity_card",
        "hk_macao_taiwan_residence_permit",
        "hk_macao_travel_permit",
        "taiwan_travel_permit",
        "foreign_permanent_resident_card",
        "passport",
        "birth_certificate",
    ]


def test_a_resident_card_is_of_a_province_there_is() -> None:
    for number in range(100):
        of_area = card(f"{number:02}040220150601123")
        if number in PROVINCES:
            assert check_document(CARD, of_area).number == of_area
        else:
            assert refused(CARD, of_area).errors[0].message == "证件号码的地区代码不正确"


@pytest.mark.parametrize("area", ["810000", "820000", "830000"])
def test_the_three_areas_of_residence_permits(area: str) -> None:
    number = card(f"{area}19900101001")
    assert check_document(PERMIT, number).number == number
    assert refused(CARD, number).errors[0].field == "type"


def test_nobody_was_born_before_1900() -> None:
    found = refused(CARD, card("11010518991231002"))
    assert (found.errors[0].field, found.errors[0].message) == ("number", "证件号码中的出生日期不存在")
    for no_day in ("19491331", "20230229", "20230431"):
        assert refused(CARD, card(f"110105{no_day}002")).errors[0].message == "证件号码中的出生日期不存在"
    first = card("11010519000101002")
    assert check_document(CARD, first).number == first


def test_a_text_of_64_characters_is_read_and_a_longer_one_is_not() -> None:
    assert check_document(CARD, " " * (64 - 18) + SPECIMEN).number == SPECIMEN
    for unreadable in (" " * (65 - 18) + SPECIMEN, "", " "):
        assert refused(CARD, unreadable).errors[0].message == "证件号码格式不正确"
    assert refused(DocumentType.PASSPORT, " " * 60 + "E12345678").errors[0].message == "证件号码格式不正确"


def test_the_birth_date_of_an_old_permanent_card_is_a_day_of_some_year() -> None:
    for number in ("CAN110096022910", "CAN110081123110", "CAN110081081010"):
        assert check_document(FOREIGN, number).number == number
    for number in ("CAN110096023010", "CAN110081310110", "CAN110081043110"):
        assert "出生日期不存在" in refused(FOREIGN, number).detail


def test_a_kind_that_is_none_is_refused_at_its_field() -> None:
    found = refused("driving_licence", "E12345678")
    assert [(fault.field, fault.message) for fault in found.errors] == [("type", "不支持的证件类型")]
    assert found.detail == "不支持的证件类型"


@pytest.mark.parametrize(
    ("type", "number"),
    [
        (CARD, SPECIMEN),
        (CARD, BOY),
        (PERMIT, "810000199001010019"),
        (PERMIT, TAIWAN_LEAP_DAY),
        (DocumentType.HK_MACAO_TRAVEL_PERMIT, "H12345678"),
        (DocumentType.HK_MACAO_TRAVEL_PERMIT, "M1234567801"),
        (DocumentType.TAIWAN_TRAVEL_PERMIT, "12345678"),
        (DocumentType.TAIWAN_TRAVEL_PERMIT, "0123456789B"),
        (DocumentType.TAIWAN_TRAVEL_PERMIT, "0123456789(B)"),
        (FOREIGN, FOREIGN_2023),
        (FOREIGN, FOREIGN_OLD),
        (DocumentType.PASSPORT, "E12345678"),
        (DocumentType.PASSPORT, "EA1234567"),
        (DocumentType.BIRTH_CERTIFICATE, "P320123456"),
    ],
)
def test_a_well_formed_document_is_accepted_as_it_is(type: DocumentType, number: str) -> None:
    assert check_document(type, number) == Document(type, number)
    assert check_document(type.value, number).type is type


@pytest.mark.parametrize(
    "typed",
    ["11010519491231002x", "１１０１０５１９４９１２３１００２ｘ", " 110105 19491231 002x ", "110105-19491231-002X"],
)
def test_lower_case_full_width_and_spaced_numbers_are_normalised(typed: str) -> None:
    assert check_document(CARD, typed).number == SPECIMEN


@pytest.mark.parametrize(
    ("type", "number", "birth_date", "sex"),
    [
        (CARD, SPECIMEN, date(1949, 12, 31), Sex.FEMALE),
        (CARD, BOY, date(2015, 6, 1), "男"),
        (FOREIGN, FOREIGN_2023, date(1981, 8, 3), "female"),
        (FOREIGN, FOREIGN_OLD, date(1981, 8, 3), "male"),
        (DocumentType.PASSPORT, "E12345678", date(2016, 1, 1), "女"),  # a passport number says nothing
    ],
)
def test_birth_date_and_sex_that_do_not_disagree_are_accepted(
    type: DocumentType, number: str, birth_date: date, sex: str
) -> None:
    assert check_document(type, number, birth_date=birth_date, sex=sex).number == number


@pytest.mark.parametrize(
    ("type", "number", "typed", "field"),
    [
        (CARD, BOY, {"birth_date": date(2015, 6, 2)}, "birth_date"),
        (CARD, BOY, {"sex": Sex.FEMALE}, "sex"),
        (CARD, BOY, {"sex": "other"}, "sex"),
        (PERMIT, TAIWAN_LEAP_DAY, {"birth_date": date(2012, 2, 28)}, "birth_date"),
        (FOREIGN, FOREIGN_2023, {"sex": "男"}, "sex"),
        (FOREIGN, FOREIGN_OLD, {"birth_date": date(1981, 8, 4)}, "birth_date"),
    ],
)
def test_what_disagrees_with_the_number_is_refused_at_its_field(
    type: DocumentType, number: str, typed: dict[str, object], field: str
) -> None:
    assert refused(type, number, **typed).errors[0].field == field


@pytest.mark.parametrize(
    "number",
    [
        "110105194912310029",  # check digit
        "110105491231002",  # the old 15 digits, void since 2013
        "991105194912310021",  # no such province
        "11010519491331002X",  # month 13
        "11010520230229002X",  # no leap day
        "440524188001010014",  # a known bad sample: right check digit, born 1880
        "1101051949123100X2",
        "",
        "   ",
        "1" * 10_000,
        "11010519491231002Х",  # a Cyrillic letter that looks like X
        "١١٠١٠٥١٩٤٩١٢٣١٠٠٢X",  # Arabic-Indic digits
    ],
)
def test_a_resident_card_that_cannot_exist_is_refused(number: str) -> None:
    refused(CARD, number)


def test_a_residence_permit_chosen_as_resident_card_is_pointed_out() -> None:
    assert refused(CARD, TAIWAN_LEAP_DAY).errors[0].field == "type"


@pytest.mark.parametrize(
    ("type", "number"),
    [
        (PERMIT, BOY),
        (PERMIT, "810001199001010019"),
        (DocumentType.HK_MACAO_TRAVEL_PERMIT, "K12345678"),
        (DocumentType.HK_MACAO_TRAVEL_PERMIT, "H123456789"),
        (DocumentType.TAIWAN_TRAVEL_PERMIT, "123456789"),
        (FOREIGN, BOY),
        (FOREIGN, "911124198108030025"),
        (FOREIGN, "CAN110081133110"),
        (FOREIGN, "CA1110081080310"),
        (DocumentType.PASSPORT, "ABCDEFGH"),
        (DocumentType.PASSPORT, "E123456789"),
        (DocumentType.PASSPORT, "E123_4567"),
        (DocumentType.BIRTH_CERTIFICATE, "3201234567"),
        ("driving_licence", "E12345678"),
    ],
)
def test_other_documents_of_a_wrong_form_are_refused(type: DocumentType | str, number: str) -> None:
    refused(type, number)


def test_no_refusal_and_no_repr_repeats_the_number() -> None:
    refusal = refused(CARD, "320402201506011235")
    text = f"{refusal!r} {refusal.errors} {refusal.figures} {check_document(CARD, BOY)!r}"
    assert "20150601" not in text


def test_masks_hide_the_birth_date_and_keep_the_length() -> None:
    assert mask(BOY) == "320*************34"
    assert mask("E12345678") == "E*******8"
    assert mask("1" * 14) == "1************1"
    assert mask("1" * 15) == "111**********11"
    assert mask("1234") == "1**4"
    assert mask("123") == "***"
    assert mask("") == ""


@pytest.mark.parametrize(
    "typed",
    [
        "13912345678",
        "+8613912345678",
        "+86 139 1234 5678",
        "0086-139-1234-5678",
        "8613912345678",
        "１３９１２３４５６７８",
    ],
)
def test_a_mainland_mobile_becomes_e164(typed: str) -> None:
    assert normalise_phone(typed) == "+8613912345678"


@pytest.mark.parametrize(
    "typed",
    ["", "1391234567", "139123456789", "12912345678", "+85212345678", "0519-85681357", "1391234567a", "9" * 999],
)
def test_what_is_no_mainland_mobile_is_refused(typed: str) -> None:
    with pytest.raises(Refused) as caught:
        normalise_phone(typed)
    assert caught.value.code == "phone_invalid"
    assert [fault.field for fault in caught.value.errors] == ["phone"]
    assert typed == "" or typed not in f"{caught.value!r}{caught.value.errors}"


def test_a_masked_phone_keeps_three_and_four_digits() -> None:
    assert mask_phone("+8613912345678") == mask_phone("13912345678") == "139****5678"
    assert mask_phone("12345") == "*****"


@pytest.mark.parametrize(
    "code",
    [
        "91330100799655058B",  # 阿里巴巴（中国）网络技术有限公司
        "9144030071526726XG",  # 深圳市腾讯计算机系统有限公司
        "914403001922038216",  # 华为技术有限公司
        "91110000802100433B",  # 百度在线网络技术（北京）有限公司
    ],
)
def test_real_credit_codes_pass_in_any_spelling(code: str) -> None:
    assert check_uscc(code) == code
    assert check_uscc(f" {code[:8]} {code[8:].lower()} ") == code


@pytest.mark.parametrize(
    "code",
    ["91330100799655058A", "91330100799655058", "91330100799655058BB", "9133010079965505IB", "91330I00799655058B", ""],
)
def test_a_wrong_credit_code_is_refused(code: str) -> None:
    with pytest.raises(Refused) as caught:
        check_uscc(code)
    assert caught.value.code == "uscc_invalid"
    assert [fault.field for fault in caught.value.errors] == ["uscc"]
