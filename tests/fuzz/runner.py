"""Runs mutated inputs in child processes under limits of time and memory, and keeps what went
wrong.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

LIMIT_S = 2.0
LIMIT_BYTES = 2**30
# without a sign of life a child is killed: it waits, or hangs in a library, where no signal is
# heard
_STUCK_S = 60.0
_START_S = 300.0  # until the first one, on a machine that is busy with other work


class SlowError(BaseException):
    """An input took longer than `LIMIT_S` of processor time; waiting is seen by the parent."""


@dataclass
class Report:
    """How many inputs of each target were read and refused, and what went wrong with which."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0
    slowest_s: float = 0.0
    peak_bytes: int = 0

    @property
    def n_inputs(self) -> int:
        return sum(counts.total() for counts in self.counts.values())

    def __str__(self) -> str:
        lines = [
            f"{name:18} {counts['read']:6} read {counts['refused']:6} refused"
            for name, counts in self.counts.items()
        ]
        lines.append(
            f"{self.n_inputs} inputs in {self.seconds:.0f} s, slowest "
            f"{self.slowest_s:.2f} s, at most {self.peak_bytes / 2**20:.0f} MiB above the "
            f"start, {len(self.findings)} findings"
        )
        lines += [
            f"{item['target']} {item['index']} (seed {item['seed']}): {item['what']}"
            for item in self.findings[:50]
        ]
        return "\n".join(lines)


def run_fuzzer(
    n_inputs: int, seed: int = 0, targets: Sequence[str] = (), max_s: float = 1e9
) -> Report:
    """Try inputs of every target in proportion to its weight; each is told by its target, its index
    and the seed.
    """
    from .targets import TARGETS

    names = list(targets) or list(TARGETS)
    weights = sum(TARGETS[name].weight for name in names)
    plan = {name: range(max(1, round(n_inputs * TARGETS[name].weight / weights))) for name in names}
    shares = {name: max_s * TARGETS[name].weight / weights for name in names}
    report, start = Report({name: Counter() for name in names}), time.perf_counter()
    with tempfile.TemporaryDirectory(
        prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as folder:
        while plan:
            _run_child(report, seed, plan, shares, Path(folder))
    report.seconds = time.perf_counter() - start
    return report


def _run_child(
    report: Report, seed: int, plan: dict[str, range], shares: dict[str, float], folder: Path
) -> None:
    """Run what is planned in a child, and take out of the plan what was tried; a child that dies
    leaves the rest.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(sender, seed, plan, shares, folder), daemon=True)
    child.start()
    sender.close()
    name, index, patience = "", -1, _START_S
    try:
        while receiver.poll(patience):
            kind, value = receiver.recv()
            if kind == "index":
                name, index = value
                patience = _STUCK_S if index >= 0 else _START_S
            elif kind == "finding":
                report.findings.append(
                    {"target": name, "seed": seed, "index": index, "what": value}
                )
            else:
                report.counts[name].update(value["counts"])
                report.slowest_s = max(report.slowest_s, value["slowest_s"])
                report.peak_bytes = max(report.peak_bytes, value["peak_bytes"])
                del plan[name]
                if not plan:
                    child.join(_STUCK_S)
                    return
        what = f"stuck for {patience} s"
    except EOFError:
        child.join()
        what = f"the process ended with {child.exitcode}"
    finally:
        child.kill()
        child.join()
    if not name or index < 0:
        raise RuntimeError(f"the fuzzer did not start: {what}")
    report.findings.append({"target": name, "seed": seed, "index": index, "what": what})
    report.counts[name]["died"] += 1
    plan[name] = range(index + 1, plan[name].stop)


def _work(
    sender: Connection, seed: int, plan: dict[str, range], shares: dict[str, float], folder: Path
) -> None:
    """Try what is planned, and tell of each input before it is read."""
    logging.disable()  # what is said of a broken file is of no use here
    for name, indices in plan.items():
        sender.send(("index", (name, -1)))
        try_input(name, seed, -1, folder, math.inf)  # loads what is loaded late
        used = limit_memory()
        counts: Counter[str] = Counter()
        slowest, start = 0.0, time.perf_counter()
        for index in indices:
            sender.send(("index", (name, index)))
            if time.perf_counter() - start > shares[name]:
                break
            outcome, what, took = try_input(name, seed, index, folder)
            counts[outcome] += 1
            slowest = max(slowest, took)
            if what:
                sender.send(("finding", what))
        peak = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used)
        sender.send(("index", (name, 0)))
        sender.send(("done", {"counts": counts, "slowest_s": slowest, "peak_bytes": peak}))


def _empty(folder: Path) -> Path:
    inner = folder / "x"
    shutil.rmtree(inner, ignore_errors=True)
    inner.mkdir()
    return inner


def limit_memory() -> int:
    """Allow `LIMIT_BYTES` above what is used now; returns what was resident at most."""
    pages = [int(text) for text in Path("/proc/self/statm").read_text().split()]
    resource.setrlimit(
        resource.RLIMIT_AS,
        (pages[0] * resource.getpagesize() + LIMIT_BYTES, resource.RLIM_INFINITY),
    )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _slow(signum: int, frame: object) -> None:
    raise SlowError


def try_input(
    name: str, seed: int, index: int, folder: Path, limit_s: float = LIMIT_S
) -> tuple[str, str, float]:
    """Make and read one input; returns what came of it, what was wrong or nothing, and the seconds
    that reading took.
    """
    from .targets import TARGETS

    rng = random.Random(f"{seed} {name} {index}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = TARGETS[name].make(rng, _empty(folder))
    signal.signal(signal.SIGPROF, _slow)
    signal.setitimer(signal.ITIMER_PROF, limit_s if limit_s < math.inf else 0)
    outcome, what, began = "wrong", "", time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings(
                "ignore", "The inplace keyword"
            )  # of pandas, at the wfdb package
            outcome = TARGETS[name].check(rng, path)
    except SlowError:
        what = f"took over {LIMIT_S} s: {_where()}"
    except BaseException as error:  # noqa: BLE001  that is what is looked for
        what = f"{type(error).__name__}: {str(error)[:300]} | {_where()}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    took = time.process_time() - began
    if took > limit_s and not what:  # a library may swallow the alarm
        outcome, what = "wrong", f"took {took:.1f} s"
    return outcome, what, took


def _where() -> str:
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [frame for frame in frames if "/src/" in frame.filename]
    return " < ".join(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in reversed(ours[-3:] + frames[-1:])
    )


def save_findings(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report.findings, indent=1))
