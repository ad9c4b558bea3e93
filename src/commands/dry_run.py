"""The dry run: contents of the collections and the cost of processing, without writing files."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from src.config import STANDARD_LEADS, DataConfig, ExecutionConfig, PreprocessConfig
from src.preprocessing import build_tensor
from src.processed.npz import Archive
from src.processed.runs.chunks import WindowLabeller, find_record_start
from src.processed.runs.plan import RunPlan, choose_evenly, load_labels, plan_run
from src.processed.runs.staging import local_tasks
from src.processed.runs.tasks import RecordTask, RecordTensor, RejectedError
from src.records.folders import PassedOver
from src.records.reading import find_windows, record_stem
from src.records.record import ECGRecord, RecordError, split_part
from src.records.windows import count_windows
from src.utils import (
    Rich,
    format_duration,
    html_facts,
    html_table,
    printable,
    printable_lines,
    shown_path,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_REASONS = 8  # of files that are passed over, for each collection

NOT_ANNOTATED = "not annotated"
"""Stands among the labels of windows for those that no label covers enough."""
# Flags of channels that are read and then have no place in the tensor
_NOT_USED = ("unknown_lead:", "repeated_lead:")


class Example(NamedTuple):
    """A probed record: its key and labels in words, as it was read, and its tensor."""

    name: str
    record: ECGRecord
    tensor: RecordTensor


@dataclass
class DatasetCheck:
    """The contents of one collection; rates, channels and problems are of the probed records."""

    name: str
    root: str
    n_records: int
    n_labelled: int
    n_probed: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    rates: Counter[str] = field(default_factory=Counter)
    leads: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    passed_over: tuple[PassedOver, ...] = ()
    seconds: float = 0.0
    n_bytes: int = 0
    n_files: int = 0
    lengths_s: list[float] = field(default_factory=list)
    n_cut: int = 0
    windows: Counter[str] = field(default_factory=Counter)
    kept_s: float = 0.0
    example: Example | None = None

    @property
    def lengths(self) -> str:
        """Least, median and longest duration of the probed records, and how many are cut."""
        if not self.lengths_s:
            return ""
        least, middle, most = min(self.lengths_s), median(self.lengths_s), max(self.lengths_s)
        text = f"{least:.4g} s at least, median {middle:.4g} s, {most:.4g} s at most"
        if self.n_cut:
            text += (
                f"; {self.n_cut} of {len(self.lengths_s)} probed are longer than the "
                f"{self.kept_s:.4g} s kept"
            )
        return text

    @property
    def estimated_seconds(self) -> float:
        """Estimated seconds that one worker takes for the whole collection."""
        return self.seconds / max(1, self.n_probed) * self.n_records

    @property
    def estimated_bytes(self) -> float:
        """Estimated bytes of the record files of the whole collection."""
        if not self._n_good:
            return 0.0
        return self.n_bytes / self._n_good * self.n_records

    @property
    def _n_good(self) -> int:
        return self.n_probed - sum(self.problems.values())

    def lines(self) -> list[str]:
        """Return the lines of the report about this collection."""
        lines = [
            f"{self.name}: {self.n_records} records in {shown_path(self.root)}, "
            f"{self.n_labelled} with a label"
        ]
        for title, counts in (
            ("formats", self.formats),
            ("rates", self.rates),
            ("leads", self.leads),
            ("channels not used", self.unused),
        ):
            if counts:
                lines.append(f"  {title}: {_list_counts(counts)}")
        if self.lengths:
            lines.append(f"  lengths: {self.lengths}")
        if self.n_files > self._n_good:
            n_windows = self.n_files / self._n_good * self.n_records
            lines.append(f"  windows: about {n_windows:.0f} in all")
        if self.windows:
            lines.append(f"  windows by label: {_list_counts(self.windows, 30)}")
        for text, n in self.problems.most_common(5):
            lines.append(f"  problem in {n} of {self.n_probed} probed: {text}")
        return lines + self._passed_over_lines()

    def _passed_over_lines(self) -> list[str]:
        """Return a line for each reason why files are passed over."""
        files: dict[str, list[str]] = {}
        for file in self.passed_over:
            files.setdefault(file.unread.reason, []).append(printable(file.relative))
        if not files:
            return []
        lines = [f"  passed over: {len(self.passed_over)} files that are no records"]
        by_number = sorted(files.items(), key=lambda item: -len(item[1]))
        for reason, names in by_number[:_MAX_REASONS]:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"    {names[0]}{others}: {reason}")
        if len(files) > _MAX_REASONS:
            lines.append(f"    ... and {len(files) - _MAX_REASONS} other reasons")
        return lines


@dataclass(frozen=True)
class CheckReport(Rich):
    """The report of a dry run."""

    datasets: tuple[DatasetCheck, ...]
    unmatched: tuple[str, ...]
    unlabelled: tuple[str, ...]
    labels: Counter[str]
    workers: int
    unread: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every collection has records, and no probed record has a problem."""
        return all(check.n_records and not check.problems for check in self.datasets)

    def __str__(self) -> str:
        lines = [line for check in self.datasets for line in check.lines()]
        if self.labels:
            counts = ", ".join(f"{name} {n}" for name, n in self.labels.most_common(30))
            lines.append(f"labels: {counts}")
        for title, names in (
            ("rows of the mapping have no file", self.unmatched),
            ("rows of the mapping name a file that is not read", self.unread),
            ("records have no row of the mapping", self.unlabelled),
        ):
            if names:
                lines.append(f"{len(names)} {title}:")
                lines += [f"  {name}" for name in names[:10]]
                if len(names) > 10:
                    lines.append(f"  ... and {len(names) - 10} more")
        lines.append(f"estimate: {self.estimate}")
        return printable_lines("\n".join(lines))

    @property
    def estimate(self) -> str:
        """Time and space that processing would take."""
        seconds = sum(check.estimated_seconds for check in self.datasets) / self.workers
        megabytes = sum(check.estimated_bytes for check in self.datasets) / 1e6
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        # Rounded up, so that a short run does not show as 0 s.
        duration = format_duration(math.ceil(seconds))
        return f"{duration} with {workers}, {megabytes:.1f} MB of record files"

    def plot_example(self) -> tuple[Figure, ...]:
        """Draw the first readable record of those probed on ECG paper, and its tensor."""
        from src.plots.ecg import plot_ecg
        from src.plots.tensors import plot_tensor

        examples = [check.example for check in self.datasets if check.example is not None]
        if not examples:
            return ()
        name, record, tensor = examples[0]
        paper = plot_ecg(record.signal, record.fs, record.leads, title=name)
        n_valid = int(tensor.arrays["n_valid"])
        signal = tensor.arrays["signal"]
        return paper, plot_tensor(signal, STANDARD_LEADS, title=name, n_valid=n_valid)

    def _repr_html_(self) -> str:
        header = [
            "collection",
            "records",
            "with a label",
            "formats",
            "rates",
            "leads",
            "channels not used",
            "lengths",
            "problems in those probed",
        ]
        rows: list[list[object]] = []
        for check in self.datasets:
            counters = (check.formats, check.rates, check.leads, check.unused)
            facts_of_check = [check.name, check.n_records, check.n_labelled]
            found = [*map(_list_counts, counters), check.lengths, _list_counts(check.problems)]
            rows.append([*facts_of_check, *found])
        passed_over = [
            [check.name, file.relative, file.unread.reason]
            for check in self.datasets
            for file in check.passed_over[:_MAX_REASONS]
        ]
        facts = html_facts(
            {
                "estimate": self.estimate,
                "labels": _list_counts(self.labels, 30),
                "rows without a file": len(self.unmatched),
                "records without a row": len(self.unlabelled),
            }
        )
        tables = [html_table(header, rows)]
        for title, names in (
            ("rows without a file", self.unmatched),
            ("rows whose file is not read", self.unread),
            ("records without a row", self.unlabelled),
        ):
            if names:
                tables.append(html_table([title], [[name] for name in names[:10]]))
        if passed_over:
            tables.append(html_table(["collection", "passed over", "reason"], passed_over))
        return facts + "".join(tables)


