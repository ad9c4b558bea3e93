"""Run the benchmarks: ``python -m benchmarks [--data DIR] [--quick]``; writes results.json and
speed.png beside this file.
"""

from __future__ import annotations

import argparse
import compileall
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measures import (
    measure_floor,
    measure_inference,
    measure_loading,
    measure_preprocessing,
    measure_profile,
    measure_start,
    measure_training,
    prepare,
)
from src.processed.runs.log import environment
from src.utils import load_json, save_json, setup_logging

logger = logging.getLogger("benchmarks")

HERE = Path(__file__).parent
RATES = (500.0, 1000.0, 257.0)
SECTIONS = ("floor", "preprocessing", "profile", "training", "inference")


def measure_all(
    data: Path | None,
    quick: bool,
    scratch: Path,
    sections: Sequence[str] = (),
    n_records: int = 5000,
) -> dict[str, Any]:
    """Measure everything, or the named sections, with `scratch` to write to; `quick` takes few
    records, for a look and for the tests.
    """
    n_records, repeats, seconds = (200, 1, 1.0) if quick else (n_records, 5, 24.0)
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "floor": lambda: {
            "floor_ms_per_record": measure_floor(data, 20 if quick else 100),
            "start": measure_start(repeats),
        },
        "preprocessing": lambda: _preprocessing(data, n_records, repeats, scratch),
        "profile": lambda: {
            "profile": [
                measure_profile(data, 64 if quick else 512, rate, 2 * repeats, scratch)
                for rate in RATES
            ]
        },
        "training": lambda: _training(data, quick, seconds),
        "inference": lambda: {"inference": measure_inference(data, 64 if quick else 512)},
    }
    where = {**environment(), "source": "real records" if data else "generated records"}
    results: dict[str, Any] = {
        "environment": {}
    }  # of each section, since they may be measured apart
    for name in sections or measures:
        results |= measures[name]()
        results["environment"][name] = where
    return results


def _preprocessing(
    data: Path | None, n_records: int, repeats: int, scratch: Path
) -> dict[str, Any]:
    runs = []
    for rate in RATES:
        for workers in (1, 2):
            logger.info("preprocessing from %g Hz with %d workers", rate, workers)
            runs.append(measure_preprocessing(data, n_records, rate, workers, repeats, scratch))
    speed = {(run["source_fs"], run["workers"]): run["records_per_s"]["median"] for run in runs}
    return {
        "preprocessing": runs,
        "two_workers_over_one": {f"{rate:g}": speed[rate, 2] / speed[rate, 1] for rate in RATES},
    }


def _training(data: Path | None, quick: bool, seconds: float) -> dict[str, Any]:
    results: dict[str, Any] = {"training": []}
    for n_samples, crop_s in ((1000, 2.5), (1000, 0.0), (5000, 0.0)):
        with TemporaryDirectory() as folder:
            processed = prepare(Path(folder), data, 128 if quick else 1024, n_samples)
            if n_samples == 5000:
                results["loading"] = measure_loading(processed, 50 if quick else 500)
            logger.info("training on %d samples, crops of %g s", n_samples, crop_s)
            results["training"].append(measure_training(processed, crop_s, seconds))
    return results


def plot_ratios(results: dict[str, Any], path: Path) -> None:
    """Draw the ratios to the plain recipe with their range over the repeats."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    runs = results["preprocessing"]
    names = [
        f"{run['source_fs']:g} Hz\n{run['workers']} worker{'s' * (run['workers'] > 1)}"
        for run in runs
    ]
    medians = [run["ratio"]["median"] for run in runs]
    errors = [
        [m - run["ratio"]["min"] for m, run in zip(medians, runs, strict=True)],
        [run["ratio"]["max"] - m for m, run in zip(medians, runs, strict=True)],
    ]
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    bars = axes.bar(names, medians, yerr=errors, color="#0072B2", capsize=4)
    axes.bar_label(bars, [f"{m:.1f}" for m in medians], padding=4)
    axes.margins(y=0.15)  # room for the numbers
    axes.axhline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set(ylabel="times the plain recipe", title="Preprocessing, 12 leads x 10 s to 500 Hz")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of real WFDB records of 12 leads (default: generated ones)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few records, for a look (default: off)"
    )
    parser.add_argument(
        "--records",
        type=int,
        default=5000,
        help="records to preprocess in each run (default: 5000)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=(),
        metavar="SECTION",
        help=f"some of {', '.join(SECTIONS)}; the rest of results.json stays (default: all)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE,
        help="where results.json and speed.png go (default: benchmarks/)",
    )
    args = parser.parse_args()
    setup_logging()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    compileall.compile_dir(
        HERE.parent / "src", quiet=2
    )  # as Python does by itself, unless the environment forbids it
    with TemporaryDirectory() as scratch:
        results = measure_all(args.data, args.quick, Path(scratch), args.only, args.records)
    path = args.out / "results.json"
    if args.only and path.exists():
        earlier = load_json(path)
        results = (
            earlier | results | {"environment": earlier["environment"] | results["environment"]}
        )
    save_json(results, path)
    if "preprocessing" in results:
        plot_ratios(results, args.out / "speed.png")
    _report(results)


def _report(results: dict[str, Any]) -> None:
    for run in results.get("preprocessing", ()):
        logger.info(
            "from %g Hz, %d workers: %.1f times the plain recipe, %.1f in processor time",
            run["source_fs"],
            run["workers"],
            run["ratio"]["median"],
            run["cpu_ratio"]["median"],
        )
    logger.info(
        "two workers over one: %s",
        ", ".join(
            f"{ratio:.2f} from {rate} Hz"
            for rate, ratio in results.get("two_workers_over_one", {}).items()
        ),
    )
    if "loading" in results:
        logger.info("packed cache: %.0f times the record files", results["loading"]["ratio"])
    for run in results.get("training", ()):
        logger.info(
            "training on %d samples: %.0f records/s, %.1f times xresnet1d101, %.1f %% waiting",
            run["n_samples"],
            run["records_per_s"]["median"],
            run["ratio"]["median"],
            100 * run["waiting_share"],
        )
    if "inference" in results:
        logger.info(
            "files to probabilities: %.0f records/s on one thread, %.1f times the plain recipe",
            results["inference"]["records_per_s_per_core"],
            results["inference"]["ratio"]["median"],
        )


if __name__ == "__main__":
    main()
