"""Where a complaint or report goes (投诉举报受理): (area, category) -> department and hotline [seed].

The key is the pair and nothing less: one department answers two categories under different numbers
(溧阳市), one number answers two categories (金坛区, 天宁区, 钟楼区, 经开区), and one area has two
departments (经开区). No institution is needed: a report about an unregistered one is routed by where it is.
Reads `data/hotlines.csv` once, at import; a broken file stops the service then, not at the first complaint.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from shared.contracts.errors import FieldError, Refused
from shared.policy import Category

HOTLINES_FILE: Final = Path(__file__).parent / "data" / "hotlines.csv"


class Area(StrEnum):
    """The eight areas of the notice [seed]; 常州市 is the city itself. 常州市武进区 reads as 武进区."""

    LIYANG = "溧阳市"
    JINTAN = "金坛区"
    WUJIN = "武进区"
    XINBEI = "新北区"
    TIANNING = "天宁区"
    ZHONGLOU = "钟楼区"
    ECONOMIC_ZONE = "经开区"
    CITY = "常州市"

    @classmethod
    def _missing_(cls, value: object) -> "Area | None":
        if not isinstance(value, str):
            return None
        bare = value.strip().removeprefix("江苏省")
        bare = bare.removeprefix("常州市") or bare  # the city alone stays the city
        bare = {"常州经开区": "经开区", "常州经济开发区": "经开区", "经济开发区": "经开区"}.get(bare, bare)
        return next((area for area in cls if area.value == bare), None)


@dataclass(frozen=True, slots=True)
class Hotline:
    """Who answers: the department and its number, eight digits, area code 0519 not written [seed]."""

    area: Area
    category: Category
    department: str
    hotline: str


def load_hotlines(path: Path = HOTLINES_FILE) -> Mapping[tuple[Area, Category], Hotline]:
    """All rows of the file by (area, category).

    Raises ValueError for an unknown area or category, a pair that is missing or there twice, an empty
    department, or a number that is not eight digits; OSError if the file cannot be read.
    """
    found: dict[tuple[Area, Category], Hotline] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            line = Hotline(Area(row["area"]), Category(row["category"]), row["department"], row["hotline"])
            if (line.area, line.category) in found:
                raise ValueError(f"{path.name}: {line.area} {line.category} stands there twice")
            if not line.department or not (line.hotline.isascii() and line.hotline.isdigit()):
                raise ValueError(f"{path.name}: {line.area} {line.category} has no department or number")
            if len(line.hotline) != 8:
                raise ValueError(f"{path.name}: {line.area} {line.category}: a number has eight digits")
            found[line.area, line.category] = line
    missing = [f"{a} {c}" for a in Area for c in Category if (a, c) not in found]
    if missing:
        raise ValueError(f"{path.name}: missing {', '.join(missing)}")
    return MappingProxyType(found)


_HOTLINES: Final = load_hotlines()


def route(area: str, category: str) -> Hotline:
    """The department and hotline for an area and a category (学科 or 学科类), or Refused `route_unknown`."""
    errors: list[FieldError] = []
    try:
        known_area: Area | None = Area(area)
    except ValueError:
        known_area = None
        allowed = "、".join(Area)
        errors.append(FieldError(field="area", message=f"地区应为：{allowed}", code="route_unknown"))
    try:
        known_category: Category | None = Category(category)
    except ValueError:
        known_category = None
        allowed = "、".join(Category)
        errors.append(FieldError(field="category", message=f"类别应为：{allowed}", code="route_unknown"))
    if known_area is None or known_category is None:
        raise Refused("route_unknown", "；".join(e.message for e in errors), errors=errors)
    return _HOTLINES[known_area, known_category]
