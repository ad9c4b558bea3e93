"""Signal lines are parsed by their common words; the result must be that of parsing each line
whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from src.records.formats.wfdb_header import (
    SignalSpec,
    _parse_complete_lines,
    _parse_line,
    _parse_signals,
)
from src.records.record import RecordError

HEADER = Path("r.hea")
LINES = [
    "r.dat 16 1000/mV 16 0 -115 13047 0 I",
    "r.dat 16 1000.0(0)/mV 16 0 -115 13047 0 lead II",
    "E1.mat 16+24 4880/mv 16 0 -44 0 0 aVR",
    "r.dat 212x2:3+8 200(-7)/uV 12 1024 995 -22131 0 MLII",
    "r.dat 16 1000/mV 16 0 -115",
    "r.dat 16",
    "two words.dat 16 1000/mV 16 0 5 6 0 I",
    "r.dat 16 1000/mV 16 0 5 6 0 ",
    "r.dat 16 1000/mV 16 0 5 6 0 I  \t spaced   name",
    "r.dat 16 nan/mV 16 0 5 6 0 I",
    "r.dat 16 1e99/mV 16 0 5 6 0 I",
    "../r.dat 16 1000/mV 16 0 5 6 0 I",
    "CON.dat 16 1000/mV 16 0 5 6 0 I",
    "r.dat 16 1000(99999999999999)/mV 16 0 5 6 0 I",
    "r.dat 16 1000/mV 16 0 +5 6 0 I",
    "r.dat 16 1000/mV 16 0 1_0 6 0 I",
    "r.dat 16 1000/mV 16 0 ٣ 6 0 I",
    "r.dat 16 1000/mV 16 0 5 - 0 I",
    "r.dat 16 1000/mV 16 0 5 6 x I",
]


def outcome(
    parse: Callable[[list[str]], tuple[SignalSpec, ...]], *lines: str
) -> tuple[object, ...]:
    try:
        return parse(list(lines))
    except (RecordError, ValueError) as error:
        return type(error), str(error)


def together(lines: list[str]) -> tuple[SignalSpec, ...]:
    return _parse_signals(lines, len(lines), HEADER)


def line_by_line(lines: list[str]) -> tuple[SignalSpec, ...]:
    return tuple(_parse_line(line, HEADER) for line in lines)


def mutated(line: str, rng: random.Random) -> str:
    at = rng.randrange(len(line) + 1)
    return (
        line[:at]
        + rng.choice(
            [" ", "\t", "-", "+", "/", "(", ".", "x", ":", "9", "0", "\\", "é", "\x1f", "\u2003"]
        )
        + line[at + rng.randrange(2) :]
    )


@pytest.mark.parametrize("line", LINES)
def test_common_words_give_what_the_whole_line_gives(line: str) -> None:
    rng = random.Random(line)
    for text in (line, *(mutated(line, rng) for _ in range(300))):
        stripped = text.strip()  # as `parse_header` hands lines over
        assert outcome(together, stripped) == outcome(line_by_line, stripped), stripped


def test_lines_together_give_what_each_gives_alone() -> None:
    rng = random.Random(0)
    usual = [
        line
        for line in LINES
        if line.isascii()
        and isinstance(outcome(line_by_line, line)[0], SignalSpec)
        and len(line.split()) == 9
    ]
    for _ in range(2000):
        lines = [rng.choice(usual) for _ in range(rng.randrange(1, 14))]
        assert _parse_complete_lines(lines, HEADER) == line_by_line(lines)
        if rng.random() < 0.7:
            lines[rng.randrange(len(lines))] = rng.choice(LINES).strip()
        assert outcome(together, *lines) == outcome(line_by_line, *lines), lines


def test_lines_of_real_headers_give_what_whole_lines_give(real_data: Callable[[str], Path]) -> None:
    headers = [*real_data("ptbxl500").rglob("*.hea"), *real_data("challenge2021").rglob("*.hea")]
    texts = [
        [
            line.strip()
            for line in path.read_text(encoding="latin-1").splitlines()[1:]
            if not line.startswith("#")
        ]
        for path in headers
    ]
    assert sum(map(len, texts)) > 1000
    for lines in texts:
        signals = list(filter(None, lines))
        assert outcome(together, *signals) == outcome(line_by_line, *signals)
