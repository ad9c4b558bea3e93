"""Training on a CUDA device: ``python -m benchmarks.gpu [--processed DIR]``; writes
results_gpu.json beside this file.

Measures records/s through the real loop, the share of the device's peak, host synchronizations in
the step, and with a processed PTB-XL folder the time that the superclass recipe takes to a
validation AUROC.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.measures import TimedBatches, prepare
from src.config import Config, LoaderConfig, TrainConfig, load_config
from src.dataloaders import build_dataloaders
from src.learning.losses import make_loss
from src.learning.optimization import HistoryRow, start_training
from src.model import ResNet1d
from src.processed.runs.log import environment
from src.training import run_training, train_epoch
from src.utils import device_info, save_json, seed_everything, setup_logging

logger = logging.getLogger("benchmarks")

Result = dict[str, Any]

# Dense bf16 tensor-core peaks in TFLOP/s, without sparsity, from NVIDIA's data sheets; the first
# name that fits counts.
PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A40": 150.0,
    "A30": 165.0,
    "A10": 125.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
TARGET_AUROC = 0.930
RECIPE = Path(__file__).parents[1] / "recipes" / "ptbxl_quick.json"


def peak_flops(name: str) -> float | None:
    """Return the bf16 peak of a device in FLOP/s by the name that it reports, None where it is not
    known.
    """
    return next(
        (1e12 * peak for part, peak in PEAK_TFLOPS.items() if re.search(rf"\b{part}\b", name)), None
    )


def flops_per_record(model: torch.nn.Module, n_leads: int, n_samples: int) -> float:
    """Return the floating point operations of a forward and backward pass, two for each
    multiplication and addition.

    Those of convolutions and matrix products are counted, on a device that computes nothing.
    """
    from torch.utils.flop_counter import FlopCounterMode

    n_records = 4
    copy = model.to("meta")
    with FlopCounterMode(display=False) as counter:
        copy(torch.zeros(n_records, n_leads, n_samples, device="meta")).sum().backward()
    return counter.get_total_flops() / n_records


def seconds_to(history: Sequence[HistoryRow], metric: str, target: float) -> float | None:
    """Return the seconds of the epochs up to the first that reaches a target, None where none
    does.
    """
    passed = 0.0
    for row in history:
        passed += float(row["seconds"] or 0)
        if (row[metric] or 0) >= target:
            return passed
    return None


def measure_training(
    processed: Path, crop_s: float, batch_size: int, *, compiled: bool, on_gpu: bool, seconds: float
) -> Result:
    """Run the real training loop in bf16; the cache lies on the GPU, or is read by loader
    processes.
    """
    config = Config(
        loader=LoaderConfig(
            batch_size=batch_size, balanced_sampling=False, loader_workers=0 if on_gpu else 8
        ),
        train=TrainConfig(
            crop_s=crop_s,
            device="cuda",
            target="single",
            compile="on" if compiled else "off",
            ema_decay=0.999,
            mixup=0.2,
        ),
    )
    seed_everything(0)
    loaders = build_dataloaders(config, processed)
    model = ResNet1d(12, len(loaders.classes)).to("cuda")
    state = start_training(model, len(loaders.train), config.train, amp=torch.bfloat16)
    loss_fn = make_loss(single_label=True)

    def epoch(batches: Any) -> None:
        train_epoch(state, batches, loss_fn, config.train, device="cuda", amp=torch.bfloat16)
        torch.cuda.synchronize()

    epoch(loaders.train)  # compiles and warms up
    epoch(loaders.train)
    n_syncs, n_steps = (
        count_syncs(
            lambda: train_epoch(
                state,
                islice(loaders.train, 8),
                loss_fn,
                config.train,
                device="cuda",
                amp=torch.bfloat16,
            )
        ),
        8,
    )
    torch.cuda.reset_peak_memory_stats()
    batches, start = TimedBatches(loaders.train, seconds), time.perf_counter()
    epoch(batches)
    taken, n_samples = time.perf_counter() - start, batches.n_samples
    rate, flops, peak = (
        batches.n_records / taken,
        flops_per_record(ResNet1d(12, len(loaders.classes)), 12, n_samples),
        peak_flops(torch.cuda.get_device_name()),
    )
    return {
        "n_samples": n_samples,
        "batch_size": batch_size,
        "compiled": compiled,
        "cache_on_gpu": on_gpu,
        "records_per_s": rate,
        "gflop_per_record": flops / 1e9,
        "share_of_peak": rate * flops / peak if peak else None,
        "waiting_share": batches.waited / taken,
        # the epoch's loss is fetched once at its end
        "host_syncs_per_step": max(0, n_syncs - 1) / n_steps,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def count_syncs(call: Any) -> int:
    """Return how often a call makes the host wait for the device, as torch warns of it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def measure_recipe(processed: Path, out: Path) -> Result:
    """Train the superclass recipe and tell when it reached the target on the validation fold."""
    config = load_config(RECIPE)
    config = replace(config, train=replace(config.train, device="cuda", amp="bf16"))
    start = time.perf_counter()
    result = run_training(config, processed, out)
    return {
        "target_auroc": TARGET_AUROC,
        "seconds_to_target": seconds_to(result.history, "val_auroc_macro", TARGET_AUROC),
        "seconds_in_all": time.perf_counter() - start,
        "best_epoch": result.best_epoch,
        "best": result.best_metric,
        "history": result.history,
    }


def measure_all(processed: Path | None, data: Path | None, quick: bool) -> Result:
    """Measure everything on the current device."""
    results: Result = {
        "environment": environment(),
        "device": vars(device_info("cuda")),
        "training": [],
    }
    n_records, seconds = (512, 2.0) if quick else (8192, 15.0)
    for n_samples, crop_s, batch_size in ((1000, 2.5, 1024), (1000, 0.0, 512), (5000, 0.0, 128)):
        with TemporaryDirectory() as folder:
            made = prepare(Path(folder), data, n_records, n_samples)
            for compiled, on_gpu in product((False, True), (False, True)):
                run = measure_training(
                    made,
                    crop_s,
                    min(batch_size, n_records // 4),
                    compiled=compiled,
                    on_gpu=on_gpu,
                    seconds=seconds,
                )
                logger.info(
                    "%s",
                    {
                        name: round(value, 4) if isinstance(value, float) else value
                        for name, value in run.items()
                    },
                )
                results["training"].append(run)
    if processed is not None:
        with TemporaryDirectory() as folder:
            results["recipe"] = measure_recipe(processed, Path(folder))
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options and measure; returns 1 where there is no CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--processed",
        type=Path,
        help="PTB-XL, superclass+all, at 100 Hz, for the time of the recipe (default: not "
        "measured)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of real WFDB records of 12 leads (default: generated ones)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few records, for a look (default: off)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("results_gpu.json"),
        help="default: benchmarks/results_gpu.json",
    )
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.stderr.write("error: no CUDA device here: run make bench-gpu on a machine with one\n")
        return 1
    setup_logging()
    results = measure_all(args.processed, args.data, args.quick)
    save_json(results, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
