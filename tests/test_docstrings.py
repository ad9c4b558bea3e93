"""Docstrings match signatures: a Parameters section names exactly the parameters."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "src").rglob("*.py"))
SECTION = re.compile(
    r"^Parameters\n-+\n(.*?)(?=\n[A-Z][A-Za-z ]+\n-+\n|\Z)", re.MULTILINE | re.DOTALL
)
MOST_UNEXPLAINED = 5
"""A public function with more parameters needs a Parameters section."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(path: Path) -> Iterator[tuple[str, Function, str]]:
    """Yield name, definition and docstring; a class stands for its ``__init__``."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for part in node.body:
                if isinstance(part, Function) and part.name == "__init__":
                    yield node.name, part, ast.get_docstring(node) or ""
                elif isinstance(part, Function) and not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}", part, ast.get_docstring(part) or ""


def parameters_of(function: Function) -> list[str]:
    arguments = function.args
    names = [
        a.arg
        for a in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            arguments.vararg,
            arguments.kwarg,
        )
        if a
    ]
    return [name for name in names if name not in ("self", "cls")]


def explained(docstring: str) -> list[str]:
    """Return the names of a numpydoc Parameters section; ``a, b`` is two."""
    section = SECTION.search(docstring)
    lines = section[1].splitlines() if section else []
    heads = [line.split(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return [name.strip(" *`") for head in heads for name in head.split(",")]


@pytest.mark.parametrize(
    "path", MODULES, ids=[path.relative_to(ROOT).as_posix() for path in MODULES]
)
def test_parameters_are_explained_as_they_are(path: Path) -> None:
    for name, function, docstring in public_functions(path):
        names = parameters_of(function)
        documented = explained(docstring)
        assert not documented or sorted(documented) == sorted(names), (
            f"{name}: {sorted(set(documented) ^ set(names))}"
        )
        assert documented or len(names) <= MOST_UNEXPLAINED, (
            f"{name} has {len(names)} parameters and explains none"
        )


def test_a_section_is_read() -> None:
    assert explained(
        "One.\n\nParameters\n----------\na, b\n    Two.\nc : int\n    "
        "Three.\n\nReturns\n-------\nint\n    Four."
    ) == ["a", "b", "c"]
    assert explained("Nothing.") == []
