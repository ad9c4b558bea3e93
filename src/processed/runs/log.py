"""The log file of a run in its output folder, and its progress while it works.

The first line of a log file is a JSON object with the run's id, configuration and versions, the
last one a JSON object with its outcome; the program's log lines are between them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO, TypedDict

from src import __version__
from src.utils import (
    CODE_ROOT,
    LOG_FORMAT,
    LogFormatter,
    available_cores,
    format_duration,
    in_notebook,
    make_folder,
    message_stream,
    printable,
    stable_hash,
    to_jsonable,
)

logger = logging.getLogger(__name__)

# Seconds to the first progress line and between the next ones, where no bar is shown.
_FIRST_LINE_S = 10.0
_NEXT_LINE_S = 30.0
_BAR_AFTER_S = 5.0  # in a notebook

_PACKAGES = ("numpy", "scipy", "pandas", "torch", "scikit-learn", "wfdb", "h5py")
_SOURCE_FOLDER = Path(__file__).resolve().parents[2]  # src


# Log file -----------------------------------------------------------------------------------------


@dataclass
class CurrentLog:
    """The log of a current run; `result` is written into its last line."""

    run_id: str
    path: Path
    result: dict[str, object] = field(default_factory=dict)


@contextmanager
def log_run(
    out: str | Path, what: str, configuration: Mapping[str, object]
) -> Iterator[CurrentLog]:
    """Keep the log of a run in ``out/logs``, even if the run fails.

    Parameters
    ----------
    out
        The output folder of the run.
    what
        Kind of run, such as preprocess; the file is named by it, the time and a random part.
    configuration
        All arguments of the run, of types that `src.utils.to_jsonable` converts.
    """
    started = datetime.now(UTC)
    began = time.monotonic()
    run_id = f"{what}-{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    log = CurrentLog(run_id, Path(out) / "logs" / f"{run_id}.log")
    make_folder(log.path.parent)
    head = {
        "run": run_id,
        "started": started.isoformat(timespec="seconds"),
        "pid": os.getpid(),
        "host": platform.node(),
        "command": sys.argv,
        "configuration": configuration,
        "environment": environment(),
    }
    outcome = "done"
    with open(log.path, "w", encoding="utf-8", errors="backslashreplace") as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(LogFormatter(LOG_FORMAT))
        try:
            _write_line(stream, head)
            logging.getLogger("src").addHandler(handler)
            yield log
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        except BaseException as error:
            outcome = f"failed: {type(error).__name__}: {printable(str(error), 2000)}"
            raise
        finally:
            logging.getLogger("src").removeHandler(handler)
            _write_line(
                stream,
                {
                    "run": run_id,
                    "outcome": outcome,
                    "seconds": round(time.monotonic() - began, 3),
                    **log.result,
                },
            )


def _write_line(stream: TextIO, value: Mapping[str, object]) -> None:
    stream.write(json.dumps(to_jsonable(value)) + "\n")
    stream.flush()


# Progress -----------------------------------------------------------------------------------------


class Progress:
    """The progress of a run: a bar on a terminal and in a notebook, elsewhere log lines.

    In a notebook the bar appears after five seconds and goes when the run ends.

    Parameters
    ----------
    total
        Number of records to process.
    what
        Name of the work, shown before the numbers.
    """

    def __init__(self, total: int, what: str) -> None:
        from tqdm import tqdm

        self.total = total
        self.what = what
        self.done = 0
        self.began = self.last_line = time.monotonic()
        self.has_bar = sys.stderr.isatty() or in_notebook()
        self.bar = tqdm(
            total=total,
            desc=what,
            unit="rec",
            file=message_stream(),
            leave=not in_notebook(),
            delay=_BAR_AFTER_S if in_notebook() else 0.0,
            disable=not self.has_bar or total == 0,
            smoothing=0.05,
        )

    def update(self, n_records: int) -> None:
        """Add records that are done."""
        self.done += n_records
        self.bar.update(n_records)
        now = time.monotonic()
        wait_s = _FIRST_LINE_S if self.last_line == self.began else _NEXT_LINE_S
        if not self.has_bar and now - self.last_line >= wait_s:
            self.last_line = now
            logger.info(str(self))

    @property
    def per_second(self) -> float:
        """Records done per second so far."""
        return self.done / max(time.monotonic() - self.began, 1e-9)

    def __str__(self) -> str:
        left_s = (self.total - self.done) / max(self.per_second, 1e-9)
        return (
            f"{self.what}: {self.done} of {self.total} records, {self.per_second:.0f}/s, "
            f"{format_duration(left_s)} left"
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()


# Environment --------------------------------------------------------------------------------------


class Environment(TypedDict):
    """Versions of the code and its packages, and the platform of a run."""

    version: str
    commit: str | None
    source: str
    python: str
    platform: str
    cores: int
    packages: dict[str, str | None]


def environment() -> Environment:
    """Return versions, commit, a hash of the modules, and the platform, for the log of a run."""
    return {
        "version": __version__,
        "commit": _read_commit(),
        "source": _hash_source(),
        "python": sys.version.split()[0],
        "platform": f"{sys.platform} {platform.machine()}",
        "cores": available_cores(),
        "packages": {package: _find_version(package) for package in _PACKAGES},
    }


def _find_version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read_commit() -> str | None:
    """Read the checked-out commit from .git without running git; None outside a checkout."""
    try:
        git = _find_git_folder(CODE_ROOT / ".git")
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = head.removeprefix("ref: ")
        # The branches of a worktree are in the folder of the repository itself.
        shared = git / "commondir"
        common = git / shared.read_text().strip() if shared.exists() else git
        if (common / ref).exists():
            return (common / ref).read_text().strip()
        packed = (common / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), None)
    except (OSError, UnicodeDecodeError):
        return None


def _find_git_folder(path: Path) -> Path:
    """Return the git folder; in a worktree or a submodule, .git is a file with its path."""
    if path.is_file():
        return path.parent / path.read_text().removeprefix("gitdir:").strip()
    return path


def _hash_source() -> str:
    """Return a hash of all modules of src, which also identifies code that is not committed."""
    names = sorted(
        path.relative_to(_SOURCE_FOLDER).as_posix() for path in _SOURCE_FOLDER.rglob("*.py")
    )
    return stable_hash(
        [
            [name, hashlib.blake2b((_SOURCE_FOLDER / name).read_bytes()).hexdigest()]
            for name in names
        ]
    )
