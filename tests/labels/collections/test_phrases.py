from __future__ import annotations

from pathlib import Path

import pytest

from src.labels.collections.phrases import Meaning, load_phrases
from src.labels.crosswalk import OWN_NAMES, TABLES, known_codes

PHRASES = load_phrases(TABLES / "mimic_phrases.csv")


@pytest.mark.parametrize(
    ("statement", "present", "in_doubt"),
    [
        ("Sinus rhythm", ("NSR",), ()),
        ("Sinus rhythm with PVC(s)", ("NSR", "PVC"), ()),
        ("Sinus rhythm with 1st degree A-V block", ("NSR", "IAVB"), ()),
        ("Incomplete right bundle branch block", ("IRBBB",), ()),
        ("RBBB with left anterior fascicular block", ("RBBB", "LAnFB"), ()),
        ("Possible left atrial abnormality", (), ("LAA",)),
        (
            "Anterolateral T wave changes may be due to myocardial ischemia",
            ("TAb",),
            ("MIs",),
        ),
        ("Inferior infarct - age undetermined", ("IMI",), ()),
        ("Cannot rule out inferior infarct", (), ("IMI",)),
        ("No ST elevation", (), ()),
        ("Otherwise normal ECG", (), ()),
        ("Abnormal ECG", ("ABNORMAL",), ()),
    ],
)
def test_what_statements_of_machines_mean(
    statement: str, present: tuple[str, ...], in_doubt: tuple[str, ...]
) -> None:
    assert PHRASES.read(statement) == Meaning(present, in_doubt, True)


def test_unknown_statements_are_counted_and_what_is_certain_is_not_in_doubt() -> None:
    meaning, unknown = PHRASES.read_all(["Consider RVH", "RVH", "--- Recorded by hand ---", ""])
    assert meaning == Meaning(("RVH",), (), True)
    assert dict(unknown) == {"--- Recorded by hand ---": 1}
    assert PHRASES.read_all([]) == (Meaning((), (), False), {})


def test_every_class_of_the_tables_is_one_of_the_crosswalk_or_named_here() -> None:
    own = {"ABNORMAL", "IRREGULAR_SINUS", "AXIS_NORMAL", "AXIS_VERTICAL", "AXIS_HORIZONTAL"}
    names = {*PHRASES.classes, *load_phrases(TABLES / "ludb_phrases.csv").classes}
    assert names - own <= set(known_codes(OWN_NAMES))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("phrase,class\nAF,A\na f,B\naf,C\n", "row 4, phrase 'af', class 'C'"),
        ("phrase,class\n--,A\n", "row 2, phrase '--'"),
        ("phrase,class\nAF,A;B\n", "row 2, phrase 'AF', class 'A;B'"),
        ("phrase,class\nAF,\n", "names no class"),
        ("text,class\nAF,A\n", "columns phrase are missing"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"p\.csv.*{expected}"):
        load_phrases(tmp_path / "p.csv")
