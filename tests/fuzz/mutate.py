"""Seeded mutations of text and bytes: what broken exports, torn downloads and hostile hands make of
a file.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib

NUMBERS = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "12",
    "255",
    "256",
    "32767",
    "-32768",
    "65535",
    "65536",
    "99999",
    "2147483647",
    "-2147483649",
    "4294967296",
    "9223372036854775808",
    "99999999999999999999",
    "1e9",
    "1e30",
    "1e308",
    "1e999",
    "1e-30",
    "1e-308",
    "-1e-9",
    "0.5",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "0x10",
    "1_000",
    "1,5",
    ".",
    "-",
    "+",
    "e5",
    "٣",
    "½",
    "0000001",
    "1/0",
    "~",
]
SPECKS = (
    "\0",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "\x0b",
    "\x1a",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "\U0001f600",
    "é",
    "µ",
    " ",
    "  ",
    "..",
    "../",
    "/",
    "\\",
    "C:",
    "::",
    ":",
    ";",
    ",",
    '"',
    "'",
    "=",
    "@",
    "#",
    "<",
    ">",
    "&",
    "%00",
    "%s",
    "{0}",
    "$(x)",
    "*",
    "?",
    # what steers a terminal or a reader's eye, and what is not seen
    "\x1b]0;x\x07",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u061c",
    "\u200b",
    "\u200d",
    "\u2060",
    "\u00ad",
    "\ufe0f",
    "\u180e",
    "\u3164",
    "\U000e0041",
    "\U000e0100",
    # one letter in two forms
    "\u00e9",
    "e\u0301",
)
_WORD = re.compile(r"[^\s,;<>\"]+")
_DIGITS = re.compile(r"[-+]?\d+(?:\.\d+)?")


def mutate_text(rng: random.Random, text: str) -> str:
    """Return the text after one to four edits."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        text = rng.choice(_TEXT_EDITS)(rng, text)
    return text


def _replace(
    rng: random.Random, text: str, pattern: re.Pattern[str], choices: tuple[str, ...] | list[str]
) -> str:
    found = list(pattern.finditer(text))
    if not found:
        return text + rng.choice(choices)
    at = rng.choice(found)
    return text[: at.start()] + rng.choice(choices) + text[at.end() :]


def _number(rng: random.Random, text: str) -> str:
    return _replace(rng, text, _DIGITS, NUMBERS)


def _word(rng: random.Random, text: str) -> str:
    words = _WORD.findall(text) or [""]
    return _replace(rng, text, _WORD, [rng.choice(words), rng.choice(NUMBERS), ""])


def _speck(rng: random.Random, text: str) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(SPECKS) * rng.choice((1, 1, 1, 2, 3000)) + text[at:]


def _cut(rng: random.Random, text: str) -> str:
    start = rng.randint(0, len(text))
    return text[:start] + text[start + rng.choice((1, 2, 5, 20, 10**6)) :]


def _lines(rng: random.Random, text: str) -> str:
    """Drop, repeat, swap or join lines."""
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    action = rng.choice(("drop", "repeat", "many", "swap", "join"))
    if action == "drop":
        del lines[i]
    elif action in ("repeat", "many"):
        lines[i:i] = [lines[i]] * (1 if action == "repeat" else rng.choice((50, 5000)))
    elif action == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    else:
        lines[i : i + 2] = [" ".join(lines[i : i + 2])]
    return "\n".join(lines)


def _twin(rng: random.Random, text: str) -> str:
    """Repeat a line with an accent, a mark that is not seen, or another form of one, in a word."""
    lines = text.split("\n")
    i = rng.randrange(len(lines))
    word = _WORD.search(lines[i], rng.randint(0, len(lines[i])))
    if word is None:
        return text
    place = word.end()
    marks = rng.choice((("\u00e9", "e\u0301"), ("", "\u200b"), ("", "\ufeff"), ("a", "\u00adA")))
    lines[i : i + 1] = [lines[i][:place] + mark + lines[i][place:] for mark in marks]
    return "\n".join(lines)


def _ends(rng: random.Random, text: str) -> str:
    return text.replace("\n", rng.choice(("\r\n", "\r", "\n\n", "\x85", " ")))


_TEXT_EDITS = (_number, _number, _number, _word, _word, _speck, _cut, _lines, _ends, _twin)


def repeat_column(rng: random.Random, text: str) -> str:
    """Return a table of which one column stands twice, the second time in another case or with
    other cells.
    """
    lines = text.split("\n")
    i = rng.randrange(len(lines[0].split(",")))
    name = lines[0].split(",")[i]
    cell = rng.choice(("x", "1", ""))
    again = [rng.choice((name, name.upper(), f" {name}"))] + [cell] * (len(lines) - 1)
    pairs = zip(lines, again, strict=True)
    return "\n".join(f"{line},{other}" if line else "" for line, other in pairs)


def replace_value(rng: random.Random, raw: bytes) -> bytes:
    """Return a JSON file of which one value is of another kind, another size, or missing."""
    whole = json.loads(raw)
    inner, steps = whole, rng.randint(1, 5)
    while True:
        key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        steps -= 1
        if not steps or not isinstance(inner[key], dict | list) or not inner[key]:
            break
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[key]
    else:
        inner[key] = rng.choice(_VALUES)
    return json.dumps(whole).encode()


_VALUES = (
    *(None, True, 0, -1, 0.5, 10**6, 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "\x1b[31m", "\u202e", "a" * 10**5, [], {}, [[]], [None], {"a": {}}, ["x"] * 10**4),
)


