"""Measure processor time and memory of each reader as the size of expensive inputs doubles:
``python -m tests.fuzz.costs``; exit status 1 where one costs too much.

Each input is made at sizes n, 2n and 4n, and each is read in a process of its own. The largest
comes first: where it is read in no time, the others need not be.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from .expensive import Expensive
from .oracle import check_error
from .runner import LIMIT_BYTES, LIMIT_S, limit_memory

FLOOR_S = 0.05
"""Times below are noise, and what is quadratic in so little time is measured at a larger size."""

FLOOR_BYTES = 2**27
TOO_STEEP = 7.0
"""Of linear costs the largest input takes 4 times as much as the smallest, of quadratic 16."""

TOO_STEEP_AT_LAST = 2.7
"""Of linear costs the largest takes twice as much as the one before, of quadratic 4 times."""

_KILL_S = 2 * LIMIT_S
_WAIT_S = 60.0
_SIZES = (1, 2, 4)


@dataclass(frozen=True)
class Kind:
    """Inputs that are made to cost much, and the ways to read them."""

    inputs: Callable[[], Iterable[Expensive]]
    reads: dict[str, Callable[[Path], object]]


@dataclass(frozen=True)
class Cost:
    """What reading one input took, and what was wrong with that."""

    seconds: float
    n_bytes: int
    problem: str = ""

    @property
    def is_small(self) -> bool:
        return self.seconds < FLOOR_S and self.n_bytes < FLOOR_BYTES and not self.problem


@dataclass
class CostReport:
    """How many inputs of each kind were read, what the most expensive took, and what was wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    slowest: dict[str, tuple[float, str]] = field(default_factory=dict)
    largest: dict[str, tuple[int, str]] = field(default_factory=dict)
    findings: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{kind:22} {n:5} inputs, slowest {self.slowest[kind][0]:.2f} s "
            f"({self.slowest[kind][1][:50]}), at most {self.largest[kind][0] / 2**20:.0f} MiB"
            for kind, n in self.counts.items()
            if n
        ]
        lines.append(
            f"{sum(self.counts.values())} expensive inputs in {self.seconds:.0f} s, "
            f"{len(self.findings)} findings"
        )
        lines += [f"{kind}, {name}: {what}" for kind, name, what in self.findings]
        return "\n".join(lines)


def all_kinds() -> dict[str, Kind]:
    """Return the inputs and the readers of every format and every kind of file."""
    from src.config import SplitConfig
    from src.processed.manifest import Journal, load_manifest
    from src.processed.splits import build_splits

    from . import expensive_files, expensive_records
    from .tables import TABLE_LOADERS
    from .targets import LOADERS, read_in_one_way

    def split(path: Path) -> object:
        try:
            return build_splits(load_manifest(path.parent), SplitConfig(), {})
        except ValueError as error:
            return error  # of splits that cannot be made, which names no file

    ways = {way: lambda path, way=way: read_in_one_way(path, way) for way in ("whole", "windows")}
    kinds = {name: Kind(make, ways) for name, make in expensive_records.GENERATORS.items()}
    loaders = {**LOADERS, **TABLE_LOADERS, "journal": lambda path: Journal(path.parent).load()}
    for name, make in expensive_files.GENERATORS.items():
        reads = {"load": loaders[name]} | ({"split": split} if name == "manifest" else {})
        kinds[name] = Kind(make, reads)
    return kinds


