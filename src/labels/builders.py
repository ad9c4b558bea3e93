"""Mapping rows for known collections: pick a builder by kind, and give it what it needs.

The builders are in `src.label_sources`; what a code means in which label set, in `src.crosswalk`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections import any_table as table
from src.labels.collections import challenge, ptbxl
from src.labels.collections import cpsc_sph as hospital
from src.labels.collections.rows import Request
from src.labels.crosswalk import load_class_set
from src.labels.text_tables import LIST_SEPARATOR
from src.utils import UsageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Builder:
    """A builder of mapping rows, with its tasks (the first is the default) and the options that
    only some builders take.

    Where it joins tasks, several may be given with ``+`` between them, and a record gets the labels
    of all.
    """

    build: Callable[[Request], pd.DataFrame]
    tasks: tuple[str, ...]
    options: tuple[str, ...] = ()
    joins_tasks: bool = False


BUILDERS: dict[str, Builder] = {
    "ptbxl": Builder(
        ptbxl.build_ptbxl,
        ptbxl.TASKS,
        ("rate", "min_likelihood", "unvalidated_weight"),
        joins_tasks=True,
    ),
    "challenge": Builder(challenge.build_challenge, challenge.TASKS),
    "challenge2017": Builder(challenge.build_challenge2017, challenge.TASKS_2017),
    "cpsc2018": Builder(hospital.build_cpsc2018, hospital.CPSC_TASKS),
    "sph": Builder(hospital.build_sph, hospital.SPH_TASKS),
    "csv": Builder(table.build_csv, table.TASKS, ("columns", "table", "separator")),
}


def build_labels(
    kind: str,
    root: Path,
    *,
    dataset: str | None = None,
    task: str | None = None,
    classes: str | Path | None = None,
    rate: int | None = None,
    min_likelihood: float = 0.0,
    unvalidated_weight: float = 1.0,
    columns: Mapping[str, str] | None = None,
    table: Path | None = None,
    separator: str = LIST_SEPARATOR,
) -> pd.DataFrame:
    """Build the mapping rows of a collection.

    Parameters
    ----------
    kind
        One of `BUILDERS`.
    root
        The folder of the collection's recordings.
    dataset
        Name of the dataset in the rows; the kind when None.
    task
        The collection's own label space, one of its builder's tasks, for ptbxl several joined by
        ``+``; the first when None.
    classes
        A label set instead, which several collections share; see `src.crosswalk.load_class_set`.
    rate
        ptbxl: 100 or 500 Hz; when None, the one that is there, 500 where both are.
    min_likelihood
        ptbxl: 0 to 100. With 0, the default, every statement counts, as likelihood 0 means
        ungraded. Above 0, a statement needs that likelihood, so that ungraded ones, among them all
        of form and rhythm, do not count.
    unvalidated_weight
        ptbxl: weight in training of records whose statements no human validated; those of folds 9
        and 10 all are.
    columns
        csv: our column -> theirs.
    table
        csv: the table, by its path or its name in `root`, when it is not the only one there.
    separator
        csv: what stands between several labels of a record.

    Returns
    -------
    DataFrame
        The mapping table's columns, all text; `annotated` holds the classes that the source looked
        for.

    Raises
    ------
    ValueError
        If the kind, the task, a label set or an option is unknown, or the collection's table is
        missing or wrong.
    """
    options = {
        "rate": rate is not None,
        "min_likelihood": min_likelihood != 0,
        "unvalidated_weight": unvalidated_weight != 1,
        "columns": bool(columns),
        "table": table is not None,
        "separator": separator != LIST_SEPARATOR,
    }
    builder = _check(kind, task, classes, [name for name, is_given in options.items() if is_given])
    if not 0 <= min_likelihood <= 100:
        raise UsageError(f"min_likelihood is {min_likelihood}: expected 0 to 100")
    if not 0 <= unvalidated_weight <= 1:
        raise UsageError(f"unvalidated_weight is {unvalidated_weight}: expected 0 to 1")
    if not separator:
        raise UsageError("separator is empty: expected what stands between two labels")
    if not Path(root).is_dir():
        raise ValueError(f"{root}: no such folder; expected the recordings of the collection")
    request = Request(
        root=Path(root),
        dataset=dataset or kind,
        task=task or builder.tasks[0],
        classes=None if classes is None else load_class_set(classes),
        rate=rate,
        min_likelihood=min_likelihood,
        unvalidated_weight=unvalidated_weight,
        columns=columns or {},
        table=None if table is None else Path(table),
        separator=separator,
    )
    return builder.build(request)


def _check(kind: str, task: str | None, classes: str | Path | None, options: list[str]) -> Builder:
    """Return the builder of a kind, if the task and the given options are its own."""
    builder = BUILDERS.get(kind)
    if builder is None:
        raise UsageError(f"kind {kind!r} is unknown: expected {', '.join(BUILDERS)}")
    if stray := [name for name in options if name not in builder.options]:
        raise UsageError(
            f"kind {kind} takes no {' or '.join(stray)}: its options are "
            f"{', '.join(builder.options) or 'none'}"
        )
    parts = task.split("+") if task is not None and builder.joins_tasks else [task]
    if task is not None and not set(parts) <= set(builder.tasks):
        raise UsageError(
            f"task {task!r} is unknown for {kind}: expected {', '.join(builder.tasks)}"
        )
    if task is not None and classes is not None:
        raise UsageError(
            f"task {task!r} and classes {str(classes)!r} are two label spaces: give one of them"
        )
    return builder