def mutate_bytes(rng: random.Random, raw: bytes, other: bytes = b"") -> bytes:
    """Return the bytes after one to eight edits; chunks of `other` may get in."""
    held = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        rng.choice(_BYTE_EDITS)(rng, held, other)
    return bytes(held)


def _place(rng: random.Random, held: bytearray) -> int:
    """Return an offset, in the first kilobyte, where the headers are, as often as anywhere."""
    return rng.randrange(min(len(held), rng.choice((64, 1024, 10**9))) or 1)


def _flip(rng: random.Random, held: bytearray, other: bytes) -> None:
    if held:
        held[_place(rng, held)] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, held: bytearray, other: bytes) -> None:
    value = rng.choice(
        (
            0,
            1,
            2,
            0x7F,
            0xFF,
            0x7FFF,
            0x8000,
            0xFFFF,
            2**24,
            2**31 - 1,
            2**31,
            2**32 - 1,
            2**63 - 1,
            2**64 - 1,
        )
    )
    size = rng.choice((1, 2, 4, 8))
    at = _place(rng, held)
    held[at : at + size] = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))


def _float(rng: random.Random, held: bytearray, other: bytes) -> None:
    value = rng.choice((float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-300, 1e300))
    at = _place(rng, held)
    held[at : at + 8] = struct.pack(rng.choice("<>") + "d", value)


def _digits(rng: random.Random, held: bytearray, other: bytes) -> None:
    """Replace a number in the text of a binary header."""
    found = list(re.finditer(rb"[-+]?\d+(?:\.\d+)?", bytes(held[:4096])))
    if found:
        at = rng.choice(found)
        text = rng.choice(NUMBERS).encode()
        held[at.start() : at.end()] = (
            text.ljust(at.end() - at.start()) if rng.random() < 0.8 else text
        )


def _drop(rng: random.Random, held: bytearray, other: bytes) -> None:
    at = _place(rng, held)
    del held[at : at + rng.choice((1, 2, 4, 16, 256))]


def _insert(rng: random.Random, held: bytearray, other: bytes) -> None:
    at, start = _place(rng, held), rng.randrange(len(other) or 1)
    chunk = rng.choice((b"\0", b"\xff", other[start : start + 64]))
    held[at:at] = chunk * rng.choice((1, 4, 100))


def _copy(rng: random.Random, held: bytearray, other: bytes) -> None:
    start, at, size = _place(rng, held), _place(rng, held), rng.choice((2, 8, 64))
    held[at : at + size] = held[start : start + size]


def _tear(rng: random.Random, held: bytearray, other: bytes) -> None:
    del held[rng.choice((_place(rng, held), len(held) - rng.randrange(1, 9))) :]


def _trail(rng: random.Random, held: bytearray, other: bytes) -> None:
    held += rng.choice((b"\0", b"\n", b"\xff\x00", other[:200])) * rng.choice((1, 10, 1000))


_BYTE_EDITS = (
    _flip,
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _float,
    _digits,
    _drop,
    _insert,
    _copy,
    _tear,
    _trail,
)


def mutate_zip(rng: random.Random, raw: bytes) -> bytes:
    """Change one member of a zip archive and write the archive anew, with right checksums."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    i = rng.randrange(len(members))
    name, content = members[i]
    action = rng.choice(("content", "content", "content", "name", "drop", "twice", "bomb"))
    if action == "content":
        members[i] = name, mutate_bytes(rng, content, rng.choice(members)[1])
    elif action == "name":
        members[i] = (
            mutate_text(rng, name).replace("\0", "").encode("utf-8", "replace").decode()[:200]
            or "x",
            content,
        )
    elif action == "drop":
        del members[i]
    elif action == "twice":
        members.append((name, rng.choice(members)[1]))
    else:
        members[i] = name, _bomb(rng, content)
    stream = io.BytesIO()
    compression = (
        rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
        if action != "bomb"
        else zipfile.ZIP_DEFLATED
    )
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return stream.getvalue()


_NPY = b"\x93NUMPY\x01\x00\x76\x00{'descr': '%s', 'fortran_order': False, 'shape': %s, }"


def _bomb(rng: random.Random, content: bytes) -> bytes:
    """Return an array that promises more than any record holds; only some of it is there."""
    descr = rng.choice((b"<f4", b"<U1", b"|O", b"<U2147483647", b"|V1000000000"))
    shape = rng.choice(
        (
            b"(12, 100000000)",
            b"(1000000000000,)",
            b"(-1, 12)",
            b"(12, 0)",
            b"()",
            b"(2,) * 9",
            b"(1.5,)",
        )
    )
    return (_NPY % (descr, shape)).ljust(127) + b"\n" + bytes(rng.choice((0, 10**6)))


def mutate_mat(rng: random.Random, raw: bytes) -> bytes:
    """Change the content of the compressed elements of a version 5 MAT file, and compress it
    again.
    """
    out, at = bytearray(raw[:128]), 128
    while at + 8 <= len(raw):
        kind, size = struct.unpack("<II", raw[at : at + 8])
        content = raw[at + 8 : at + 8 + size]
        if kind == 15:
            plain = zlib.decompress(content)
            content = zlib.compress(mutate_bytes(rng, plain) if rng.random() < 0.7 else plain)
        out += struct.pack("<II", kind, len(content)) + content
        at += 8 + size
    return bytes(out)
