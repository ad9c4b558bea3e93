"""Signal lines are parsed by their common words; the result must be that of parsing each line whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from src.formats.base import RecordError
from src.formats.wfdb_header import SignalSpec, _parse_any_signal, _parse_signal

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


def outcome(parse: Callable[[str, Path], SignalSpec], line: str) -> object:
    try:
        return parse(line, HEADER)
    except (RecordError, ValueError) as error:
        return type(error), str(error)


def mutated(line: str, rng: random.Random) -> str:
    at = rng.randrange(len(line) + 1)
    return line[:at] + rng.choice([" ", "\t", "-", "+", "/", "(", ".", "x", ":", "9", "0", "\\", "é", "\x1f", "\u2003"]) + line[at + rng.randrange(2) :]


@pytest.mark.parametrize("line", LINES)
def test_common_words_give_what_the_whole_line_gives(line: str) -> None:
    rng = random.Random(line)
    for text in (line, *(mutated(line, rng) for _ in range(300))):
        stripped = text.strip()  # as `parse_header` hands lines over
        assert outcome(_parse_signal, stripped) == outcome(_parse_any_signal, stripped), stripped


def test_lines_of_real_headers_give_what_whole_lines_give(real_data: Callable[[str], Path]) -> None:
    headers = [*real_data("ptbxl500").rglob("*.hea"), *real_data("challenge2021").rglob("*.hea")]
    lines = [line.strip() for path in headers for line in path.read_text(encoding="latin-1").splitlines()[1:] if not line.startswith("#")]
    assert len(lines) > 1000
    for line in filter(None, lines):
        assert outcome(_parse_signal, line) == outcome(_parse_any_signal, line)
