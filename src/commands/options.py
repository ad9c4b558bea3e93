"""Command-line options to settings: option types, and an option per field of a settings class."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import types
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, get_args, get_origin, get_type_hints

from src.config import DataConfig, PreprocessConfig
from src.utils import UsageError, as_path, as_url, output_file, output_folder, printable

T = TypeVar("T")
S = TypeVar("S")


# Types of options ---------------------------------------------------------------------------------


def at_least(least: int) -> Callable[[str], int]:
    """Return an option type for whole numbers of `least` or more."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number of {least} or more"
            )
        return int(text)

    return parse


count = at_least(1)


def count_or_none(text: str) -> int:
    """Parse a whole number of 0 or more, where 0 means none."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, or 0 for none")
    return int(text)


def file_to_write(text: str) -> str:
    """Refuse the path of an output file that is a device, a pipe or a folder."""
    return _checked_output(output_file, text)


def folder_to_write(text: str) -> str:
    """Refuse the path of an output folder that is a file, a device, a pipe or a URL."""
    return _checked_output(output_folder, text)


def folder_or_url_to_write(text: str) -> str:
    """Refuse what `folder_to_write` does, but for URLs."""
    return text if as_url(text) else folder_to_write(text)


def _checked_output(check: Callable[[str | Path], Path], text: str) -> str:
    try:
        check(as_path(text))
    except (ValueError, OSError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def require_other_output(args: argparse.Namespace) -> None:
    """Refuse an ``--out`` or ``--page`` that names one of the files that the command reads.

    Raises
    ------
    UsageError
        The message names the file.
    """
    for written in ("out", "page"):
        out = getattr(args, written, None)
        if not out or not os.path.isfile(out):
            continue
        for name, given in vars(args).items():
            for value in given if isinstance(given, (list, tuple)) else [given]:
                is_read = name not in ("out", "page")
                is_other = is_read and isinstance(value, str) and os.path.isfile(value)
                if is_other and Path(value).samefile(out):
                    raise UsageError(
                        f"{out}: is read by this command: expected another file for --{written}"
                    )


def list_of(kind: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return an option type for several values separated by commas."""

    def parse(text: str) -> tuple[T, ...]:
        try:
            return tuple(kind(item.strip()) for item in text.split(",") if item.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{text!r}: {error}; expected values separated by commas"
            ) from None

    return parse


