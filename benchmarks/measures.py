"""What is measured: each function returns medians and ratios of things timed in the same run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from benchmarks import plain
from benchmarks.plain import read_plain
from benchmarks.records import make_collection
from src.config import Config, LoaderConfig, PreprocessConfig, TrainConfig

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[1]
Result = dict[str, Any]
_TURNS = 8  # of two networks that are trained in turn


def spread(values: list[float]) -> Result:
    """Return median, least and most of some figures."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def time_call(call: Callable[[], object], repeats: int) -> list[float]:
    """Return the seconds of each of `repeats` calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


# Preprocessing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds, seconds of processor time, and the peak memory in MB of the
    largest of its processes.
    """

    seconds: float
    cpu_s: float
    peak_mb: float


def run_command(*arguments: str) -> Usage:
    """Run a Python module as a user would, the start of the interpreter included."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    with process.stderr as stream:
        said = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with {process.returncode}: "
            f"{said.decode(errors='replace')[-2000:]}"
        )
    peak_mb = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return Usage(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak_mb)


def measure_preprocessing(
    data: Path | None, n_records: int, source_fs: float, workers: int, repeats: int, scratch: Path
) -> Result:
    """Compare the default command line with the plain recipe: records/s of both, their ratio, and
    bytes per record.

    What is written in `scratch` stays there, with record files emptied: ext4 makes a file more
    slowly, by up to the time of a whole record, while thousands were removed in the minutes before,
    and that would count against who comes next.
    """
    ours, theirs, ratios, cpu_ratios, used, sizes = [], [], [], [], [], [0.0, 0.0]
    folder = Path(mkdtemp(dir=scratch))
    n_plain = max(
        80, n_records // 8
    )  # the plain recipe is slow, and its rate does not depend on the count
    make_collection(folder / "source", n_records, source_fs, data)
    make_collection(folder / "few", n_plain, source_fs, data)
    for repeat in range(repeats):
        out, plain_out = folder / f"ours{repeat}", folder / f"plain{repeat}"
        usage = run_command(
            "src",
            "preprocess",
            "--data",
            f"bench={folder / 'source'}",
            "--out",
            str(out),
            "--workers",
            str(workers),
        )
        used.append(usage)
        ours.append(n_records / usage.seconds)
        answer = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.plain",
                str(folder / "few"),
                str(plain_out),
                str(workers),
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        said = json.loads(answer.stdout)
        theirs.append(said["records_per_s"])
        ratios.append(ours[-1] / theirs[-1])
        cpu_ratios.append(said["cpu_ms_per_record"] / (1e3 * usage.cpu_s / n_records))
        error = largest_difference(folder / "few", out)
        sizes = [_empty(out) / n_records, _empty(plain_out) / n_plain]
    return {
        "source_fs": source_fs,
        "workers": workers,
        "n_records": n_records,
        "records_per_s": spread(ours),
        "plain_records_per_s": spread(theirs),
        "ratio": spread(ratios),
        "bytes_per_record": sizes[0],
        "bytes_ratio": sizes[0] / sizes[1],
        "largest_difference": error,
        "cpu_ratio": spread(cpu_ratios),
        "cpu_ms_per_record": spread([1e3 * usage.cpu_s / n_records for usage in used]),
        "peak_memory_mb": max(usage.peak_mb for usage in used),
    }


def _empty(folder: Path) -> int:
    """Empty the record files below a folder; returns how many bytes they had."""
    files = list(folder.rglob("*.npz"))
    n_bytes = sum(file.stat().st_size for file in files)
    for file in files:
        os.truncate(file, 0)
    return n_bytes


def largest_difference(source: Path, processed: Path) -> float:
    """Return the largest difference of any sample between our record files and the plain recipe's
    signals.
    """
    from src.processed.manifest import load_manifest
    from src.processed.record_files import load_record_file, record_keys, record_path

    rows = load_manifest(processed).head(20)
    worst = 0.0
    for key, path in zip(record_keys(rows), rows["source_path"], strict=True):
        header = Path(path)
        twin = source / header.parent.name / header.name
        if twin.exists():
            ours = load_record_file(record_path(processed, key))["signal"]
            worst = max(
                worst,
                float(np.abs(ours - read_plain(str(twin.with_suffix("")), 500.0, 5000)).max()),
            )
    return worst


def measure_floor(data: Path | None, n_records: int) -> Result:
    """Return what copying and deflating the bytes alone costs per record: zlib's level 6, zlib's
    level 1 and ISA-L.
    """
    from isal import isal_zlib

    with TemporaryDirectory() as temporary:
        header = make_collection(Path(temporary), 1, 500.0, data)[0]
        content = read_plain(str(header.with_suffix("")), 500.0, 5000).tobytes()
    calls = {
        "copy": lambda: bytearray(content),
        "zlib_6": lambda: zlib.compress(content, 6),
        "zlib_1": lambda: zlib.compress(content, 1),
        "isal_1": lambda: isal_zlib.compress(content, 1),
    }
    return {
        name: {"ms": 1e3 * statistics.median(time_call(call, n_records))}
        for name, call in calls.items()
    }


def measure_start(repeats: int) -> Result:
    """Return the seconds that the command takes for a single record, which is what its start costs,
    and those of its imports.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_collection(folder / "source", 1, 500.0)
        runs = [
            run_command(
                "src",
                "preprocess",
                "--data",
                f"bench={folder / 'source'}",
                "--out",
                str(folder / f"o{i}"),
                "--workers",
                "1",
            ).seconds
            for i in range(repeats)
        ]
    code = "import src.preprocessing, pandas"
    imports = time_call(
        lambda: subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True), repeats
    )
    return {"one_record_s": spread(runs), "imports_s": spread(imports)}


