"""Time and memory of the networks in the box: ``python -m benchmarks.networks``; prints the table
of BENCHMARKS.md.

A training step is forward, loss, backward and AdamW on random records that are in memory already.
The networks take turns, since what a machine does changes within minutes. Memory is that of a
process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.peers import XResNet1d101
from src.learning.networks.inception1d import Inception1d
from src.learning.networks.s4 import S4
from src.model import ResNet1d, count_parameters

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet1d": ResNet1d,
    "xresnet1d101": XResNet1d101,
    "inception1d": Inception1d,
    "s4": S4,
}
BATCH_SIZES = {250: 128, 1000: 64}
"""Records of a batch, by samples of a record at 100 Hz: crops of 2.5 s, and whole records."""

N_LEADS, N_CLASSES = 12, 5
CONTEXT = multiprocessing.get_context("spawn")

Step = Callable[[], None]


@dataclass(frozen=True)
class Measured:
    """What a network takes for records of one length."""

    name: str
    n_parameters: int
    n_samples: int
    batch_size: int
    trained_per_s: float
    """Records/s of training steps."""
    predicted_per_s: float
    """Records/s of inference."""
    peak_mb: float
    """Memory that two training steps take beside the interpreter and the batch."""


def training_step(model: nn.Module, signal: torch.Tensor) -> Step:
    """Return a function that trains a network on a batch (B, n_leads, n_samples) once."""
    target = (torch.rand(len(signal), N_CLASSES) < 0.3).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(signal), target).backward()
        optimizer.step()

    return step


def inference_step(model: nn.Module, signal: torch.Tensor) -> Step:
    """Return a function that predicts a batch (B, n_leads, n_samples) once."""

    def step() -> None:
        model.eval()
        with torch.inference_mode():
            model(signal)

    return step


def time_in_turns(steps: dict[str, Step], turns: int, seconds: float) -> dict[str, float]:
    """Return the median seconds of each step over turns of at least some seconds each."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # warms up
    for _ in range(turns):
        for name, step in steps.items():
            start, n_steps = time.perf_counter(), 0
            while not n_steps or time.perf_counter() - start < seconds:
                step()
                n_steps += 1
            taken[name].append((time.perf_counter() - start) / n_steps)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure_memory(name: str, n_samples: int, batch_size: int, threads: int) -> float:
    """Return the MB that two training steps take beside the interpreter and the batch."""
    with CONTEXT.Pool(1) as pool:
        return pool.apply(_grow, (name, n_samples, batch_size, threads))


def _grow(name: str, n_samples: int, batch_size: int, threads: int) -> float:
    """Train two steps in this process, and return by how many MB its peak memory grew."""
    torch.set_num_threads(threads)
    signal = torch.randn(batch_size, N_LEADS, n_samples)
    before = _memory_mb("VmRSS")
    step = training_step(NETWORKS[name](), signal)
    step()
    step()
    return _memory_mb("VmHWM") - before


def _memory_mb(field: str) -> float:
    """Return the memory of this process now (VmRSS) or at most so far (VmHWM); Linux alone has it.

    A new process inherits the peak that `resource` tells.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def measure_networks(
    names: Sequence[str], n_samples: int, batch_size: int, *, turns: int, seconds: float
) -> list[Measured]:
    """Return what each network takes for batches of one shape, on the threads that torch has."""
    signal = torch.randn(batch_size, N_LEADS, n_samples)
    models = {name: NETWORKS[name]() for name in names}
    training = {name: training_step(model, signal) for name, model in models.items()}
    inference = {name: inference_step(model, signal) for name, model in models.items()}
    trained = time_in_turns(training, turns, seconds)
    predicted = time_in_turns(inference, turns, seconds)
    return [
        Measured(
            name,
            count_parameters(model),
            n_samples,
            batch_size,
            trained_per_s=batch_size / trained[name],
            predicted_per_s=batch_size / predicted[name],
            peak_mb=measure_memory(name, n_samples, batch_size, torch.get_num_threads()),
        )
        for name, model in models.items()
    ]


def convolution_share(batch_size: int, n_samples: int, turns: int, seconds: float) -> float:
    """Return the share that the state spaces, the convolutions, take of a training step of `S4`."""
    model = S4()
    block = model.blocks[0]
    signal = torch.randn(batch_size, N_LEADS, n_samples)
    inside = torch.randn(batch_size, n_samples, block.norm.normalized_shape[0], requires_grad=True)

    def convolve() -> None:
        out = block.state_space(inside)
        out.backward(torch.ones_like(out))

    steps = {"step": training_step(model, signal), "convolution": convolve}
    taken = time_in_turns(steps, turns, seconds)
    return len(model.blocks) * taken["convolution"] / taken["step"]


def to_markdown(rows: Sequence[Measured]) -> str:
    """Return the table of BENCHMARKS.md."""
    lines = [
        "| network | parameters, millions | samples | batch | training, records/s | inference, "
        "records/s | memory of training, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.name,
            f"{row.n_parameters / 1e6:.2f}",
            str(row.n_samples),
            str(row.batch_size),
            f"{row.trained_per_s:.0f}",
            f"{row.predicted_per_s:.0f}",
            f"{row.peak_mb:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all"
    )
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument(
        "--quick", action="store_true", help="one turn of few records (default: off)"
    )
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(args.threads)
    turns, seconds, divisor = (1, 0.0, 32) if args.quick else (7, 3.0, 1)
    rows = []
    for n_samples, batch_size in BATCH_SIZES.items():
        size = batch_size // divisor
        rows += measure_networks(args.only, n_samples, size, turns=turns, seconds=seconds)
    sys.stdout.write(f"{to_markdown(rows)}\n")
    if "s4" in args.only:
        share = convolution_share(BATCH_SIZES[250] // divisor, 250, turns, seconds)
        step_s = next(row.batch_size / row.trained_per_s for row in rows if row.name == "s4")
        sys.stdout.write(
            f"\nA training step of s4 on {rows[0].batch_size} records of {rows[0].n_samples} "
            f"samples takes {step_s:.2f} s; its convolutions take {100 * share:.0f} % of it.\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
