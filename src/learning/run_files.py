"""The JSON files and states of a run, read back and held against the types that describe them.

Such files may be damaged or edited. What does not fit is refused with the file, the field, the
value and what was expected, so that nothing that reads a run needs to expect anything else.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from src.learning.optimization import HistoryRow, SavedState
from src.learning.results import EvaluationMetrics, StressTable
from src.utils import load_json, printable

_NEEDED_METRICS = {"per_class", "f1_macro", "n_records", "confusion_matrix"}

_WORDS = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
}

_SHOWN = 60


class Environment(TypedDict, total=False):
    """Versions under which a run was trained."""

    version: str
    commit: str | None
    python: str
    platform: str
    packages: Mapping[str, str]


class RunLog(TypedDict, total=False):
    """The entries of ``training_log.json`` that others read."""

    created: str
    environment: Environment
    device: Mapping[str, object]
    amp: str
    config: Mapping[str, Mapping[str, object]]
    classes: Sequence[str]
    loss: str
    n_parameters: int
    n_train: int
    n_val: int
    best_epoch: int
    best_metric: float | None
    best_metric_name: str
    stopped: str
    history: Sequence[HistoryRow]


class SavedMetrics(EvaluationMetrics):
    """The content of ``metrics_<split>.json``."""

    split: NotRequired[str]
    checkpoint: NotRequired[str]
    predictions: NotRequired[str]


# Files --------------------------------------------------------------------------------------------


def load_training_log(path: str | Path) -> RunLog:
    """Read ``training_log.json``.

    Raises
    ------
    ValueError
        If a field is not as training writes it; the message names the file and the field.
    """
    log = load_json(path)
    try:
        if not isinstance(log, dict) or "history" not in log:
            raise ValueError("not a log as train writes it")
        # Other versions have other columns of the history, which are shown too
        history = log["history"]
        check_type(history, list[dict[str, float | None]], "history")
        for i, row in enumerate(history):
            check_type(row, HistoryRow, f"history[{i}]", is_partial=True)
        check_type(log | {"history": []}, RunLog, "", is_partial=True)
        if not 0 <= log.get("best_epoch", 0) <= len(history):
            raise ValueError(
                f"best_epoch is {log['best_epoch']}: expected one of the {len(history)} "
                "epochs of the history"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}; train again, or remove the file") from None
    return cast("RunLog", log)


def load_metrics(path: str | Path) -> SavedMetrics:
    """Read ``metrics_<split>.json``; of an older version it may lack parts.

    Of a cross-validation these are the metrics of the pooled predictions.

    Raises
    ------
    ValueError
        If a field is not as evaluation writes it; the message names the file and the field.
    """
    metrics = load_json(path)
    if isinstance(metrics, dict) and metrics.keys() >= {"folds", "pooled"}:
        metrics = metrics["pooled"]
    try:
        if not isinstance(metrics, dict) or not metrics.keys() >= _NEEDED_METRICS:
            raise ValueError("not metrics as evaluate writes them")
        check_type(metrics, SavedMetrics, "", is_partial=True)
        _check_matrix(metrics)
        _check_intervals(metrics.get("intervals", {}), "intervals")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; evaluate again, or remove the file") from None
    return cast("SavedMetrics", metrics)


def load_stress(path: str | Path) -> StressTable:
    """Read ``stress_<split>.json``.

    Raises
    ------
    ValueError
        If a field is not as stress writes it; the message names the file and the field.
    """
    table = load_json(path)
    try:
        check_type(table, StressTable, "")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; run stress again, or remove the file") from None
    return cast("StressTable", table)


def _check_matrix(metrics: Mapping[str, Any]) -> None:
    matrix, n_classes = metrics["confusion_matrix"], len(metrics["per_class"])
    if matrix is not None and [len(row) for row in matrix] != [n_classes] * n_classes:
        raise ValueError(
            f"confusion_matrix has {len(matrix)} rows of {[len(row) for row in matrix][:4]} "
            f"columns: expected {n_classes} of each, as many as per_class has classes"
        )


def _check_intervals(intervals: Mapping[str, Any], name: str) -> None:
    """Check that each interval has a lower and an upper end."""
    for key, value in intervals.items():
        if isinstance(value, dict):
            _check_intervals(value, f"{name}.{key}")
            continue
        is_interval = key != "few_patients" and isinstance(value, list)
        if is_interval and (len(value) != 2 or value[0] > value[1]):
            raise ValueError(f"{name}.{key} is {_show(value)}: expected a low and a high end")


def check_state(state: Mapping[str, Any]) -> SavedState:
    """Return the state of a checkpoint if a run can be resumed from it.

    Raises
    ------
    ValueError
        If a field is not as training saves it; the message names the field.
    """
    check_type(dict(state), SavedState, "")
    n_epochs = len(state["history"])
    if state["epoch"] != n_epochs:
        raise ValueError(f"epoch is {state['epoch']}: expected {n_epochs}, the length of history")
    if not 0 <= state["best_epoch"] <= n_epochs:
        raise ValueError(f"best_epoch is {state['best_epoch']}: expected 0 to {n_epochs}")
    return cast("SavedState", state)


# Types --------------------------------------------------------------------------------------------


def check_type(value: object, kind: Any, name: str, *, is_partial: bool = False) -> None:
    """Hold a plain value against a type.

    Parameters
    ----------
    value
        Of a JSON file or a checkpoint.
    kind
        A plain type, a TypedDict, a Literal, or a list, mapping or union of such; numbers must be
        finite.
    name
        Of the value, for the message.
    is_partial
        Whether required keys may be missing at the top.

    Raises
    ------
    ValueError
        If it does not fit; the message names the field.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return
    if is_typeddict(kind):
        _check_table(value, kind, name, is_partial)
    elif origin is NotRequired:
        check_type(value, arguments[0], name)
    elif origin in (Union, types.UnionType):
        _check_union(value, arguments, name)
    elif origin is Literal:
        if value not in arguments:
            _refuse(value, name, f"one of {', '.join(map(str, arguments))}")
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            _refuse(value, name, "a table")
        for key, item in cast("dict[str, object]", value).items():
            check_type(item, arguments[1], _join(name, key))
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        if not isinstance(value, (list, tuple)):
            _refuse(value, name, "a list")
        for i, item in enumerate(cast("Sequence[object]", value)):
            check_type(item, arguments[0], f"{name}[{i}]")
    elif not _is_plain(value, kind):
        _refuse(value, name, _WORDS.get(kind, str(kind)))