@contextmanager
def timed(**steps: tuple[Any, str]) -> Iterator[dict[str, float]]:
    """Yield the seconds spent in each step, a module and the name of a function in it, summed over
    its calls.
    """
    seconds = dict.fromkeys(steps, 0.0)

    def wrap(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                seconds[step] += time.perf_counter() - start

        return call

    with ExitStack() as stack:
        for step, (module, name) in steps.items():
            stack.enter_context(patch.object(module, name, wrap(step, getattr(module, name))))
        yield seconds


def measure_profile(
    data: Path | None, n_records: int, source_fs: float, repeats: int, scratch: Path
) -> Result:
    """Return where the time of a record goes in one process, in microseconds: of ours and of the
    plain recipe's; the least of some runs.

    Steps are inside one another where they say so; what is not named is what is left of `together`.
    """
    from src import preprocessing
    from src.processed import npz
    from src.processed.runs import chunks
    from src.processed.runs.pool import run_chunks
    from src.records import reading

    ours = {
        "row": (chunks, "blank_row"),
        "header": (chunks, "find_record_start"),
        "samples": (reading.RecordStart, "read"),
        "quality": (preprocessing, "measure_quality"),
        "flags": (preprocessing, "quality_flags"),
        "fingerprint": (preprocessing, "compute_fingerprints"),
        "resample": (preprocessing, "resample"),
        "standardize": (preprocessing, "standardize"),
        "archive_and_file": (chunks, "save_record_files"),
        "deflate_in_it": (npz.isal_zlib, "compress"),
    }
    theirs = {
        "read": (plain.wfdb, "rdrecord"),
        "resample": (plain, "resample_poly"),
        "archive_and_file": (plain.np, "savez_compressed"),
    }
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    folder = Path(mkdtemp(dir=scratch))
    headers = make_collection(folder / "source", n_records, source_fs, data)
    tasks = [
        chunks.RecordTask("bench", f"{header.parent.name}-{header.stem}", str(header))
        for header in headers
    ]
    for repeat in range(repeats):
        processed = folder / f"ours{repeat}"
        (processed / "records").mkdir(parents=True)
        work = partial(
            chunks.process_chunk,
            processed=processed,
            config=PreprocessConfig(),
            build=preprocessing.build_tensors,
            on_error="record",
        )
        with timed(**ours) as seconds:
            (together,) = time_call(
                lambda work=work: list(run_chunks(work, iter([tasks]), None, 1)), 1
            )
        runs["ours"].append(
            {
                name: 1e6 * value / n_records
                for name, value in {**seconds, "together": together}.items()
            }
        )
        few = headers[: max(8, n_records // 8)]
        with timed(**theirs) as seconds:
            (together,) = time_call(
                lambda few=few, out=folder / f"plain{repeat}": plain.run_plain(
                    few, out, 500.0, 5000, 1
                ),
                1,
            )
        runs["plain"].append(
            {
                name: 1e6 * value / len(few)
                for name, value in {**seconds, "together": together}.items()
            }
        )
    least = {
        who: {name: min(run[name] for run in made) for name in made[0]}
        for who, made in runs.items()
    }
    return {"source_fs": source_fs, "n_records": n_records, **least}


# Loading, training, inference ---------------------------------------------------------------------


def prepare(folder: Path, data: Path | None, n_records: int, n_samples: int) -> Path:
    """Process a collection with two labels and return the folder; `n_samples` cover 10 s."""
    headers = make_collection(folder / "source", n_records, 500.0, data)
    lines = ["dataset,record_id,mapped_label,fold"]
    lines += [
        f"bench,{header.parent.name}/{header.stem},{'AB'[number % 2]},1"
        for number, header in enumerate(headers)
    ]
    (folder / "mapping.csv").write_text("\n".join(lines) + "\n")
    run_command(
        "src",
        "preprocess",
        "--mapping",
        str(folder / "mapping.csv"),
        "--data",
        f"bench={folder / 'source'}",
        "--out",
        str(folder / "processed"),
        "--fs",
        str(n_samples / 10),
        "--n-samples",
        str(n_samples),
    )
    return folder / "processed"


def measure_loading(processed: Path, n_reads: int) -> Result:
    """Compare random reads of whole records: from record files, from the packed cache, and a 2.5 s
    crop of it.
    """
    from src.processed.packed import load_packed
    from src.processed.record_files import load_signal, record_path

    packed = load_packed(processed, "train")
    rows = np.random.default_rng(0).integers(0, len(packed), n_reads).tolist()
    size = packed.codes.shape[2] // 4
    calls = {
        "npz": lambda row: load_signal(record_path(processed, packed.keys[row])),
        "packed": lambda row: packed.read_codes([row]),
        "packed_scaled": packed.read,
        "packed_crop": lambda row: packed.read_codes([row], [size], size),
    }
    result: Result = {}
    for name, call in calls.items():
        for row in rows[:50]:
            call(row)
        result[name] = {
            "ms": 1e3
            * statistics.median(
                [time_call(lambda row=row, call=call: call(row), 1)[0] for row in rows]
            )
        }
    return result | {
        "ratio": result["npz"]["ms"] / result["packed"]["ms"],
        "ratio_scaled": result["npz"]["ms"] / result["packed_scaled"]["ms"],
    }


def measure_training(processed: Path, crop_s: float, seconds: float) -> Result:
    """Run the real training loop over the loader; returns records/s and the share of time spent
    waiting for batches.

    A network of others is trained by the same loop in turn with ours, since what a machine does
    changes within minutes.
    """
    from benchmarks.peers import XResNet1d101
    from src.dataloaders import build_dataloaders
    from src.learning.losses import make_loss
    from src.learning.optimization import start_training
    from src.model import ResNet1d
    from src.training import train_epoch

    config = Config(
        loader=LoaderConfig(batch_size=64, balanced_sampling=False),
        train=TrainConfig(crop_s=crop_s, device="cpu", target="single"),
    )
    loaders = build_dataloaders(config, processed)
    networks: dict[str, Any] = {
        "ours": ResNet1d(12, len(loaders.classes)),
        "xresnet1d101": XResNet1d101(12, len(loaders.classes)),
    }
    states = {
        name: start_training(network, len(loaders.train), config.train)
        for name, network in networks.items()
    }
    loss_fn = make_loss(single_label=True)
    runs: dict[str, list[TimedBatches]] = {name: [] for name in states}
    for turn in range(1 + _TURNS):
        for name, state in states.items():
            batches = TimedBatches(loaders.train, seconds / _TURNS if turn else 0.0)
            train_epoch(state, batches, loss_fn, config.train)
            runs[name] += [batches] if turn else []  # the first step warms up
    ours, theirs = (
        [batches.n_records / batches.seconds for batches in made] for made in runs.values()
    )
    return {
        "n_samples": batches.n_samples,
        "records_per_s": spread(ours),
        "xresnet1d101_records_per_s": spread(theirs),
        "ratio": spread([a / b for a, b in zip(ours, theirs, strict=True)]),
        "waiting_share": sum(batches.waited for batches in runs["ours"])
        / sum(batches.seconds for batches in runs["ours"]),
    }


class TimedBatches:
    """Gives batches for some seconds, one at least, and notes how many records of how many samples,
    and how long was waited for them.
    """

    def __init__(self, loader: Any, seconds: float) -> None:
        self.loader, self.limit = loader, seconds
        self.seconds = self.waited = 0.0
        self.n_records = self.n_samples = 0

    def __iter__(self) -> Iterator[Any]:
        start = asked = time.perf_counter()
        while not self.n_records or self.seconds < self.limit:
            for batch in self.loader:
                self.waited += time.perf_counter() - asked
                yield batch
                asked = time.perf_counter()
                self.seconds = asked - start
                self.n_records += len(batch.signal)
                self.n_samples = batch.signal.shape[-1]
                if self.seconds >= self.limit:
                    return


def measure_inference(data: Path | None, n_records: int) -> Result:
    """Return records/s from WFDB files of 12 x 5000 samples to probabilities, reading included, on
    one thread: of the pretrained network, and of the plain recipe with xresnet1d101, in turn.
    """
    import torch

    from benchmarks.peers import XResNet1d101
    from src.classifier.classifier import Classifier

    torch.set_num_threads(1)
    ours_network = Classifier.load(
        ROOT / "artifacts" / "pretrained" / "superclass.pth", device="cpu"
    )
    theirs = XResNet1d101(n_leads=12, n_classes=5).eval()
    ours_s, theirs_s = [], []
    with TemporaryDirectory() as temporary:
        headers = make_collection(Path(temporary) / "source", n_records, 500.0, data)
        few = headers[: max(16, n_records // 4)]  # the plain recipe is slow
        list(ours_network.predict_many(few))
        for _ in range(3):
            ours_s += time_call(lambda: list(ours_network.predict_many(headers)), 1)
            theirs_s += time_call(lambda: predict_plain(few, theirs), 1)
    ours = [n_records / seconds for seconds in ours_s]
    plain_rates = [len(few) / seconds for seconds in theirs_s]
    return {
        "records_per_s_per_core": statistics.median(ours),
        "plain_records_per_s": statistics.median(plain_rates),
        "ratio": spread([a / b for a, b in zip(ours, plain_rates, strict=True)]),
    }


def predict_plain(headers: Sequence[Path], model: torch.nn.Module) -> torch.Tensor:
    """Return probabilities (n_records, n_classes) as published for xresnet1d101: the mean over
    windows of 2.5 s every 1.25 s at 100 Hz.
    """
    import torch

    probabilities = []
    with torch.inference_mode():
        for start in range(0, len(headers), 64):
            stems = [str(header.with_suffix("")) for header in headers[start : start + 64]]
            signals = [torch.from_numpy(read_plain(stem, 100.0, 1000)) for stem in stems]
            windows = torch.stack(signals).unfold(2, 250, 125)  # (B, n_leads, 7, 250)
            logits = model(windows.transpose(1, 2).flatten(0, 1))
            probabilities.append(logits.sigmoid().view(len(stems), 7, -1).mean(dim=1))
    return torch.cat(probabilities)
