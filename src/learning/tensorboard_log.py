"""The history of a training run for TensorBoard (requirements-tracking.txt)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.learning.optimization import HistoryRow
from src.utils import import_extra


@contextmanager
def log_epochs(folder: Path, enabled: bool) -> Iterator[Callable[[HistoryRow], None] | None]:
    """Yield a function that writes a row of the history, or None if not `enabled`.

    A resumed run writes a new file. TensorBoard then hides what an earlier file has for the same
    and later epochs.

    Parameters
    ----------
    folder
        Where TensorBoard finds the run.
    enabled
        Whether to write at all.

    Raises
    ------
    ValueError
        If tensorboard is not installed.
    """
    if not enabled:
        yield None
        return
    import_extra("tensorboard", "training with --tensorboard", "-r requirements-tracking.txt")
    board: Any = import_extra(
        "torch.utils.tensorboard", "training with --tensorboard", "-r requirements-tracking.txt"
    )
    writers: list[Any] = []

    def write(row: HistoryRow) -> None:
        # The first row tells the epoch from which earlier files are hidden.
        if not writers:
            writers.append(board.SummaryWriter(str(folder), purge_step=row["epoch"]))
        for name, value in row.items():
            if name != "epoch" and value is not None:
                writers[0].add_scalar(name, value, row["epoch"])
        writers[0].flush()

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
