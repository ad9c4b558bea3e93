"""Mapping rows for known collections: the registry of builders, and the call that runs one.

The builders are in `src.labels.collections`. The meaning of a code in a label set is in
`src.labels.crosswalk`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.labels.collections import (
    afdb,
    any_table,
    chagas2025,
    challenge,
    challenge2017,
    chapman,
    code15,
    cpsc2018,
    echonext,
    georgia,
    ludb,
    mimic_iv_ecg,
    mitbih,
    ptb,
    ptbxl,
    sph,
    wfdb_annotations,
)
from src.labels.collections.rows import LabelOptions, Request
from src.labels.crosswalk import load_class_set
from src.utils import UsageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Builder:
    """A builder of mapping rows.

    Attributes
    ----------
    build
        The function that makes the rows.
    tasks
        The collection's own label spaces; the first is the default.
    options
        The fields of `LabelOptions` that it takes.
    joins_tasks
        Whether several tasks may be joined by ``+``; a record then gets the labels of all.
    """

    build: Callable[[Request], pd.DataFrame]
    tasks: tuple[str, ...]
    options: tuple[str, ...] = ()
    joins_tasks: bool = False


BUILDERS: dict[str, Builder] = {
    "ptbxl": Builder(ptbxl.build_ptbxl, ptbxl.TASKS, ptbxl.OPTIONS, joins_tasks=True),
    "challenge": Builder(challenge.build_challenge, challenge.TASKS),
    "challenge2017": Builder(challenge2017.build_challenge2017, challenge2017.TASKS),
    "cpsc2018": Builder(cpsc2018.build_cpsc2018, cpsc2018.TASKS),
    "sph": Builder(sph.build_sph, sph.TASKS),
    "code15": Builder(code15.build_code15, code15.TASKS),
    "chapman": Builder(chapman.build_chapman, chapman.TASKS),
    "georgia": Builder(georgia.build_georgia, georgia.TASKS),
    "ptb": Builder(ptb.build_ptb, ptb.TASKS),
    "mimic-iv-ecg": Builder(
        mimic_iv_ecg.build_mimic_iv_ecg, mimic_iv_ecg.TASKS, mimic_iv_ecg.OPTIONS
    ),
    "echonext": Builder(echonext.build_echonext, echonext.TASKS),
    "chagas2025": Builder(chagas2025.build_chagas2025, chagas2025.TASKS),
    "ludb": Builder(ludb.build_ludb, ludb.TASKS),
    "mitbih": Builder(mitbih.build_mitbih, mitbih.TASKS, mitbih.OPTIONS),
    "afdb": Builder(afdb.build_afdb, afdb.TASKS, afdb.OPTIONS),
    "annotations": Builder(
        wfdb_annotations.build_annotations, wfdb_annotations.TASKS, wfdb_annotations.OPTIONS
    ),
    "csv": Builder(any_table.build_csv, any_table.TASKS, any_table.OPTIONS),
}


def build_labels(
    kind: str,
    root: Path,
    *,
    dataset: str | None = None,
    task: str | None = None,
    classes: str | Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Build the mapping rows of a collection.

    Parameters
    ----------
    kind
        One of `BUILDERS`.
    root
        The folder of the collection's recordings.
    dataset
        Name of the dataset in the rows; by default the kind.
    task
        One of the collection's own label spaces, by default the first. For ptbxl, several may be
        joined by ``+``.
    classes
        A label set instead of a task, which several collections can share; see
        `src.labels.crosswalk.load_class_set`.
    **options
        Fields of `src.labels.collections.rows.LabelOptions`: rate, min_likelihood and
        unvalidated_weight (ptbxl); columns, table and separator (csv); annotator, what and
        collection (annotations).

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
    given = LabelOptions(**options)
    builder = _find_builder(kind, task, classes, given.given())
    if not Path(root).is_dir():
        raise ValueError(f"{root}: no such folder; expected the recordings of the collection")
    request = Request(
        root=Path(root),
        dataset=dataset or kind,
        task=task or builder.tasks[0],
        classes=None if classes is None else load_class_set(classes),
        options=given,
    )
    return builder.build(request)


def _find_builder(
    kind: str, task: str | None, classes: str | Path | None, options: list[str]
) -> Builder:
    """Return the builder of a kind, if it has the task and the options."""
    builder = BUILDERS.get(kind)
    if builder is None:
        raise UsageError(f"kind {kind!r} is unknown: expected {', '.join(BUILDERS)}")
    wrong = [name for name in options if name not in builder.options]
    if wrong:
        raise UsageError(
            f"kind {kind} takes no {' or '.join(wrong)}: its options are "
            f"{', '.join(builder.options) or 'none'}"
        )
    if task is None:
        return builder
    names = task.split("+") if builder.joins_tasks else [task]
    if not set(names) <= set(builder.tasks):
        raise UsageError(
            f"task {task!r} is unknown for {kind}: expected {', '.join(builder.tasks)}"
        )
    if classes is not None:
        raise UsageError(
            f"task {task!r} and classes {str(classes)!r} are two label spaces: give one of them"
        )
    return builder
