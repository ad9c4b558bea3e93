from __future__ import annotations

import unicodedata

import pytest

from src.labels.ids import (
    clean_id,
    file_key,
    id_key,
    id_text,
    is_empty_cell,
    is_nobody,
    name_patients,
)


@pytest.mark.parametrize(
    "text", ["3", "3.0", "0003", " 3", "3 ", "\u200b3", "\ufeff3", "3\u00a0", "3."]
)
def test_spellings_of_a_number_are_one_id(text: str) -> None:
    assert id_key(text) == "3"


@pytest.mark.parametrize(
    ("one", "other"), [("3", "30"), ("p3", "p03"), ("3.5", "3"), ("a", "A"), ("1e5", "100000")]
)
def test_other_ids_stay_apart(one: str, other: str) -> None:
    assert id_key(one) != id_key(other)


def test_unicode_forms_and_invisible_marks_are_one_id() -> None:
    decomposed = unicodedata.normalize("NFD", "Zo\u00eb")
    assert id_key(decomposed) == id_key("Zo\u00eb") == id_key("Zo\u00ad\u00eb\u200d")
    assert clean_id("a\u3000 b\u00a0") == "a b"
    assert file_key(decomposed) == file_key("ZO\u00cb")


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", "--", "?", "unknown", "UNKNOWN ", "Unk.", "NA", "n/a", "nan", "<NA>"),
        *("None", "null", "-1", "-1.0", "-999", "not available", "\N{EM DASH}"),
    ],
)
def test_words_for_nobody(text: str) -> None:
    assert is_nobody(text)


@pytest.mark.parametrize("text", ["0", "1", "-17", "Nancy", "unknown7", "N", "a-1"])
def test_names_of_somebody(text: str) -> None:
    assert not is_nobody(text)


def test_cells_without_a_value() -> None:
    assert all(map(is_empty_cell, ("", "nan", "NaN", "<NA>", "-", "None")))
    assert not any(map(is_empty_cell, ("~", "+", "0", "unknown", "N")))


def test_a_patient_has_the_first_of_the_spellings_within_a_dataset() -> None:
    names = name_patients("aaab", ["3.0", "0003", "unknown", "3.0"])
    assert names == ["0003", "0003", "", "3.0"]
    assert [id_text(cell) for cell in ("0003", "3.0", "x.0")] == ["0003", "3", "x.0"]
