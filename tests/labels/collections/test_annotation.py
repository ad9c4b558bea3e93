from __future__ import annotations

import pytest

from src.labels.collections.annotation import find_source, label_record, load_sources
from src.labels.crosswalk import SUPERCLASSES, load_class_set


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("A0001", "cpsc"),
        ("Q0001", "cpsc_extra"),
        ("I0001", "incart"),
        ("S0001", "ptb"),
        ("HR00001", "ptbxl_snomed"),
        ("E00001", "georgia"),
        ("JS00001", "chapman"),
        ("JS10646", "chapman"),
        ("JS10647", "ningbo"),
        ("B0001", None),
        ("x", None),
    ],
)
def test_sources_by_record_name(name: str, source: str | None) -> None:
    found = find_source(name)
    assert (found.name if found else None) == source


def test_what_a_source_never_annotates_is_not_annotated() -> None:
    cpsc, scored = load_sources()["cpsc"], load_class_set("challenge2021")
    result = label_record(["59118001"], cpsc, scored)
    assert result.labels == ("RBBB",)
    assert result.annotated == ("NSR", "AF", "PAC", "IAVB", "LBBB", "RBBB")
    nothing = label_record(["164931005"], cpsc, scored)
    assert nothing.labels == ("OTHER",)
    assert nothing.annotated[-1] == "OTHER"


@pytest.mark.parametrize(
    ("codes", "source", "labels", "annotated"),
    [
        # CPSC did not look for the other superclasses, but the record is not normal
        (["59118001"], "cpsc", ("CD",), ("NORM", "CD")),
        (["426783006"], "cpsc", ("NORM",), SUPERCLASSES),
        (["426177001"], "georgia", ("NORM",), SUPERCLASSES),
        (["426177001"], "incart", (), ()),  # does not look for what would make it abnormal
        (["164889003"], "georgia", (), ("STTC", "CD", "HYP")),  # no verdict on normal
        (["164947007"], "georgia", (), ("STTC", "HYP")),  # a long PR interval may be a block
        (["164873001", "164934002"], "georgia", ("STTC", "HYP"), ("NORM", "STTC", "CD", "HYP")),
        # An unknown code may be anything
        (["164873001", "99"], "georgia", ("HYP",), ("NORM", "HYP")),
        (["99"], "georgia", ("OTHER",), ("OTHER",)),
        (["22", "23"], "sph", ("NORM",), SUPERCLASSES),
        (["N"], "challenge2017", (), ()),
    ],
)
def test_known_superclasses(
    codes: list[str], source: str, labels: tuple[str, ...], annotated: tuple[str, ...]
) -> None:
    result = label_record(codes, load_sources()[source], load_class_set("ptbxl_superclass"))
    assert result.labels == labels
    assert result.annotated == annotated
