"""Signs of life of commands whose work is not counted in records, such as report and export."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from src.utils import format_duration

logger = logging.getLogger(__name__)

T = TypeVar("T")

EVERY_S = 2.5
"""Seconds between two log lines: a reader wonders after three whether the command hangs."""


class Heartbeat:
    """Logs what a command does at each step, and every 2.5 s that it is still doing it.

    The lines come from a thread, so that they appear during a single long call as well.

    Parameters
    ----------
    command
        Name of the command, at the beginning of each line.
    step
        Its first step.
    every_s
        Seconds without a line after which one is logged.
    """

    def __init__(self, command: str, step: str, *, every_s: float = EVERY_S) -> None:
        self.command = command
        self.every_s = every_s
        self._step, self._done, self._total = step, 0, 0
        self._began = self._last_line = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start_step(self, step: str, total: int = 0) -> None:
        """Begin another step, of `total` parts if their number is known, and log it."""
        self._step, self._done, self._total = step, 0, total
        self._tell()

    def count(self, n: int = 1) -> None:
        """Add parts of the step that are done."""
        self._done += n

    def __str__(self) -> str:
        parts = ""
        if self._total:
            parts = f", {self._done} of {self._total}"
        elif self._done:
            parts = f", {self._done:,}"
        elapsed = format_duration(time.monotonic() - self._began, minutes_from=600)
        return f"{self.command}: {self._step}{parts} ({elapsed})"

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._last_line + self.every_s - time.monotonic()):
            if time.monotonic() - self._last_line >= self.every_s:
                self._tell()

    def _tell(self) -> None:
        self._last_line = time.monotonic()
        if logger.getEffectiveLevel() > logging.INFO:
            return
        # Not by logger.info: the export silences all loggers with logging.disable while it runs
        record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, "%s", (str(self),), None)
        logger.handle(record)


def count_aloud(items: Iterable[T], command: str, step: str) -> Iterator[T]:
    """Yield items, and log every 2.5 s how many were done."""
    with Heartbeat(command, step) as beat:
        for item in items:
            yield item
            beat.count()
