from __future__ import annotations

from datetime import date

import pytest

from src.records.facts import millivolts_per_unit, parse_age, parse_sex, years_between


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("mV", 1.0),
        ("/mV", 1.0),
        ("", 1.0),
        ("uV", 1e-3),
        ("\u00b5V", 1e-3),
        ("\u03bcV", 1e-3),
        (" Volts ", 1e3),
        ("[uV]", 1e-3),
        ("microV", 1e-3),
        ("milli volts", 1.0),
        ("0.1mV", 0.1),
        ("\u03bcV".encode("shift_jis").decode("latin-1"), 1e-3),
        ("\u03bcV".encode("gbk").decode("latin-1"), 1e-3),
        ("\u03bcV".encode("big5").decode("latin-1"), 1e-3),
        ("\u03bcV".encode().decode("latin-1"), 1e-3),
        ("?V", 1e-3),
        ("1/mV", None),
        ("uV/mm", None),
        ("mmHg", None),
    ],
)
def test_units_of_voltage(unit: str, expected: float | None) -> None:
    assert millivolts_per_unit(unit) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("63", 63.0),
        (" 63.5 years", 63.5),
        ("63Y", 63.0),
        (0, 0.0),
        (120, 120.0),
        (300, None),
        (-1, None),
        ("NaN", None),
        (None, None),
        ("Unknown", None),
    ],
)
def test_ages(text: object, expected: float | None) -> None:
    assert parse_age(text) == expected


def test_sexes() -> None:
    assert [parse_sex(text) for text in ("F", "Female", "woman", "w")] == ["female"] * 4
    assert [parse_sex(text) for text in ("M", " male ", "man")] == ["male"] * 3
    assert [parse_sex(text) for text in ("", None, "unknown", "x")] == [None] * 4


def test_whole_years() -> None:
    born = date(1960, 5, 20)
    assert years_between(born, date(2020, 5, 19)) == 59
    assert years_between(born, date(2020, 5, 20)) == 60