def measure_costs(
    names: Sequence[str] = (),
    scale: float = 1.0,
    most: int = 10**9,
    kinds: Callable[[], dict[str, Kind]] = all_kinds,
    show: Callable[[str], object] = str,
) -> CostReport:
    """Measure inputs of each kind.

    Parameters
    ----------
    names
        Of the kinds; all by default.
    scale
        Factor of all sizes.
    most
        Inputs of a kind to try; if there are more, they are taken at even distances.
    kinds
        Gives the kinds. It is called in a process of its own, so it must be found by its name.
    show
        Gets each finding as it is made.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    report, start = CostReport(), time.perf_counter()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="costs-", dir=shared) as folder:
        child = context.Process(
            target=_measure_all, args=(sender, kinds, names, scale, most, Path(folder))
        )
        child.start()
        sender.close()
        try:
            while (told := receiver.recv()) is not None:
                _count(report, *told)
                if told[-1]:
                    show(f"{told[0]}, {told[1]}: {told[-1]}")
        except EOFError:
            raise RuntimeError(f"the measuring process ended with {child.exitcode}") from None
        finally:
            child.kill()
            child.join()
    report.seconds = time.perf_counter() - start
    return report


def _count(report: CostReport, kind: str, name: str, cost: Cost, what: str) -> None:
    report.counts[kind] = report.counts.get(kind, 0) + 1
    report.slowest[kind] = max(report.slowest.get(kind, (0.0, "")), (cost.seconds, name))
    report.largest[kind] = max(report.largest.get(kind, (0, "")), (cost.n_bytes, name))
    if what:
        report.findings.append((kind, name, what))


@dataclass(frozen=True)
class _Reading:
    """One input, and one way to read it."""

    kind: str
    item: Expensive
    way: str
    read: Callable[[Path], object]

    @property
    def name(self) -> str:
        return self.item.name if self.way == "load" else f"{self.item.name} ({self.way})"


def _measure_all(
    sender: Connection,
    kinds: Callable[[], dict[str, Kind]],
    names: Sequence[str],
    scale: float,
    most: int,
    folder: Path,
) -> None:
    """Measure the inputs in processes forked from this one, which has loaded all that is needed."""
    logging.disable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # whose threads a fork would wait for, as it lacks them
    available = kinds()
    for kind in names or available:
        inputs = list(available[kind].inputs())
        chosen = inputs[:: -(-len(inputs) // most)]
        readings = [
            _Reading(kind, item, way, read)
            for item in chosen
            for way, read in available[kind].reads.items()
        ]
        for reading in readings[: len(available[kind].reads)]:
            _warm_up(reading, folder)
        # A collection of garbage goes through what is kept here too, at times that chance decides.
        gc.collect()
        gc.freeze()
        for reading, costs in _measure(readings, scale, folder):
            sender.send((kind, reading.name, costs[-1], judge(costs)))
    sender.send(None)


def _warm_up(reading: _Reading, folder: Path) -> None:
    """Read a tiny input here, which loads what is loaded late."""
    path = reading.item.write(_empty(folder), 1)
    signal.setitimer(signal.ITIMER_REAL, _WAIT_S)
    with contextlib.suppress(Exception):
        reading.read(path)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _measure(
    readings: Sequence[_Reading], scale: float, folder: Path
) -> Iterator[tuple[_Reading, list[Cost]]]:
    """Yield each reading with its cost at the largest size, and at the sizes below where that is
    not small.
    """
    at = 0
    while at < len(readings):
        for cost in _screen(readings[at:], scale, folder):
            reading = readings[at]
            sizes = [_size(reading.item, scale) * factor for factor in _SIZES]
            # Where something is wrong, the sizes below would only cost more time.
            is_known = cost.is_small or cost.problem
            yield reading, [cost] if is_known else _measure_sizes(reading, sizes, folder)
            at += 1


def _measure_sizes(reading: _Reading, sizes: Sequence[int], folder: Path) -> list[Cost]:
    """Return the cost at each size; measure again what looks wrong, as other work may be why."""
    costs = [_cost(reading, n, folder) for n in sizes]
    if not judge(costs):
        return costs
    again = [_cost(reading, n, folder) for n in sizes]
    return [min(pair, key=lambda cost: cost.seconds) for pair in zip(costs, again, strict=True)]


def _size(item: Expensive, scale: float) -> int:
    return max(1, round(item.size * scale))


def _screen(readings: Sequence[_Reading], scale: float, folder: Path) -> list[Cost]:
    """Read the largest inputs in one process, up to the first whose cost is not small."""
    receiver, child = _fork(lambda tell: _screen_here(readings, scale, folder, tell))
    costs: list[Cost] = []
    try:
        while True:
            costs.append(receiver.recv())
    except EOFError:
        child.join()
        # The process ends by itself after an input that costs much, and else within one.
        if child.exitcode or not costs:
            costs.append(Cost(_KILL_S, 0, _ending(child.exitcode)))
    return costs


def _screen_here(
    readings: Sequence[_Reading], scale: float, folder: Path, tell: Callable[[object], None]
) -> None:
    for reading in readings:
        signal.setitimer(signal.ITIMER_REAL, _WAIT_S)
        cost = _read(
            reading.read,
            reading.item.write(_empty(folder), _SIZES[-1] * _size(reading.item, scale)),
        )
        tell(cost)
        if not cost.is_small:
            return


def _cost(reading: _Reading, n: int, folder: Path) -> Cost:
    """Return the least cost of three, as other work on the machine can only add to it."""
    inner = _empty(folder)
    path, problem = _in_child(lambda: reading.item.write(inner, n))
    if problem:
        return Cost(_KILL_S, 0, f"cannot be made of size {n}: {problem}")
    least = Cost(_KILL_S, 0)
    for _ in range(3):
        cost, problem = _in_child(lambda: _read(reading.read, path))
        if problem:
            return Cost(_KILL_S, 0, problem)
        least = min(least, cost, key=lambda each: each.seconds)
        if cost.seconds < FLOOR_S / 2 or cost.seconds > _KILL_S / 2 or cost.problem:
            break
    return least


def _read(read: Callable[[Path], object], path: Path) -> Cost:
    """Read a file within limits; the process ends by its alarm where it takes too long."""
    used = _restart_peak()
    limit_memory()
    signal.setitimer(signal.ITIMER_PROF, _KILL_S)
    problem, began = "", time.process_time()
    try:
        read(path)
    except ValueError as error:
        try:
            check_error(error, path)
        except Exception as wrong:  # noqa: BLE001
            problem = str(wrong)
    except BaseException as error:  # noqa: BLE001  that is what is looked for
        problem = f"{type(error).__name__}: {str(error)[:300]}"
    took = time.process_time() - began
    signal.setitimer(signal.ITIMER_PROF, 0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return Cost(took, max(0, _peak() - used), problem)


def _restart_peak() -> int:
    """Let the peak of memory begin at what is used now, where the system can; returns it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fork(
    work: Callable[[Callable[[object], None]], None],
) -> tuple[Connection, multiprocessing.process.BaseProcess]:
    """Start a fork of this process, which gets a function that tells this one what it finds."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(sender.send,))
    child.start()
    sender.close()
    return receiver, child


def _in_child(function: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a function gives in a fork of this process, and what ended the process."""

    def work(tell: Callable[[object], None]) -> None:
        signal.setitimer(signal.ITIMER_REAL, _WAIT_S)
        try:
            tell((function(), ""))
        except Exception as error:  # noqa: BLE001
            tell((None, f"{type(error).__name__}: {str(error)[:300]}"))

    receiver, child = _fork(work)
    try:
        value: tuple[Any, str] = receiver.recv()
        return value
    except EOFError:
        child.join()
        return None, _ending(child.exitcode)
    finally:
        child.join()
        receiver.close()


