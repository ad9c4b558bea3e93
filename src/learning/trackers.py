"""Trackers: what follows the history of a training run, such as TensorBoard and MLflow.

A tracker of one's own has the three methods of `Tracker`. Both trackers in the box need an optional
package (requirements-tracking.txt).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from src.learning.optimization import HistoryRow
from src.utils import import_extra, import_object, import_path, make_folder, printable

logger = logging.getLogger(__name__)

_INSTALL = "-r requirements-tracking.txt"
_MLFLOW_RUN = "mlflow_run.txt"
_MLFLOW_EXPERIMENT = "ecg"
# Limits of MLflow's servers
_LONGEST_PARAM = 6000
_PARAMS_AT_A_TIME = 100


@dataclass(frozen=True)
class RunStart:
    """What is known of a run before its first epoch.

    Attributes
    ----------
    out
        The folder of the run.
    facts
        The head of ``training_log.json``: config, classes, device, numbers of records and so on.
    epoch
        Number of epochs that are finished already, if the run is resumed; else 0.
    """

    out: Path
    facts: Mapping[str, object]
    epoch: int


@dataclass(frozen=True)
class RunEnd:
    """The result of a finished run.

    Attributes
    ----------
    best_epoch
        Number of the best epoch, from 1.
    best_metric
        Its validation metric; None where it is undefined.
    metric_name
        Column of the history that decides which epoch is best.
    best_path
        Checkpoint of the best epoch.
    """

    best_epoch: int
    best_metric: float | None
    metric_name: str
    best_path: Path


class Tracker(Protocol):
    """Follows a training run. The main process of a distributed run alone calls it."""

    def start(self, run: RunStart) -> None:
        """Begin, before the first epoch. An error ends the run."""

    def epoch(self, row: HistoryRow) -> None:
        """Take a row of the history, once its checkpoints are written."""

    def end(self, result: RunEnd | None) -> None:
        """Close; None says that the run failed or was stopped."""


# Trackers in the box ------------------------------------------------------------------------------


class TensorBoardTracker:
    """Writes the history for TensorBoard to ``tensorboard/`` of the run.

    A resumed run writes a new file. TensorBoard then hides what an earlier file has for the same
    and later epochs.

    Raises
    ------
    ValueError
        If tensorboard is not installed.
    """

    def __init__(self) -> None:
        purpose = "training with --track tensorboard"
        import_extra("tensorboard", purpose, _INSTALL)
        self._board: Any = import_extra("torch.utils.tensorboard", purpose, _INSTALL)
        self._writer: Any = None

    def start(self, run: RunStart) -> None:
        """Open a file that hides later epochs of earlier ones."""
        folder = str(run.out / "tensorboard")
        self._writer = self._board.SummaryWriter(folder, purge_step=run.epoch + 1)

    def epoch(self, row: HistoryRow) -> None:
        """Write the columns of a row as scalars."""
        for name, value in numbers_of(row).items():
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def end(self, _: RunEnd | None) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class MlflowTracker:
    """Logs settings and history to MLflow.

    The server is that of ``MLFLOW_TRACKING_URI``, or else the folder ``mlruns/`` of the run; the
    experiment is that of ``MLFLOW_EXPERIMENT_NAME``, or else ``ecg``. A resumed run continues its
    MLflow run, whose id is in ``mlflow_run.txt``.

    Raises
    ------
    ValueError
        If mlflow is not installed.
    """

    def __init__(self) -> None:
        purpose = "training with --track mlflow"
        self._tracking: Any = import_extra("mlflow.tracking", purpose, _INSTALL)
        self._entities: Any = import_extra("mlflow.entities", purpose, _INSTALL)
        self._client: Any = None
        self._run_id = ""

    def start(self, run: RunStart) -> None:
        """Create an MLflow run with the settings, or continue that of a resumed run."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = make_folder(run.out / "mlruns").resolve().as_uri()
            # MLflow asks for consent to its oldest store, the only one without a database.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = self._tracking.MlflowClient(tracking_uri=uri)
        note = run.out / _MLFLOW_RUN
        if run.epoch and note.is_file():
            self._run_id = note.read_text(encoding="utf-8").strip()
            self._client.update_run(self._run_id, status="RUNNING")
            return
        created = self._client.create_run(self._experiment(), run_name=run.out.resolve().name)
        self._run_id = created.info.run_id
        note.write_text(self._run_id, encoding="utf-8")
        self._log_params(run.facts)

    def _experiment(self) -> str:
        """Return the id of the experiment, which is created if it is missing."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _MLFLOW_EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        identifier: str = found.experiment_id if found else self._client.create_experiment(name)
        return identifier

    def _log_params(self, facts: Mapping[str, object]) -> None:
        params = []
        for name, value in flatten(facts):
            text = str(value)[:_LONGEST_PARAM]
            params.append(self._entities.Param(name, text))
        for first in range(0, len(params), _PARAMS_AT_A_TIME):
            self._client.log_batch(self._run_id, params=params[first : first + _PARAMS_AT_A_TIME])

    def epoch(self, row: HistoryRow) -> None:
        """Log the columns of a row as metrics."""
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(name, value, now, row["epoch"])
            for name, value in numbers_of(row).items()
        ]
        self._client.log_batch(self._run_id, metrics=metrics)

    def end(self, result: RunEnd | None) -> None:
        """Log the best epoch, and whether the run finished."""
        if not self._run_id:
            return
        if result is not None:
            self._client.set_tag(self._run_id, "best_epoch", result.best_epoch)
            self._client.set_tag(self._run_id, f"best_{result.metric_name}", result.best_metric)
        status = "FAILED" if result is None else "FINISHED"
        self._client.set_terminated(self._run_id, status)


_TRACKERS: dict[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MlflowTracker,
}


def numbers_of(row: HistoryRow) -> dict[str, float]:
    """Return the columns of a row of the history that have a value, without its epoch."""
    return {
        name: float(value)  # type: ignore[arg-type]
        for name, value in row.items()
        if name != "epoch" and value is not None
    }


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested mappings under names such as ``config.train.lr``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# The trackers of a run ----------------------------------------------------------------------------


class TrackerGroup:
    """Several trackers as one. A tracker that fails after the start is left out with a warning."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def start(self, run: RunStart) -> None:
        """Start each tracker.

        Raises
        ------
        ValueError
            If one fails.
        """
        for name, tracker in self._trackers.items():
            try:
                tracker.start(run)
            # Servers and code of the user's fail in any way.
            except Exception as error:  # noqa: BLE001
                problem = printable(f"{type(error).__name__}: {error}")
                raise ValueError(f"track {name}: it did not start: {problem}") from None

    def epoch(self, row: HistoryRow) -> None:
        """Pass a row of the history on."""
        self._tell("the next epochs", lambda tracker: tracker.epoch(row))

    def end(self, result: RunEnd | None) -> None:
        """Close all trackers, once."""
        self._tell("the end", lambda tracker: tracker.end(result))
        self._trackers.clear()

    def _tell(self, missed: str, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            # Days of training must not end with a server that is away.
            except Exception as error:  # noqa: BLE001
                problem = printable(f"{type(error).__name__}: {error}")
                logger.warning("track %s: failed (%s): it misses %s", name, problem, missed)
                del self._trackers[name]


@contextmanager
def open_trackers(
    names: Sequence[str], given: Sequence[Tracker] = (), *, enabled: bool = True
) -> Iterator[TrackerGroup]:
    """Yield the trackers of a run, which are closed in the end, whatever happens.

    Parameters
    ----------
    names
        ``tensorboard``, ``mlflow``, or the import path of a function or class that returns a
        `Tracker` when called without arguments.
    given
        Further trackers.
    enabled
        Whether this process tracks at all.

    Raises
    ------
    ValueError
        If the package of one is not installed, or one is not a tracker.
    """
    trackers: dict[str, Tracker] = {}
    if enabled:
        trackers = {name: make_tracker(name) for name in names}
        for number, tracker in enumerate(given, start=1):
            trackers[f"{import_path(tracker)} ({number})"] = _checked(tracker, import_path(tracker))
    group = TrackerGroup(trackers)
    try:
        yield group
    finally:
        group.end(None)


def make_tracker(name: str) -> Tracker:
    """Return a new tracker by its name or import path; see `open_trackers`."""
    if name in _TRACKERS:
        return _TRACKERS[name]()
    factory: Callable[[], object] = import_object(name)  # type: ignore[assignment]
    try:
        tracker = factory()
    # A function of the user's may fail in any way.
    except Exception as error:  # noqa: BLE001
        problem = printable(f"{type(error).__name__}: {error}")
        raise ValueError(f"track {name}: failed when called: {problem}") from None
    return _checked(tracker, name)


def _checked(tracker: object, name: str) -> Tracker:
    """Return a tracker; refuse an object without its methods."""
    missing = [
        method
        for method in ("start", "epoch", "end")
        if not callable(getattr(tracker, method, None))
    ]
    if missing:
        raise ValueError(
            f"track {name}: a {type(tracker).__name__} has no {' and no '.join(missing)}: expected "
            "the methods start(run), epoch(row) and end(result)"
        )
    return tracker  # type: ignore[return-value]