def name_value(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def name_number(text: str) -> tuple[str, float]:
    """Parse NAME=NUMBER."""
    name, value = name_value(text)
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a number") from None


def json_object(text: str) -> dict[str, Any]:
    """Parse an object of JSON, such as '{"width": 64}'."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"{printable(text)!r}: expected an object of JSON, such as '{{\"width\": 64}}'"
        )
    return value


def lead_names(text: str) -> tuple[str, ...]:
    """Parse leads of channels, by place (II,V5) or by name (ECG1:II,ECG2:V5)."""
    from src.records.channels import LeadNames

    names = tuple(item.strip() for item in text.split(",") if item.strip())
    try:
        LeadNames.parse(names)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names


def without_name(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return the parser of a value that also takes NAME=VALUE, as other commands write it."""

    def parse_value(text: str) -> T:
        return parse(text.rpartition("=")[2])

    # argparse names it in "invalid float value".
    parse_value.__name__ = parse.__name__
    return parse_value


def name_leads(text: str) -> tuple[str, tuple[str, ...]]:
    """Parse NAME=LEADS, where the leads are as for `lead_names`."""
    name, value = name_value(text)
    return name, lead_names(value)


def share(text: str) -> float:
    """Parse a share between 0 and 1, without these two."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # NaN lies in no range.
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share between 0 and 1, such as 0.9")
    return value


def threshold_rule(text: str) -> str:
    """Check a rule for decision thresholds and return it unchanged."""
    from src.learning.thresholds import ThresholdRule

    try:
        ThresholdRule.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


# Settings -----------------------------------------------------------------------------------------


def add_settings(
    parser: argparse.ArgumentParser, kinds: Sequence[type], skip: Sequence[str] = ()
) -> None:
    """Add an option for each field of settings classes: the common ones first, then the rest.

    An option that is not given stays out of the parsed arguments.

    Parameters
    ----------
    parser
        Gets a group of the common options, and one of the other options for each class.
    kinds
        The settings classes; settings classes among their fields get groups of their own.
    skip
        Fields without an option.
    """
    common = parser.add_argument_group("common options")
    for kind in kinds:
        summary = (kind.__doc__ or "").splitlines()[0]
        advanced = parser.add_argument_group(f"advanced: {kind.__name__} ({summary})")
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name in skip:
                continue
            if dataclasses.is_dataclass(hints[field.name]):
                add_settings(parser, [hints[field.name]])
                continue
            group = common if field.metadata["is_common"] else advanced
            _add_setting(group, field, hints[field.name])


def _add_setting(group: argparse._ArgumentGroup, field: dataclasses.Field[Any], hint: Any) -> None:
    """Add the option of a field."""
    default = field.default
    if default is dataclasses.MISSING:
        default = None
    text = f"{field.metadata['help']} (default: {_format_default(default)})"
    parsing = _choose_parsing(hint)
    if choices := field.metadata["choices"]:
        parsing = {"choices": choices}
    group.add_argument(
        "--" + field.name.replace("_", "-"),
        dest=field.name,
        default=argparse.SUPPRESS,
        help=text.replace("%", "%%"),
        **parsing,
    )


def _format_default(value: object) -> str:
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return "none" if value in ("", None) else str(value)


def _nested_settings(kind: type) -> dict[str, type]:
    """Return the fields of a settings class that are settings classes themselves."""
    hints = get_type_hints(kind)
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }


class _Parsing(TypedDict, total=False):
    """Keywords of `add_argument` that say how a value is parsed."""

    action: type[argparse.Action]
    type: Callable[[str], object]
    metavar: str
    choices: tuple[str, ...]


def _choose_parsing(hint: Any) -> _Parsing:
    """Return how argparse parses a field of type `hint`."""
    members = [member for member in get_args(hint) if member is not type(None)]
    # An optional value such as str | None is parsed as its type.
    if isinstance(hint, types.UnionType):
        hint = members[0]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is dict:
        return {"type": json_object, "metavar": "JSON"}
    is_tuple = bool(get_args(hint))
    if is_tuple:
        return {"type": list_of(get_args(hint)[0]), "metavar": "A,B,..."}
    return {"type": hint, "metavar": {"int": "N", "float": "X"}.get(hint.__name__, "TEXT")}


def read_settings(args: argparse.Namespace, kind: type[S], base: S) -> S:
    """Return the settings `base` with the values of the given options.

    Raises
    ------
    UsageError
        If a value is out of range.
    """
    values = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name in args
    }
    for name, nested in _nested_settings(kind).items():
        values[name] = read_settings(args, nested, getattr(base, name))
    try:
        return dataclasses.replace(base, **values)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(str(error)) from None


# Collections --------------------------------------------------------------------------------------


def add_data(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add the options for collections, their labels, and what their files do not say."""
    default = "" if required else " (default: generated recordings)"
    parser.add_argument(
        "--data",
        type=name_value,
        action="append",
        required=required,
        default=[],
        metavar="NAME=DIR",
        help=f"a collection and its folder or URL; may be repeated{default}",
    )
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--mapping",
        metavar="CSV",
        help="label mapping with the columns dataset, record_id and mapped_label (default: "
        "none, every record gets OTHER)",
    )
    if required:
        labels.add_argument(
            "--beats",
            metavar="CSV",
            help="label mapping with the time of each beat in start_s and end_s, as labels "
            "annotations --what beats writes it: cut a window around each beat, from --before-s "
            "before it to --after-s after it (default: none)",
        )
    parser.add_argument(
        "--source-fs",
        type=name_number,
        action="append",
        default=[],
        metavar="NAME=HZ",
        help="sampling rate of a collection whose files do not state it (default: none)",
    )
    parser.add_argument(
        "--source-gain",
        type=name_number,
        action="append",
        default=[],
        metavar="NAME=ADU_PER_MV",
        help="gain of a collection whose files do not state it (default: none)",
    )
    parser.add_argument(
        "--leads",
        dest="source_leads",
        type=name_leads,
        action="append",
        default=[],
        metavar="NAME=LEADS",
        help="leads of a collection whose files do not name them, by place (mine=II,V5; - for a "
        "channel not to be used) or by name (mine=ECG1:II,ECG2:V5) (default: none)",
    )


def read_mapping(args: argparse.Namespace, config: PreprocessConfig) -> str | None:
    """Return the label mapping that the user named, which may be one of beats.

    Raises
    ------
    UsageError
        If there are beats without a window around them, or such a window without beats.
    """
    if args.beats is not None and not config.cuts_beats:
        raise UsageError(
            "--beats is given without a window: add --before-s and --after-s, such as 1 and 1"
        )
    if args.beats is None and config.cuts_beats:
        raise UsageError(
            "--before-s and --after-s are of windows around beats: expected --beats CSV"
        )
    mapping: str | None = args.mapping if args.beats is None else args.beats
    return mapping


def read_data(args: argparse.Namespace) -> DataConfig:
    """Return the collections that the user named, with their options.

    Raises
    ------
    UsageError
        If a collection is named twice.
    """
    counts = Counter(name for name, _ in args.data)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise UsageError(
            f"--data names {', '.join(repeated)} more than once: expected one folder per dataset"
        )
    return DataConfig(
        dict(args.data),
        args.mapping,
        dict(args.source_fs),
        dict(args.source_gain),
        dict(args.source_leads),
    )
