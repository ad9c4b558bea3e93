"""Every pattern of the project takes time in proportion to a text, whatever the text is."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FUNCTIONS = {"compile", "match", "fullmatch", "search", "split", "sub", "findall", "finditer"}
LENGTH = 30_000
# Characters of the texts that the patterns of a module see, where it cuts longer ones.
BOUNDED = {
    "labels/cells.py": 10_000,
    "plots/quality.py": 1000,
    # Our own figures, in which a text has no tag
    "plots/report/page.py": 5000,
    "records/formats/dicom.py": 200,
    "records/formats/stated_facts.py": 64,
    "records/formats/text_arrays.py": 200,
    "records/formats/wfdb_header.py": 2000,
    "records/leads.py": 200,
}
# Seconds. A pattern takes 1 to 100 ns for a character, a quadratic one half a second and more.
LIMIT_S = 0.2


# Collecting ---------------------------------------------------------------------------------------


def _literal(node: ast.expr, names: dict[str, ast.expr]) -> str | bytes | None:
    """Return the text of an expression of literals and names of literals; others are an x."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, (str, bytes)) else None
    if isinstance(node, ast.Name):
        return _literal(names[node.id], names) if node.id in names else None
    if isinstance(node, ast.BinOp):
        left, right = _literal(node.left, names), _literal(node.right, names)
        return left + right if isinstance(left, str) and isinstance(right, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [
            _literal(part.value if isinstance(part, ast.FormattedValue) else part, names)
            for part in node.values
        ]
        return "".join(part if isinstance(part, str) else "x" for part in parts)
    return None


def _flags(call: ast.Call) -> int:
    """Return the flags of a call, such as ``re.IGNORECASE | re.DOTALL``."""
    named = [node for arg in call.args[1:] for node in ast.walk(arg)]
    named += [node for keyword in call.keywords for node in ast.walk(keyword.value)]
    flags = 0
    for node in named:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            value = getattr(re, node.attr, 0) if node.value.id == "re" else 0
            flags |= int(value) if isinstance(value, re.RegexFlag) else 0
    return flags


def _uses(text: str, name: str) -> set[str]:
    """Return the methods of a compiled pattern that its module calls; all if it calls none."""
    called = set(re.findall(rf"\b{name}\.(\w+)\(", text)) & FUNCTIONS
    return called or {"match", "fullmatch", "search"}


def collect_patterns() -> list[tuple[str, set[str], re.Pattern[Any]]]:
    """Return the place, the ways of use and the pattern of each call of `re` in the project."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        source = path.read_text()
        tree = ast.parse(source)
        names = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        compiled = {id(value): name for name, value in names.items()}
        for node in ast.walk(tree):
            function = node.func if isinstance(node, ast.Call) else None
            if not isinstance(function, ast.Attribute) or not isinstance(node, ast.Call):
                continue
            if getattr(function.value, "id", "") != "re" or function.attr not in FUNCTIONS:
                continue
            text = _literal(node.args[0], names)
            name = compiled.get(id(node))
            uses = _uses(source, name) if name else {function.attr} - {"compile"} or {"search"}
            place = f"{path.relative_to(SOURCE)}:{node.lineno}"
            if text is not None:
                found.append((place, uses, re.compile(text, _flags(node))))
    return found


PATTERNS = collect_patterns()


# Hostile texts ------------------------------------------------------------------------------------


def _example(items: Any) -> str:
    """Return a short text that a parsed pattern matches, with each repeat as short as may be."""
    return "".join(_of_item(kind, value) for kind, value in items)


def _of_item(kind: Any, value: Any) -> str:
    if kind is sre.LITERAL:
        return chr(value)
    if kind is sre.NOT_LITERAL:
        return next(c for c in "a1 " if ord(c) != value)
    if kind is sre.ANY:
        return "a"
    if kind is sre.IN:
        return _of_class(value)
    if kind is sre.BRANCH:
        return _example(value[1][0])
    if kind is sre.SUBPATTERN:
        return _example(value[3])
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return _example(value[2]) * value[0]
    if kind is sre.ATOMIC_GROUP:
        return _example(value)
    return ""


def _of_class(members: Any) -> str:
    """Return a character of a class such as ``[a-z ]`` or ``[^<]``."""
    text = " \t\n,;_-=.:/()[]<>'\"\\aAxzZ019é#@+*?\0\x1b"
    if members[0][0] is sre.NEGATE:
        return next(c for c in "a1 -é\0" if not _is_in(c, members[1:]))
    first = members[0][1]
    text += chr(first if isinstance(first, int) else first[0])
    return next(c for c in text if _is_in(c, members))


def _is_in(character: str, members: Any) -> bool:
    tests = {
        sre.CATEGORY_DIGIT: str.isdigit,
        sre.CATEGORY_SPACE: str.isspace,
        sre.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    }
    for kind, value in members:
        if kind is sre.LITERAL and ord(character) == value:
            return True
        if kind is sre.RANGE and value[0] <= ord(character) <= value[1]:
            return True
        if kind is sre.CATEGORY:
            positive = tests.get(value)
            if positive is not None and positive(character):
                return True
            if positive is None and not character.isalnum() and not character.isspace():
                return True
    return False


def _repeats(items: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield what comes before each repeat of a parsed pattern, and what it repeats."""
    for kind, value in items:
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            for one in _variants(value[2]):
                yield before, one
            yield from _repeats(value[2], before)
        elif kind is sre.SUBPATTERN:
            yield from _repeats(value[3], before)
        elif kind is sre.ATOMIC_GROUP:
            yield from _repeats(value, before)
        elif kind is sre.BRANCH:
            for branch in value[1]:
                yield from _repeats(branch, before)
        before += _of_item(kind, value)


def _variants(items: Any) -> set[str]:
    """Return texts that what is repeated may be: for a class, several of its characters."""
    variants = {_example(items)}
    if len(items) == 1 and items[0][0] is sre.IN and items[0][1][0][0] is not sre.NEGATE:
        variants |= {c for c in "a1 _-x." if _is_in(c, items[0][1])}
    if len(items) == 1 and items[0][0] in (sre.ANY, sre.NOT_LITERAL, sre.IN):
        variants |= {c for c in "a1 (x" if re.match(_class_text(items), c)}
    return variants - {""}


def _class_text(items: Any) -> str:
    kind, value = items[0]
    if kind is sre.NOT_LITERAL:
        return f"[^{re.escape(chr(value))}]"
    return "." if kind is sre.ANY or value[0][0] is sre.NEGATE else "(?!)"


def hostile_texts(pattern: re.Pattern[Any], length: int) -> list[str]:
    """Return texts of a length that begin as a pattern does and do not end so."""
    items = list(_parser.parse(pattern.pattern, pattern.flags))
    texts = {c * length for c in " a1-(<\t\n"} | {"a " * (length // 2), "1," * (length // 2)}
    for before, one in _repeats(items):
        n = length // len(one)
        texts |= {before + one * n + end for end in ("\x01", "x", "")}
        if before:
            texts |= {
                before * (length // len(before)),
                (before + one) * (length // len(before + one)),
            }
            texts.add((before + one * 170) * (length // (len(before) + 170 * len(one)) + 1))
    whole = _example(items)
    if whole:
        texts |= {whole * (length // len(whole)), whole[:-1] * (length // len(whole))}
    return sorted(texts)


def seconds_taken(pattern: re.Pattern[Any], uses: set[str], text: str) -> float:
    """Return the processor time of a pattern on a text."""
    given: Any = text.encode() if isinstance(pattern.pattern, bytes) else text
    start = time.process_time()
    for use in uses:
        # The others search a text from its beginning to its end.
        method = use if use in ("match", "fullmatch", "search") else "findall"
        getattr(pattern, method)(given)
    return time.process_time() - start


def test_all_patterns_are_found() -> None:
    calls = sum(
        len(re.findall(rf"\bre\.(?:{'|'.join(FUNCTIONS)})\(", path.read_text()))
        for path in SOURCE.rglob("*.py")
    )
    assert calls - 2 <= len(PATTERNS) <= calls and len(PATTERNS) > 80


@pytest.mark.parametrize(("place", "uses", "pattern"), PATTERNS, ids=[item[0] for item in PATTERNS])
def test_patterns_take_linear_time(place: str, uses: set[str], pattern: re.Pattern[Any]) -> None:
    length = BOUNDED.get(place.partition(":")[0], LENGTH)
    for text in hostile_texts(pattern, length):
        took = seconds_taken(pattern, uses, text)
        assert took < LIMIT_S, (
            f"{place}: {took:.2f} s for {len(text)} characters like {text[:40]!r}"
        )
