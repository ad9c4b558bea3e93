"""Files that are made to cost much: each reader in processor time and memory that grow with the
size, and the measuring itself on readers whose costs are known.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fuzz import expensive_files, expensive_records
from fuzz.costs import Cost, Kind, judge, measure_costs
from fuzz.expensive import Expensive, repeat_parts, stretch_fields
from fuzz.seeds import SUFFIXES
from fuzz.tables import TABLES
from fuzz.targets import LOADERS

from src.records.reading import READABLE_SUFFIXES


def test_every_format_and_every_kind_of_file_has_expensive_inputs() -> None:
    readable = set(READABLE_SUFFIXES) - {".hdf"}
    known = {suffix for suffix in readable if suffix.endswith(tuple(SUFFIXES.values()))}
    assert readable == known, "give a new format its target in tests/fuzz/seeds.py"
    assert set(SUFFIXES) == set(expensive_records.GENERATORS)
    assert {*LOADERS, *TABLES, "journal"} == set(expensive_files.GENERATORS)
    for name, generate in (expensive_records.GENERATORS | expensive_files.GENERATORS).items():
        assert next(iter(generate()), None) is not None, name


def test_expensive_inputs_are_read_or_refused_at_little_cost() -> None:
    """The whole run is ``make fuzz``."""
    report = measure_costs(scale=1 / 16, most=2)
    assert not report.findings, str(report)
    assert sum(report.counts.values()) > 100


def test_inputs_are_as_large_as_they_are_asked_to_be(tmp_path: Path) -> None:
    files = {"r.hea": b"r 1 100\n#Age: 7\n"}
    stretched = {item.name: item for item in stretch_fields("w", "r.hea", files, runs=(" ",))}
    age = stretched["w: ' ' after '1 100\\n#Age: 7'"]
    assert age.build(4) == {"r.hea": b"r 1 100\n#Age: 7    x\n"}
    many = [item.build(16)["r.hea"] for item in repeat_parts("w", "r.hea", files)]
    assert many[0] == b"r 1 100\n" * 3 + b"#Age: 7\n"
    assert many[1] == b"r 1 100\nr0 1 100\nr1 1 100\n#Age: 7\n"
    hole = Expensive("a hole", "r.hea", lambda n: files, 1, has_hole=True)
    assert hole.write(tmp_path, 1000).stat().st_size == len(files["r.hea"]) + 1000


@pytest.mark.parametrize(
    ("seconds", "mebibytes", "expected"),
    [
        ((0.1, 0.2, 0.4), (1, 1, 1), ""),
        ((0.1, 0.25, 0.55), (1, 1, 1), ""),  # n log n, and some noise
        ((0.001, 0.01, 0.04), (1, 1, 1), ""),  # too short to tell
        ((0.05, 0.2, 0.8), (1, 1, 1), "time grows faster than the size"),
        ((0.01, 0.07, 0.5), (1, 1, 1), "time grows faster than the size"),
        ((0.6, 1.1, 2.1), (1, 1, 1), "takes over 2 s"),
        ((0.0, 0.0, 0.0), (50, 100, 200), ""),
        ((0.0, 0.0, 0.0), (10, 40, 160), "memory grows faster than the size"),
        ((0.0, 0.0, 0.0), (300, 600, 1200), "takes over 1024 MiB"),
    ],
)
def test_costs_are_judged_by_their_growth(
    seconds: tuple[float, ...], mebibytes: tuple[int, ...], expected: str
) -> None:
    costs = [Cost(s, m * 2**20) for s, m in zip(seconds, mebibytes, strict=True)]
    assert judge(costs).startswith(expected) and bool(judge(costs)) == bool(expected)


def planted_kinds() -> dict[str, Kind]:
    """Return readers of a text of spaces: one is linear, and each other costs too much."""

    def spaces(size: int) -> Expensive:
        return Expensive("spaces", "r.txt", lambda n: {"r.txt": b" " * n + b"x"}, size)

    def quadratic(path: Path) -> object:
        return re.search(r" +$", path.read_text())

    def hungry(path: Path) -> object:
        return [bytearray(90 * path.stat().st_size)]

    def square(path: Path) -> object:
        return bytearray(path.stat().st_size ** 2)

    def endless(path: Path) -> object:
        while path.stat().st_size > 4:
            pass
        return None

    def broken(path: Path) -> object:
        raise KeyError(path.name)

    return {
        "linear": Kind(lambda: [spaces(10**5)], {"load": Path.read_text}),
        "quadratic": Kind(lambda: [spaces(2000)], {"load": quadratic}),
        "square": Kind(lambda: [spaces(4000)], {"load": square}),
        "hungry": Kind(lambda: [spaces(2**22)], {"load": hungry}),
        "endless": Kind(lambda: [spaces(1)], {"load": endless}),
        "broken": Kind(lambda: [spaces(1), spaces(2)], {"load": broken}),
    }


def test_planted_readers_that_cost_too_much_are_found() -> None:
    report = measure_costs(kinds=planted_kinds)
    found = {kind: what for kind, _, what in report.findings}
    assert set(report.counts) == set(planted_kinds())
    assert set(found) == set(planted_kinds()) - {"linear"}, str(report)
    assert found["quadratic"].startswith("time grows faster than the size as it doubles")
    assert "grows faster than the size as it doubles" in found["square"]
    assert found["endless"].startswith("takes over 4 s")
    assert found["broken"].startswith("KeyError") and found["hungry"]
    assert report.counts["broken"] == 2
