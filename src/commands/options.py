"""Command-line options to settings: an option per field of a settings class, and the types that
argparse checks.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, get_type_hints

from src.config import DataConfig
from src.utils import UsageError

T = TypeVar("T")
S = TypeVar("S")


# Types of options ---------------------------------------------------------------------------------


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an option that holds a whole number from `least` on."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number of {least} or more"
            )
        return int(text)

    return parse


count = at_least(1)


def count_or_none(text: str) -> int:
    """Return a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, or 0 for none")
    return int(text)


def list_of(kind: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return the type of an option that holds several values between commas."""

    def parse(text: str) -> tuple[T, ...]:
        try:
            return tuple(kind(item.strip()) for item in text.split(",") if item.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{text!r}: {error}; expected values between commas"
            ) from None

    return parse


def name_value(text: str) -> tuple[str, str]:
    """Return the two sides of NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def name_number(text: str) -> tuple[str, float]:
    """Return the two sides of NAME=NUMBER."""
    name, value = name_value(text)
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a number") from None


def threshold_rule(text: str) -> str:
    """Return the rule as it is, once it is known to be one."""
    from src.learning.thresholds import ThresholdRule

    try:
        ThresholdRule.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


# Settings -----------------------------------------------------------------------------------------


def add_settings(parser: argparse.ArgumentParser, kind: type, skip: Sequence[str] = ()) -> None:
    """Add an option per field of a settings class; what is not given stays out of the result."""
    group = parser.add_argument_group(f"{kind.__name__} ({(kind.__doc__ or '').splitlines()[0]})")
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in skip or dataclasses.is_dataclass(hints[field.name]):
            continue
        flag = "--" + field.name.replace("_", "-")
        shown = (
            ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        )
        text = (
            f"{field.metadata['help']} (default: {shown if shown not in ('', None) else 'none'})"
        ).replace("%", "%%")
        group.add_argument(
            flag,
            dest=field.name,
            default=argparse.SUPPRESS,
            help=text,
            **_argument(hints[field.name]),
        )
    for name, part in _parts(kind).items():
        if name not in skip:
            add_settings(parser, part)


def _parts(kind: type) -> dict[str, type]:
    """Return the fields of a settings class that are settings classes themselves."""
    hints = get_type_hints(kind)
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }


def _argument(hint: Any) -> dict[str, Any]:
    """Return how argparse reads a field of this type."""
    options = [item for item in get_args(hint) if item is not type(None)]
    if isinstance(hint, types.UnionType):
        hint = options[0]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_args(hint):  # a tuple
        return {"type": list_of(get_args(hint)[0]), "metavar": "A,B,..."}
    return {"type": hint, "metavar": {"int": "N", "float": "X"}.get(hint.__name__, "TEXT")}


def read_settings(args: argparse.Namespace, kind: type[S], base: S) -> S:
    """Return the settings `base` with the fields that the user gave.

    Raises
    ------
    UsageError
        If a value is out of range.
    """
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(kind) if f.name in args}  # type: ignore[arg-type]
    given |= {
        name: read_settings(args, part, getattr(base, name)) for name, part in _parts(kind).items()
    }
    try:
        return dataclasses.replace(base, **given)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(str(error)) from None


# Collections --------------------------------------------------------------------------------------


def add_data(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add the options that name collections, their labels and what their files do not say."""
    without = "" if required else " (default: generated recordings)"
    parser.add_argument(
        "--data",
        type=name_value,
        action="append",
        required=required,
        default=[],
        metavar="NAME=DIR",
        help=f"a collection and its folder or URL; may be repeated{without}",
    )
    parser.add_argument(
        "--mapping",
        metavar="CSV",
        help="label table with dataset,record_id,mapped_label (default: none, every record "
        "gets OTHER)",
    )
    parser.add_argument(
        "--source-fs",
        type=name_number,
        action="append",
        default=[],
        metavar="NAME=HZ",
        help="sampling rate of a collection whose files do not say it (default: none)",
    )
    parser.add_argument(
        "--source-gain",
        type=name_number,
        action="append",
        default=[],
        metavar="NAME=ADU_PER_MV",
        help="gain of a collection whose files do not say it (default: none)",
    )


def read_data(args: argparse.Namespace) -> DataConfig:
    """Return the collections that the user named.

    Raises
    ------
    UsageError
        If one is named twice.
    """
    names = [name for name, _ in args.data]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"--data names {', '.join(twice)} more than once: expected each dataset with one folder"
        )
    return DataConfig(dict(args.data), args.mapping, dict(args.source_fs), dict(args.source_gain))