def _ending(status: int | None) -> str:
    ends = {-signal.SIGPROF: f"takes over {_KILL_S:.0f} s", -signal.SIGALRM: "waits"}
    return ends.get(status or 0, f"the process ended with {status}")


def judge(costs: Sequence[Cost]) -> str:
    """Return what is wrong with the costs of inputs whose size doubles; empty if nothing is."""
    largest = costs[-1]
    times = ", ".join(f"{cost.seconds:.2f}" for cost in costs)
    sizes = ", ".join(f"{cost.n_bytes / 2**20:.0f}" for cost in costs)
    if largest.problem:
        return largest.problem
    if largest.seconds > LIMIT_S:
        return f"takes over {LIMIT_S:.0f} s as the size doubles: {times} s"
    if largest.n_bytes > LIMIT_BYTES:
        return f"takes over {LIMIT_BYTES >> 20} MiB as the size doubles: {sizes} MiB"
    if largest.seconds > FLOOR_S and _is_steep([cost.seconds for cost in costs]):
        return f"time grows faster than the size as it doubles: {times} s"
    if largest.n_bytes > FLOOR_BYTES and _is_steep([float(cost.n_bytes) for cost in costs]):
        return f"memory grows faster than the size as it doubles: {sizes} MiB"
    return ""


def _is_steep(values: Sequence[float]) -> bool:
    first, *_, before, last = values
    return last > TOO_STEEP * first and last > TOO_STEEP_AT_LAST * before


def _empty(folder: Path) -> Path:
    inner = folder / "x"
    shutil.rmtree(inner, ignore_errors=True)
    inner.mkdir()
    return inner


def _show(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.costs", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="(default: all)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor of all sizes (default: %(default)s)"
    )
    parser.add_argument(
        "--most", type=int, default=10**9, help="inputs of each kind to try (default: all)"
    )
    args = parser.parse_args()
    report = measure_costs(args.only, args.scale, args.most, show=_show)
    print(report)  # noqa: T201
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
