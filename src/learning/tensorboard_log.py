"""The history of a training run for TensorBoard, written as it grows. tensorboard comes with
requirements-tensorboard.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.learning.optimization import HistoryRow
from src.utils import import_extra


@contextmanager
def log_epochs(folder: Path, enabled: bool) -> Iterator[Callable[[HistoryRow], None] | None]:
    """Yield what writes each row of the history as scalars of its epoch, or None where it is not
    `enabled`.

    A resumed run goes on in a new file; what an earlier one wrote for the same epochs or later is
    hidden.

    Raises
    ------
    ValueError
        If tensorboard is not installed.
    """
    if not enabled:
        yield None
        return
    import_extra("tensorboard", "training with --tensorboard", "-r requirements-tensorboard.txt")
    board: Any = import_extra(
        "torch.utils.tensorboard", "training with --tensorboard", "-r requirements-tensorboard.txt"
    )
    writers: list[Any] = []

    def write(row: HistoryRow) -> None:
        if not writers:  # the first epoch is known only now
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
