"""Fill the tables of docs/settings.md and docs/commands.md from the code: ``make docs`` runs it.

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, where NAME is a settings
class or a command. The text around the tables is written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src import config  # noqa: E402
from src.__main__ import build_parser  # noqa: E402

Table = Callable[[], str]

DEFAULT = re.compile(r"\s*\(default: (.*?)\)$")
ADDED_BY_ARGPARSE = " (default: %(default)s)"
"""Python below 3.13 adds this to the help of an option that has a ``--no-`` form."""


def main() -> None:
    """Rewrite both pages."""
    for name, text in build_pages().items():
        (ROOT / name).write_text(text, encoding="utf-8")


def build_pages() -> dict[str, str]:
    """Return the text of each page by its path, with its tables as they should be."""
    settings = {kind.__name__: settings_table(kind) for kind in settings_classes()}
    commands = {name: command_table(parser) for name, parser in command_parsers().items()}
    return {
        "docs/settings.md": fill(ROOT / "docs" / "settings.md", settings),
        "docs/commands.md": fill(ROOT / "docs" / "commands.md", commands),
    }


def fill(page: Path, tables: Mapping[str, str]) -> str:
    """Return the text of a page with each table between its marks.

    Raises
    ------
    ValueError
        If a table has no marks on the page, or marks name no table.
    """
    text = page.read_text(encoding="utf-8")
    marked = re.findall(r"^<!-- begin (\S+) -->$", text, re.MULTILINE)
    if sorted(marked) != sorted(tables):
        different = ", ".join(sorted(set(marked) ^ set(tables)))
        raise ValueError(f"{page}: expected marks for each table once, look at {different}")
    for name, table in tables.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


# Settings -----------------------------------------------------------------------------------------


def settings_classes() -> list[type]:
    """Return the settings classes of `src.config`."""
    return [
        value
        for value in vars(config).values()
        if dataclasses.is_dataclass(value)
        and isinstance(value, type)
        and value.__module__ == config.__name__
    ]


def settings_table(kind: type) -> str:
    """Return the table of a settings class: field, option, default and meaning."""
    flags = all_flags()
    lines = ["| setting | option | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        flag = "--" + field.name.replace("_", "-")
        has_option = flag in flags and kind not in (config.Config, config.DataConfig)
        option = f"`{flag}`" if has_option else ""
        lines.append(f"| `{field.name}` | {option} | {default_of(field)} | {meaning_of(field)} |")
    return "\n".join(lines)


def default_of(field: dataclasses.Field[object]) -> str:
    """Return a default as it would stand in a JSON file."""
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if dataclasses.is_dataclass(default):
        return "see its table"
    if default == str(config.PROJECT_ROOT):
        return "the project folder"
    return f"`{json.dumps(default)}`"


def meaning_of(field: dataclasses.Field[object]) -> str:
    """Return the help text of a setting."""
    if dataclasses.is_dataclass(field.default_factory):
        kind = field.default_factory.__name__
        return f"[{kind}](#{kind.lower()})"
    return in_cell(str(field.metadata["help"]))


# Commands -----------------------------------------------------------------------------------------


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by its name."""
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise ValueError("the command line has no commands")


def all_flags() -> set[str]:
    """Return the long options of all commands."""
    return {
        flag
        for parser in command_parsers().values()
        for action in parser._actions
        for flag in action.option_strings
    }


def command_table(parser: argparse.ArgumentParser) -> str:
    """Return what a command does, its example, and the table of its options."""
    example = str(parser.epilog).removeprefix("example: ")
    lines = [" ".join(str(parser.description).split()), "", "```text", example, "```", ""]
    rows = [option_row(action) for action in own_actions(parser)]
    if rows:
        lines += ["| argument | default | meaning |", "|---|---|---|", *rows, ""]
    if kinds := list(settings_of(parser)):
        links = [f"[{kind.__name__}](settings.md#{kind.__name__.lower()})" for kind in kinds]
        lines += [f"Further options: the settings of {', '.join(links)}.", ""]
    return "\n".join(lines).strip()


def own_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a command that are no settings."""
    for action in parser._actions:
        if action.default is not argparse.SUPPRESS:
            yield action


def settings_of(parser: argparse.ArgumentParser) -> Iterator[type]:
    """Yield the settings classes whose fields are options of a command."""
    kinds = {kind.__name__: kind for kind in settings_classes()}
    for group in parser._action_groups:
        for word in re.findall(r"\w+", str(group.title)):
            if word in kinds:
                yield kinds[word]


def option_row(action: argparse.Action) -> str:
    """Return the row of an argument."""
    text = str(action.help)
    if isinstance(action, argparse.BooleanOptionalAction) and text.count("(default:") > 1:
        text = text.removesuffix(ADDED_BY_ARGPARSE)
    text = text % vars(action)
    default = "required" if action.required else "none"
    if found := DEFAULT.search(text):
        default = found[1]
        text = text[: found.start()]
    return f"| {argument_names(action)} | {in_cell(default)} | {in_cell(text)} |"


def argument_names(action: argparse.Action) -> str:
    """Return how an argument is written, with its value or its choices."""
    value = str(action.metavar or "")
    if action.choices is not None and not value:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"`{value}`"
    takes_none = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
    if not value and not takes_none:
        value = action.dest.upper()
    return f"`{' '.join([action.option_strings[0], value]).strip()}`"


def in_cell(text: str) -> str:
    """Return a text that keeps to one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
