"""What a run leaves to be looked up later: a log file in its output folder, and how far it is while
it works.

The first line of a log is a JSON object with the run's id, configuration and versions, the last one
what it came to; the log of the program stands in between.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from src import __version__
from src.utils import (
    PROJECT_ROOT,
    available_cores,
    format_duration,
    printable,
    stable_hash,
    to_jsonable,
)

logger = logging.getLogger(__name__)


_FIRST_S, _EVERY_S = 10.0, 30.0  # when a line on the progress is logged where no bar is shown


@dataclass
class RunLog:
    """The log of a run that is going on; what is put into `result` stands in its last line."""

    run_id: str
    path: Path
    result: dict[str, Any] = field(default_factory=dict)


@contextmanager
def log_run(out: str | Path, what: str, configuration: dict[str, Any]) -> Iterator[RunLog]:
    """Keep the log of a run in ``out/logs``, also of one that fails.

    Parameters
    ----------
    out
        The output folder of the run.
    what
        Such as preprocess; the log is called by it, the time and a random part.
    configuration
        Everything the run was asked, as `src.utils.to_jsonable` takes it.
    """
    started, began = datetime.now(UTC), time.monotonic()
    run_id = f"{what}-{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    log = RunLog(run_id, Path(out) / "logs" / f"{run_id}.log")
    log.path.parent.mkdir(parents=True, exist_ok=True)
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
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
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


def _write_line(stream: TextIO, value: dict[str, Any]) -> None:
    stream.write(json.dumps(to_jsonable(value)) + "\n")
    stream.flush()


def _in_notebook() -> bool:
    """Tell whether this process is a notebook's kernel; that a library imported one does not make
    it one.
    """
    kernel = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    return kernel is not None and bool(kernel.initialized())


class Progress:
    """How far a run is: a bar on a terminal and in a notebook, elsewhere a line of the log now and
    then.

    Parameters
    ----------
    total
        Records to do.
    what
        What is done with them.
    """

    def __init__(self, total: int, what: str) -> None:
        from tqdm import tqdm

        self.total, self.what, self.done = total, what, 0
        self.began = self.said = time.monotonic()
        shown = sys.stderr.isatty() or _in_notebook()
        self.bar = tqdm(
            total=total, desc=what, unit="rec", disable=not shown or total == 0, smoothing=0.05
        )
        self.has_bar = shown

    def update(self, n_records: int) -> None:
        """Note that some more records are done."""
        self.done += n_records
        self.bar.update(n_records)
        now = time.monotonic()
        wait_s = _FIRST_S if self.said == self.began else _EVERY_S
        if not self.has_bar and now - self.said >= wait_s:
            self.said = now
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


def environment() -> dict[str, Any]:
    """Return versions, commit, a hash of the modules, and the platform, for the log of a run."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = ("numpy", "scipy", "pandas", "torch", "scikit-learn", "wfdb", "h5py")
    return {
        "version": __version__,
        "commit": _git_commit(),
        "source": _source_hash(),
        "python": sys.version.split()[0],
        "platform": f"{sys.platform} {platform.machine()}",
        "cores": available_cores(),
        "packages": {package: installed(package) for package in packages},
    }


def _git_commit() -> str | None:
    """Read the checked-out commit from .git without running git; None outside a checkout."""
    try:
        git = _git_folder(PROJECT_ROOT / ".git")
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = head.removeprefix("ref: ")
        shared = git / "commondir"  # a worktree has its branches where the repository has them
        common = git / shared.read_text().strip() if shared.exists() else git
        if (common / ref).exists():
            return (common / ref).read_text().strip()
        packed = (common / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), None)
    except (OSError, UnicodeDecodeError):
        return None


def _git_folder(path: Path) -> Path:
    """Follow the file that a worktree or a submodule has in the place of its .git folder."""
    if path.is_file():
        return path.parent / path.read_text().removeprefix("gitdir:").strip()
    return path


def _source_hash() -> str:
    """Return a hash of the modules, which tells changed code from that of the commit, and code
    without a commit.
    """
    folder = Path(__file__).parent
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    return stable_hash(
        [[name, hashlib.blake2b((folder / name).read_bytes()).hexdigest()] for name in files]
    )