def _list_counts(counts: Counter[str], limit: int = 5) -> str:
    return ", ".join(f"{name} ({n})" for name, n in counts.most_common(limit))


def check_datasets(
    data: DataConfig,
    mapping: str | Path | None = None,
    config: PreprocessConfig | None = None,
    execution: ExecutionConfig | None = None,
    n_probe: int = 20,
) -> CheckReport:
    """Check the collections without writing anything.

    Parameters
    ----------
    data, mapping, config, execution
        As for `src.preprocessing.run_preprocessing`.
    n_probe
        Number of records of each collection to read and process in memory.

    Raises
    ------
    ValueError
        If a folder is missing or the mapping is wrong.
    """
    config = config or PreprocessConfig()
    execution = execution or ExecutionConfig()
    table = load_labels(mapping, config)
    plan = plan_run(data, table, config)
    checks = tuple(
        _check_dataset(name, root, plan, config, n_probe) for name, root in data.roots.items()
    )
    labels = Counter(label for task in plan.tasks if task.row for label in task.row.labels)
    unmatched = [f"{row.dataset}/{row.record_id}: {row.reason}" for row in plan.missing]
    unlabelled = []
    if mapping is not None:
        unlabelled = [f"{task.dataset}/{task.record_id}" for task in plan.tasks if task.row is None]
    unread = [
        f"{row.dataset}/{row.record_id}: {row.reason}"
        for row in plan.unread
        if row.label_source == "mapping"
    ]
    return CheckReport(
        checks,
        tuple(unmatched),
        tuple(unlabelled),
        labels,
        execution.n_workers,
        unread=tuple(unread),
    )