def _check_table(value: object, kind: Any, name: str, is_partial: bool) -> None:
    if not isinstance(value, dict):
        _refuse(value, name, "a table")
    table = cast("dict[str, object]", value)
    for key, hint in get_type_hints(kind, include_extras=True).items():
        if key in table:
            check_type(table[key], hint, _join(name, key))
        # Where annotations are postponed, NotRequired is not seen by __required_keys__
        elif not is_partial and key in kind.__required_keys__ and get_origin(hint) != NotRequired:
            raise ValueError(f"{_join(name, key)} is missing")


def _check_union(value: object, kinds: Sequence[Any], name: str) -> None:
    if value is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return check_type(value, kind, name)
        except ValueError as error:
            problems.append(error)
    raise problems[0]


def _is_plain(value: object, kind: Any) -> bool:
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        # A whole number of JSON may be larger than any float
        return abs(value) < 1e300 and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind)


def _refuse(value: object, name: str, expected: str) -> None:
    raise ValueError(f"{name or 'it'} is {_show(value)}: expected {expected}")


def _show(value: object) -> str:
    # Python refuses to write out whole numbers of thousands of digits
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a huge number"
    return printable(repr(value), _SHOWN)


def _join(name: str, key: str) -> str:
    key = printable(key, _SHOWN)
    return f"{name}.{key}" if name else key
