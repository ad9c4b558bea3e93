from __future__ import annotations

import pytest

from src.labels.cells import is_printed, read_flag, split_labels


@pytest.mark.parametrize(
    "cell",
    [
        "AF;PVC",
        "AF; PVC;AF;",
        "['AF', 'PVC']",
        "['AF' 'PVC']",
        "['AF'\n 'PVC']",
        '["AF","PVC"]',
        "('AF', 'PVC')",
        "{'AF', 'PVC'}",
        "array(['AF', 'PVC'], dtype=object)",
        "array(['AF', 'PVC'], dtype='<U3')",
        "Index(['AF', 'PVC'], dtype='object')",
        "frozenset({'AF', 'PVC'})",
        "[np.str_('AF'), np.str_('PVC')]",
        "{'AF': 1, 'SR': 0, 'PVC': 1.0}",
        "{'AF': True, 'SR': False, 'PVC': True, 'x': None}",
        "{'AF': 100.0, 'PVC': 35.0}",
        "[AF, PVC]",
        "[AF;PVC]",
        "['AF', 'PVC', nan, None]",
    ],
)
def test_printed_labels(cell: str) -> None:
    assert split_labels(cell, ";") == ("AF", "PVC")


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("('NSR',)", ("NSR",)),
        ("[]", ()),
        ("{}", ()),
        ("set()", ()),
        ("nan", ()),
        ("0.0", ("0",)),
        ("164889003.0", ("164889003",)),
        ("[1 2]", ("1", "2")),
        ("[sinus rhythm]", ("sinus rhythm",)),
        ("['Wenckebach\\'s block']", ("Wenckebach's block",)),
        ('["Wenckebach\'s block"]', ("Wenckebach's block",)),
        ("(possible) AF", ("(possible) AF",)),
        ("(AFIB)", ("(AFIB)",)),
        ("~", ("~",)),
    ],
)
def test_other_cells(cell: str, labels: tuple[str, ...]) -> None:
    assert split_labels(cell, ";") == labels


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("{'NORM': 100.0, 'SR': 0.0}", "absent or not graded.*labels ptbxl"),
        ("{'NORM': 'certain'}", "a dictionary: expected labels with numbers"),
        ("{'NORM': }", "no dictionary of labels"),
        ("['AF' 'B' ... 'PVC']", "is cut off"),
        ("[" + "'A'," * 5000 + "]", "characters"),
    ],
)
def test_what_cannot_be_told_is_refused(cell: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_labels(cell, ";")


def test_flags_and_printed_cells() -> None:
    assert [read_flag(cell) for cell in ("True", "1.0", "yes", "x")] == [True] * 4
    assert [read_flag(cell) for cell in ("", "0", "0.0", "False", "nan")] == [False] * 5
    assert read_flag("AF") is None and read_flag("2") is None
    assert is_printed("['AF']") and is_printed("array([1])")
    assert not is_printed("AF") and not is_printed("(AFIB)")
