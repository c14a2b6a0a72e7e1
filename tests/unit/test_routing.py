"""Routing of complaints by (area, category): 32 rows with the traps of the notice."""

from collections import Counter
from pathlib import Path

import pytest

from services.complaints.routing import HOTLINES_FILE, Area, load_hotlines, route
from shared.contracts.errors import Refused
from shared.policy import Category


def test_every_area_has_a_department_for_every_category() -> None:
    assert len(load_hotlines()) == 32 == len(Area) * len(Category)


def test_one_department_answers_two_categories_under_different_numbers() -> None:
    art, sports = route("溧阳市", "文化艺术"), route("溧阳市", "体育")
    assert art.department == sports.department == "溧阳市文体广电和旅游局"
    assert (art.hotline, sports.hotline) == ("87922882", "87922880")
    assert route("武进区", "文化艺术").hotline != route("武进区", "体育").hotline
    assert route("新北区", "文化艺术").hotline != route("新北区", "体育").hotline


def test_one_number_answers_two_categories_and_both_are_found() -> None:
    for area in ("金坛区", "天宁区", "钟楼区"):
        assert route(area, "文化艺术").hotline == route(area, "体育").hotline


def test_the_economic_zone_sends_three_categories_to_one_bureau_and_science_to_another() -> None:
    others = {route("经开区", c).hotline for c in ("学科", "文化艺术", "体育")}
    assert others == {"89863206"}
    assert route("经开区", "科技").department == "经开区科技金融局"
    assert route("经开区", "科技").hotline == "89863029"


def test_numbers_that_differ_in_one_place_are_not_mixed_up() -> None:
    assert route("钟楼区", "学科").hotline == "88890548"
    assert route("钟楼区", "文化艺术").hotline == "88890328"
    assert route("钟楼区", "科技").hotline == "88890747"


def test_neither_a_number_nor_a_department_identifies_a_row() -> None:
    rows = load_hotlines().values()
    assert max(Counter(row.hotline for row in rows).values()) == 3
    assert max(Counter(row.department for row in rows).values()) == 3


@pytest.mark.parametrize(("short", "long"), [(c.value, c.value + "类") for c in Category])
def test_a_category_is_read_with_and_without_its_suffix(short: str, long: str) -> None:
    assert route("常州市", short) == route("常州市", long)


@pytest.mark.parametrize("area", ["武进区", "常州市武进区", "江苏省常州市武进区", " 武进区 "])
def test_an_area_is_read_with_its_city_and_province(area: str) -> None:
    assert route(area, "学科").area is Area.WUJIN


def test_the_city_itself_is_an_area() -> None:
    assert route("常州市", "体育").department == "常州市体育局"
    assert route("江苏省常州市", "体育").department == "常州市体育局"
    assert route("常州经开区", "学科").area is Area.ECONOMIC_ZONE


@pytest.mark.parametrize(
    ("area", "category", "fields"),
    [("苏州市", "学科", {"area"}), ("武进区", "音乐", {"category"}), ("", "类", {"area", "category"})],
)
def test_an_unknown_place_or_category_is_refused_with_what_is_wrong(area: str, category: str, fields: set[str]) -> None:
    with pytest.raises(Refused) as caught:
        route(area, category)
    assert caught.value.code == "route_unknown"
    assert {error.field for error in caught.value.errors} == fields


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda lines: lines[:-1], "missing 常州市 体育"),
        (lambda lines: [*lines, lines[-1]], "twice"),
        (lambda lines: [*lines[:-1], "常州市,体育类,常州市体育局,8568301"], "eight digits"),
        (lambda lines: [*lines[:-1], "常州市,体育类,,85683011"], "no department"),
        (lambda lines: [*lines[:-1], "苏州市,体育类,体育局,85683011"], "苏州市"),
    ],
)
def test_a_damaged_file_is_found_when_it_is_loaded(damage: object, match: str, tmp_path: Path) -> None:
    assert callable(damage)
    lines = HOTLINES_FILE.read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "hotlines.csv"
    broken.write_text("\n".join(damage(lines)) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=match):
        load_hotlines(broken)