def _check_dataset(
    name: str, root: str, plan: RunPlan, config: PreprocessConfig, n_probe: int
) -> DatasetCheck:
    tasks = [task for task in plan.tasks if task.dataset == name]
    check = DatasetCheck(name, str(root), len(tasks), sum(task.row is not None for task in tasks))
    check.formats.update(_suffix(task.path) for task in tasks)
    # Labels, pictures and the like belong to a collection and are no news.
    check.passed_over = tuple(
        file for file in plan.passed_over.get(name, ()) if not file.unread.is_side_file
    )
    for task in choose_evenly(tasks, n_probe):
        _probe(check, task, config)
    for task in tasks:
        if config.window_s:
            _count_windows(check, task, config)
        elif config.cuts_beats and task.row is not None:
            for beat in task.row.intervals:
                check.windows.update(beat.labels or ("none of the classes",))
    return check


def _count_windows(check: DatasetCheck, task: RecordTask, config: PreprocessConfig) -> None:
    """Add the labels of the windows of a record whose labels have times.

    Records at URLs are left out, since each would be copied.
    """
    if task.row is None or not task.row.intervals or task.stamp:
        return
    labeller = WindowLabeller(task.row, config)
    stride_s = config.stride_s or config.window_s
    try:
        extent, windows = find_windows(task.file, task.hints, config.window_s, stride_s)
        found = [labeller.label(extent.fs, extent.n_samples, *window) for window in windows]
    except RecordError:
        # Probing tells of such records.
        return
    except RejectedError as error:
        check.windows[f"rejected, as in {task.record_id}: {error}"] += 1
        return
    for labels in found:
        names = labels.labels if labels.is_annotated else (NOT_ANNOTATED,)
        check.windows.update(names or ("none of the classes",))


def _unused_channels(record: ECGRecord, flags: Sequence[str]) -> list[str]:
    """Return the channels of a file that its tensor does not hold: no ECG, or of no known lead."""
    unknown = [flag.partition(":")[2] for flag in flags if flag.startswith(_NOT_USED)]
    return [name or "(no name)" for name in (*record.unused, *unknown)]


def _add_length(check: DatasetCheck, n_samples: int, fs: float, config: PreprocessConfig) -> None:
    """Add the duration of a whole record, and whether its end is cut away."""
    seconds = n_samples / fs
    check.lengths_s.append(seconds)
    check.kept_s = config.n_samples / config.fs
    # Half a sample: a rate such as 500.24 Hz makes no record longer.
    is_longer = seconds > check.kept_s + 0.5 / min(fs, config.fs)
    check.n_cut += is_longer and not config.cuts_windows


def _suffix(path: str) -> str:
    """Return the suffix of a record's file, or that it has none."""
    name = split_part(path)[0].name
    return name[len(record_stem(name)) :].lower() or "no suffix"


def _probe(check: DatasetCheck, task: RecordTask, config: PreprocessConfig) -> None:
    """Process a record in memory and add it to `check`.

    With windows, the start of the record stands for all of them.
    """
    check.n_probed += 1
    start = time.perf_counter()
    try:
        with local_tasks([task]) as (copied,):
            record, n_samples = find_record_start(copied, config).read()
        tensor = build_tensor(record, config)
    except RecordError as error:
        check.problems[error.message] += 1
        return
    except RejectedError as error:
        check.problems[str(error)] += 1
        check.unused.update(dict.fromkeys(_unused_channels(record, error.flags), 1))
        return
    if check.example is None:
        labels = " + ".join(task.row.labels) if task.row else "no label"
        check.example = Example(f"{task.key}: {labels}", record, tensor)
    check.rates[f"{record.fs:g} Hz"] += 1
    check.leads[" ".join(name or "(no name)" for name in record.leads)] += 1
    check.unused.update(dict.fromkeys(_unused_channels(record, tensor.flags), 1))
    _add_length(check, n_samples, record.fs, config)

    n_files = 1
    if config.window_s:
        stride_s = config.stride_s or config.window_s
        n_files = count_windows(n_samples, record.fs, config.window_s, stride_s)
    elif config.cuts_beats:
        n_files = len(task.row.intervals) if task.row else 0
    check.n_files += n_files
    check.n_bytes += len(Archive(tensor.arrays).encode()) * n_files
    if n_files > 1:
        # Time another window, because the first one alone pays for reading the record.
        check.seconds += time.perf_counter() - start
        start = time.perf_counter()
        Archive(build_tensor(record, config).arrays).encode()
    check.seconds += (time.perf_counter() - start) * max(1, n_files - 1)
