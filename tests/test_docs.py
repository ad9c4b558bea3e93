"""The documents keep up with the code: every setting and option is explained, links lead somewhere,
commands are right.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from src import config
from src.__main__ import build_parser

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = (
    "README.md",
    "IMPLEMENTATION_GUIDE.md",
    "SETUP_SUMMARY.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
]
SHELL = re.compile(
    r"(\$ )?(python3?|make|pip|git|source|export|cd|docker|torchrun|printf|jupyter|conda|uv)\b"
)


def text_of(name: str) -> str:
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not written yet")
    return path.read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> list[str]:
    """Return the fenced blocks in one of the languages; one without a language is a shell's when it
    begins like it.
    """
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text_of(name), re.MULTILINE | re.DOTALL)
    return [
        text
        for language, text in found
        if (language or ("bash" if SHELL.match(text) else "text")) in languages
    ]


def parsers() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._actions
    return next(
        action.choices for action in actions if isinstance(action, argparse._SubParsersAction)
    )


# The guide ----------------------------------------------------------------------------------------


def settings_classes() -> list[type]:
    classes = [
        value
        for value in vars(config).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    ]
    return [kind for kind in classes if kind.__module__ == config.__name__]


@pytest.mark.parametrize("kind", settings_classes())
def test_every_setting_is_explained(kind: type) -> None:
    guide = text_of("IMPLEMENTATION_GUIDE.md")
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if not re.search(rf"`[^`\n]*\b{field.name}\b[^`\n]*`", guide)
    ]
    assert kind.__name__ in guide and not missing


@pytest.mark.parametrize("name", parsers())
def test_every_option_is_explained(name: str) -> None:
    guide = text_of("IMPLEMENTATION_GUIDE.md")
    flags = [
        action.option_strings[-1 if len(action.option_strings) == 1 else 0]
        for action in parsers()[name]._actions
        if action.option_strings
    ]
    missing = [
        flag
        for flag in flags
        if flag != "-h" and not re.search(rf"(?<![\w-]){flag}(?![\w-])", guide)
    ]
    assert f"`{name}`" in guide or f"src {name}" in guide
    assert not missing


def test_every_entry_of_src_has_its_line_in_the_readme() -> None:
    readme = text_of("README.md")
    entries = [path for path in (ROOT / "src").iterdir() if path.name != "__pycache__"]
    assert not [
        path.name
        for path in entries
        if f"`{path.name}{'/' if path.is_dir() else ''}`" not in readme
    ]


# Links --------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Return the anchors that a Markdown viewer makes of the headings."""
    headings = re.findall(r"^#+ +(.+?) *$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    unwritten = [other for other in WRITTEN if not (ROOT / other).exists()]
    if unwritten:
        pytest.skip(f"{', '.join(unwritten)} not written yet")
    prose = re.sub(r"^```.*?^```", "", text_of(name), flags=re.MULTILINE | re.DOTALL)
    links = [
        *re.findall(r"\]\(<?([^)\s>]+)", prose),
        *re.findall(r"(?:src|href)=\"([^\"]+)\"", prose),
    ]
    broken = []
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (ROOT / name).parent / target if target else ROOT / name
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(link)
    assert not broken


# Commands and code --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shell_blocks_parse(name: str) -> None:
    for block in blocks(name, "bash", "sh", "shell"):
        done = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist_with_their_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(name, "bash", "sh", "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"python3? -m src (.*)", line)
            if match is None:
                continue
            words = shlex.split(re.split(r"\s(?:&&|\|\|?|;|>)\s", match[1])[0], comments=True)
            if {"--help", "--version"} & set(words):
                continue
            try:
                build_parser().parse_args(words)
            except SystemExit:
                pytest.fail(f"{line}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_blocks_import_what_is_there(name: str) -> None:
    for block in blocks(name, "python", "py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "src":
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_make_targets_exist() -> None:
    targets = set(
        re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for name in DOCUMENTS:
        used = set(re.findall(r"(?:^|`)make ([\w-]+)", text_of(name), re.MULTILINE))
        assert used <= targets, f"{name}: {used - targets}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_no_machine(name: str) -> None:
    assert not re.findall(r"(?<![\w.])/(?:root|work|home/\w+)/\S*", text_of(name))
