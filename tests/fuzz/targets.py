"""What is fuzzed: how an input is made from the seeds, and what must come of it."""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from src.config import (
    DataConfig,
    ExecutionConfig,
    ModelConfig,
    PreprocessConfig,
    load_config,
    save_config,
)
from src.labels.ids import id_key
from src.labels.mapping import LabelRow, iter_rows, load_mapping
from src.learning.checkpoints import ModelCard, load_checkpoint, save_checkpoint
from src.learning.features import Features
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.run_files import load_metrics, load_training_log
from src.learning.score_files import load_scores
from src.model import build_model, load_model
from src.preprocessing import build_tensor, run_preprocessing
from src.processed.manifest import Journal, load_manifest, load_preprocess_config
from src.processed.packed import load_packed
from src.processed.record_files import load_record_file
from src.processed.runs.tasks import RejectedError
from src.processed.splits import load_splits
from src.records.folders import index_folder
from src.records.reading import find_start, iter_records, list_records, read_with_hints
from src.records.record import NO_HINTS, ECGRecord, ReadingHints, RecordError
from src.utils import save_json

from . import hostile
from .mutate import (
    mutate_bytes,
    mutate_mat,
    mutate_text,
    mutate_zip,
    repeat_column,
    replace_value,
)
from .oracle import WrongError, check_error, check_valid, expected_remarks, require
from .seeds import SUFFIXES, Seed, record_seeds
from .tables import ANNOTATIONS, TABLE_LOADERS, TABLES, use_annotations, use_scores

SMALL = PreprocessConfig(fs=100.0, n_samples=250)
HINTS = ReadingHints(500.0, 1000.0)
READ, REFUSED = "read", "refused"


@dataclass(frozen=True)
class Target:
    """`make` writes an input into a folder and returns the file in question; `check` reads it and
    judges what comes back.
    """

    make: Callable[[random.Random, Path], Path]
    check: Callable[[random.Random, Path], str]
    weight: int = 1


# Recordings ---------------------------------------------------------------------------------------


@cache
def seeds_of(prefix: str) -> list[Seed]:
    return [seed for seed in record_seeds() if seed.entry.endswith(prefix)]


def record_target(suffix: str, weight: int) -> Target:
    return Target(lambda rng, folder: make_record(rng, folder, suffix), check_record, weight)


def make_record(rng: random.Random, folder: Path, suffix: str) -> Path:
    """Write a record of which one file is changed, or all of them."""
    seed, other = rng.choice(seeds_of(suffix)), rng.choice(seeds_of(suffix))
    changed = rng.choice(
        [{seed.entry}, {seed.entry}, {rng.choice(list(seed.files))}, set(seed.files)]
    )
    for name, raw in seed.files.items():
        if name in changed:
            raw = mutate_file(rng, name, raw, rng.choice(list(other.files.values())))
        (folder / name).write_bytes(raw)
    return folder / seed.entry


def mutate_file(rng: random.Random, name: str, raw: bytes, other: bytes) -> bytes:
    is_text = name.endswith((".hea", ".xml", ".csv", ".tsv", ".txt", ".asc"))
    if is_text and rng.random() < 0.85:
        return mutate_text(rng, raw.decode("latin-1")).encode(
            rng.choice(("latin-1", "utf-8")), "surrogatepass" if rng.random() < 0 else "replace"
        )
    if name.endswith(".mat") and raw[:6] == b"MATLAB" and rng.random() < 0.5:
        return mutate_mat(rng, raw)
    if name.endswith(".npz") and rng.random() < 0.5:
        return mutate_zip(rng, raw)
    return mutate_bytes(rng, raw, other)


def read_in_one_way(path: Path, way: str, hints: ReadingHints = HINTS) -> list[ECGRecord]:
    """Read the first records of a file whole, or the start or the first windows of one."""
    index_folder(path.parent)
    names = list_records(path)
    if way == "whole":
        return [read_with_hints(name, hints) for name in names[:3]]
    if way == "start":
        return [find_start(names[0], 0.3, hints).read()[0]]
    windows = iter_records(
        path,
        window_s=0.2,
        source_fs=hints.fs,
        source_gain_per_mv=hints.gain_per_mv,
    )
    return [window for window, _ in zip(windows, range(5), strict=False)]


def check_record(rng: random.Random, path: Path) -> str:
    """Read whole, its beginning or its windows; a record that comes back must serve the rest of the
    pipeline.
    """
    hints = rng.choice((NO_HINTS, HINTS))
    way = rng.choice(("whole", "whole", "start", "windows"))
    try:
        records = read_in_one_way(path, way, hints)
    except RecordError as error:
        check_error(error, path)
        return REFUSED
    for record in records:
        check_valid(record)
        try:
            tensor = build_tensor(record, SMALL)
        except RejectedError:
            continue
        require(np.isfinite(tensor.arrays["signal"]).all(), "a tensor that is not finite")
    if path.suffix == ".hea" and way == "whole" and (remarks := expected_remarks(path)) is not None:
        flags = {flag for flag in records[0].flags if "mismatch" in flag}
        require(flags == remarks, f"flags {sorted(flags)}, expected {sorted(remarks)}")
    return READ


def make_hostile(rng: random.Random, folder: Path) -> Path:
    return rng.choice(list(hostile.RECORDS.values()))(folder)


def check_hostile(rng: random.Random, path: Path) -> str:
    """Every one of these must be refused, whichever way it is read, but for what is merely slow."""
    (path.parent.parent / "secret.dat").unlink(missing_ok=True) if not (
        path.parent / "r.dat"
    ).is_symlink() else None
    outcome = check_record(rng, path)
    require(outcome == REFUSED or path.stat().st_size > 10**6, "was read")
    return outcome


# Our own files ------------------------------------------------------------------------------------


@cache
def own_files() -> dict[str, bytes]:
    """Return the files of a tiny processed folder and a checkpoint, by their paths."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "src").mkdir()
        for i in range(6):
            for file, raw in seeds_of(".hea")[0].files.items():
                renamed = file.replace("r.", f"r{i}.")
                (root / "src" / renamed).write_bytes(
                    raw.replace(b"r.dat", b"r%d.dat" % i).replace(b"r 12", b"r%d 12" % i)
                )
        (root / "m.csv").write_text(
            "dataset,record_id,mapped_label\n"
            + "".join(f"d,r{i},{'AB'[i % 2]}\n" for i in range(6))
        )
        run_preprocessing(
            DataConfig({"d": str(root / "src")}),
            root,
            mapping=root / "m.csv",
            config=SMALL,
            execution=ExecutionConfig(workers=1),
        )
        load_packed(root, "train")
        card = ModelCard(("A", "B"), True, ModelConfig(base_channels=4), SMALL)
        save_checkpoint(root / "c.pth", card, build_model(card).state_dict(), {"epoch": 1})
        use_checkpoint(
            root / "c.pth"
        )  # torch loads much of itself late, which an alarm would leave half done
        scores = np.full((4, 2), 0.5)
        Predictions(("a", "b", "c", "d"), np.eye(4, 2, dtype=np.float32), scores, ("A", "B")).save(
            root / "predictions_test.npz"
        )
        values = np.ones((2, 3), np.float32)
        Features(("a", "b"), ("train", "test"), values, values, ("ab",)).save(root / "features.npz")
        save_config(build_small_config(), root / "config.json")
        save_run_files(root, Predictions.load(root / "predictions_test.npz"))
        kept = [
            path
            for path in root.rglob("*")
            if path.is_file() and "src" not in path.parts and path.name != "m.csv"
        ]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in kept}


def save_run_files(root: Path, predictions: Predictions) -> None:
    """Write what training and evaluation leave, and a state to resume from."""
    row = {"epoch": 1, "train_loss": 0.5, "val_loss": None, "val_f1_macro": 0.5, "lr": 1e-3}
    row |= {"val_auroc_macro": None, "seconds": 1.0}
    config = {"train": {"epochs": 1, "classes": ["A", "B"]}}
    best = {"best_epoch": 1, "best_metric": 0.5, "best_metric_name": "val_f1_macro"}
    save_json({"history": [row], "config": config, **best}, root / "training_log.json")
    metrics = {**compute_metrics(predictions), "split": "test", "checkpoint": "best.pth"}
    save_json(metrics, root / "metrics_test.json")


def build_small_config() -> object:
    from src.config import Config

    return Config(preprocess=SMALL)


def _own(pattern: str) -> list[str]:
    return sorted(name for name in own_files() if Path(name).match(pattern))


def file_target(
    name: str, mutate: Callable[[random.Random, bytes], bytes], weight: int = 1
) -> Target:
    """A file of ours alone in a folder of its kind."""

    def make(rng: random.Random, folder: Path) -> Path:
        chosen = rng.choice(_own(PATTERNS[name]))
        path = folder / Path(chosen).name
        path.write_bytes(mutate(rng, own_files()[chosen]))
        return path

    return Target(make, check_loader(LOADERS[name]), weight)


def check_loader(load: Callable[[Path], object]) -> Callable[[random.Random, Path], str]:
    """Return a check that a file gives a value, or a ValueError that names it."""

    def check(rng: random.Random, path: Path) -> str:
        try:
            load(path)
        except ValueError as error:
            check_error(error, path)
            return REFUSED
        return READ

    return check


def file_target_of(archives: dict[str, Callable[[], bytes]]) -> Target:
    """Archives made to do harm, as record files and as predictions."""

    def make(rng: random.Random, folder: Path) -> Path:
        (folder / "a.npz").write_bytes(rng.choice(list(archives.values()))())
        return folder / "a.npz"

    def check(rng: random.Random, path: Path) -> str:
        try:
            rng.choice((load_record_file, Predictions.load, use_scores))(path)
        except ValueError as error:
            check_error(error, path)
            return REFUSED
        raise WrongError("was read")

    return Target(make, check, 1)


def mutate_archive(rng: random.Random, raw: bytes) -> bytes:
    return mutate_zip(rng, raw) if rng.random() < 0.7 else mutate_bytes(rng, raw)


def mutate_json(rng: random.Random, raw: bytes) -> bytes:
    text = mutate_text(rng, raw.decode())[: 10**6]
    return text.encode("utf-8", "surrogatepass" if rng.random() < 0.2 else "replace")


def mutate_csv(rng: random.Random, raw: bytes) -> bytes:
    if rng.random() < 0.1:
        return repeat_column(rng, raw.decode()).encode()
    return mutate_json(rng, raw)


def edit_json(rng: random.Random, raw: bytes) -> bytes:
    """Change the text, or one value of it to one of another kind."""
    return replace_value(rng, raw) if rng.random() < 0.5 else mutate_json(rng, raw)


def use_record_file(path: Path) -> None:
    from src.processed.record_files import to_millivolts

    arrays = load_record_file(
        path, "signal", "lead_mean", "lead_std", "lead_present", "n_valid", "fs"
    )
    to_millivolts(arrays)


def use_predictions(path: Path) -> None:
    """Read predictions of ours as such, and as probabilities of any program."""
    Predictions.load(path)
    load_scores(path, ("A", "B"))


def use_checkpoint(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    model = load_model(checkpoint)
    with torch.inference_mode():
        model(
            torch.zeros(
                1, len(checkpoint.card.leads), min(checkpoint.card.preprocess.n_samples, 1000)
            )
        )


def make_card(rng: random.Random, folder: Path) -> Path:
    """Write a checkpoint that torch opens and whose card or weights are hostile."""
    content = torch.load(io.BytesIO(own_files()["c.pth"]), weights_only=True)
    card, weights = content["card"], content["weights"]
    values = (
        0,
        -1,
        10**6,
        10**12,
        1e308,
        float("nan"),
        None,
        "x",
        [],
        {},
        True,
        ["I"] * 100,
        "\x00",
        list(range(10**4)),
    )
    what = rng.choice(("card", "nested", "weights", "shape", "format", "state", "key"))
    if what == "card":
        card[rng.choice(list(card))] = rng.choice(values)
    elif what == "nested":
        section = card[rng.choice(("model", "preprocess", "normalization"))]
        section[rng.choice(list(section))] = rng.choice(values)
    elif what in ("weights", "shape"):
        name = rng.choice(list(weights))
        shapes = (
            torch.zeros(()),
            torch.zeros(0),
            torch.zeros(1).expand(10**4, 10**4),
            torch.full_like(weights[name], float("nan"), dtype=torch.float32),
            torch.zeros(3, dtype=torch.complex64),
            "x",
            None,
        )
        weights[name] = rng.choice(shapes)
    elif what == "key":
        weights["extra"] = weights.pop(rng.choice(list(weights)))
    else:
        content[what] = rng.choice(values)
    torch.save(content, folder / "c.pth")
    return folder / "c.pth"


def check_checkpoint(rng: random.Random, path: Path) -> str:
    try:
        use_checkpoint(path)
    except ValueError as error:
        check_error(error, path)
        return REFUSED
    return READ


def make_packed(rng: random.Random, folder: Path) -> Path:
    """Write a processed folder whose cache is damaged, which is then built anew from the record
    files.
    """
    for name, raw in own_files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(raw)
    damaged = rng.choice(_own("packed/*.np?"))
    raw = own_files()[damaged]
    (folder / damaged).write_bytes(
        mutate_archive(rng, raw) if damaged.endswith("z") else mutate_bytes(rng, raw)
    )
    return folder / damaged


def check_packed(rng: random.Random, path: Path) -> str:
    folder = path.parent.parent
    try:
        packed = load_packed(folder, "train")
        n_leads = packed.codes.shape[1]
        require(
            packed.scale.shape == packed.lead_mean.shape == (len(packed), n_leads),
            f"scale {packed.scale.shape}",
        )
        require(
            packed.n_valid.shape == (len(packed),)
            and (packed.n_valid <= packed.codes.shape[2]).all(),
            "n_valid",
        )
        require(
            all(np.isfinite(packed.read(row)).all() for row in range(len(packed))),
            "codes that are not finite",
        )
    except ValueError as error:
        check_error(error, path)
        return REFUSED
    finally:
        shutil.rmtree(folder / "packed", ignore_errors=True)
    return READ


# Tables without a line of names
_UNNAMED = ("labels_challenge", "labels_challenge2017", "labels_ludb")


def table_target(name: str) -> Target:
    """A table of a stranger, changed; no column of it may stand twice."""
    seed = TABLES[name]

    def make(rng: random.Random, folder: Path) -> Path:
        for file, raw in seed.files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(raw)
        path, text = folder / seed.entry, seed.files[seed.entry].decode()
        if rng.random() < 0.1:
            path.write_text(repeat_column(rng, text))
        else:
            path.write_bytes(mutate_json(rng, text.encode()))
        return path

    def check(rng: random.Random, path: Path) -> str:
        outcome = check_loader(TABLE_LOADERS[name])(rng, path)
        if outcome == READ and name not in _UNNAMED:
            # A lone carriage return ends a line too
            raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n")
            first = raw.split(b"\n")[0].decode()
            names = [cell.strip() for cell in first.split(",") if cell.strip()]
            require(len(set(names)) == len(names), f"columns that stand twice: {names}")
        if outcome == READ and name.startswith("mapping"):
            check_rows(list(iter_rows(load_mapping(path))))
        return outcome

    return Target(make, check, 2 if name == "mapping" else 1)


def make_annotations(rng: random.Random, folder: Path) -> Path:
    """Write a record whose annotation file is changed, or is no file at all."""
    (folder / "x").mkdir()
    for file, raw in ANNOTATIONS.files.items():
        (folder / "x" / file).write_bytes(raw)
    path = folder / "x" / ANNOTATIONS.entry
    if rng.random() < 0.1:
        place_special(rng.choice(SPECIAL), path)
    else:
        path.write_bytes(mutate_bytes(rng, ANNOTATIONS.files[path.name]))
    return path


def check_rows(rows: list[LabelRow]) -> None:
    for row in rows:
        require(
            row.dataset and row.record_id and (row.age is None or 0 <= row.age <= 120), f"{row}"
        )
        require("\0" not in row.record_id, f"{row}")
    keys = {(row.dataset, id_key(row.record_id)) for row in rows}
    require(len(keys) == len(rows), "rows of one id")
    patients = {(row.dataset, row.patient_id) for row in rows if row.patient_id}
    seen = {(dataset, id_key(patient)) for dataset, patient in patients}
    require(len(seen) == len(patients), f"patients who look alike: {patients}")


def make_journal(rng: random.Random, folder: Path) -> Path:
    path = Journal(folder).path
    rows = load_rows()
    Journal(folder).append(rows)
    path.write_bytes(
        mutate_json(rng, path.read_bytes())
        if rng.random() < 0.7
        else mutate_bytes(rng, path.read_bytes())
    )
    return path


SPECIAL = ("pipe", "link to a pipe", "device", "folder", "link to itself", "hole")


def make_special(rng: random.Random, folder: Path) -> Path:
    """Write a record, a table or a file of ours, and put what is no file in place of one of it."""
    name = rng.choice([*SUFFIXES, *TABLES, *LOADERS])
    if name in SUFFIXES:
        seed = rng.choice(seeds_of(SUFFIXES[name]))
    elif name in TABLES:
        seed = TABLES[name]
    else:
        chosen = next(file for file in own_files() if Path(file).match(PATTERNS[name]))
        seed = Seed(name, Path(chosen).name, {Path(chosen).name: own_files()[chosen]})
    (folder / name).mkdir()
    for file, raw in seed.files.items():
        (folder / name / file).parent.mkdir(exist_ok=True)
        (folder / name / file).write_bytes(raw)
    place_special(rng.choice(SPECIAL), folder / name / rng.choice([seed.entry, *seed.files]))
    return folder / name / seed.entry


def place_special(kind: str, path: Path) -> None:
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(path.parent.parent / "pipe")
        path.symlink_to(path.parent.parent / "pipe")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path.name)
    else:
        with open(path, "wb") as stream:
            stream.truncate(2**40)


def check_special(rng: random.Random, path: Path) -> str:
    """It may be read where what is there does not matter, and is refused otherwise; of our own
    files an error of the system is enough, which commands end with like with any other.
    """
    name = next(part for part in path.parts[::-1] if part in {*SUFFIXES, *TABLES, *LOADERS})
    if name in SUFFIXES:
        return check_record(rng, path)
    try:
        (LOADERS | TABLE_LOADERS)[name](path)
    except ValueError as error:
        # Any file of a collection may be what is no file.
        files = [Path(file) for file in TABLES[name].files] if name in TABLES else []
        check_error(error, next((file for file in files if file.stem in str(error)), path))
        return REFUSED
    except OSError as error:
        require(name in LOADERS, f"{type(error).__name__}: {error}")
        check_error(error, path)
        return REFUSED
    return READ


@cache
def load_rows() -> list[object]:
    from src.processed.manifest import ManifestRow

    return [ManifestRow("d", f"r{i}", status="ok", reason='says "no",\nhere') for i in range(5)]


def check_journal(rng: random.Random, path: Path) -> str:
    """A damaged journal loses the damaged rows at most, and takes new ones."""
    journal = Journal(path.parent)
    journal.load()
    journal.append(load_rows())
    after = journal.load()
    require(
        after["record_id"].tolist()[-5:] == [f"r{i}" for i in range(5)],
        "rows that were appended are lost",
    )
    return READ


PATTERNS = {
    "record_file": "records/*.npz",
    "predictions": "predictions*.npz",
    "features": "features.npz",
    "checkpoint": "*.pth",
    "splits": "splits.json",
    "manifest": "manifest.csv",
    "preprocess_config": "preprocess_config.json",
    "config": "config.json",
    "training_log": "training_log.json",
    "metrics": "metrics_test.json",
}
"""Kind of our own files -> the names of its files."""

LOADERS: dict[str, Callable[[Path], object]] = {
    "record_file": use_record_file,
    "predictions": use_predictions,
    "features": Features.load,
    "checkpoint": use_checkpoint,
    "splits": load_splits,
    "manifest": lambda path: load_manifest(path.parent),
    "preprocess_config": lambda path: load_preprocess_config(path.parent),
    "config": load_config,
    "training_log": load_training_log,
    "metrics": load_metrics,
}
"""Kind of our own files -> what reads one, and raises a ValueError that names it."""

RECORD_WEIGHTS = {"wfdb": 8, "mat": 4, "hdf5": 3, "csv": 1, "tsv": 1, "txt": 1, "asc": 1}

TARGETS: dict[str, Target] = {
    **{
        name: record_target(suffix, RECORD_WEIGHTS.get(name, 2))
        for name, suffix in SUFFIXES.items()
    },
    "hostile": Target(make_hostile, check_hostile, 1),
    "hostile_archive": file_target_of(hostile.ARCHIVES),
    **{name: table_target(name) for name in TABLES},
    "annotations": Target(make_annotations, check_loader(use_annotations), 2),
    "record_file": file_target("record_file", mutate_archive, 2),
    "predictions": file_target("predictions", mutate_archive),
    "features": file_target("features", mutate_archive),
    "packed": Target(make_packed, check_packed, 1),
    "checkpoint": file_target("checkpoint", mutate_archive),
    "card": Target(make_card, check_checkpoint, 1),
    "splits": file_target("splits", edit_json),
    "manifest": file_target("manifest", mutate_csv),
    "preprocess_config": file_target("preprocess_config", edit_json),
    "config": file_target("config", edit_json),
    "training_log": file_target("training_log", edit_json),
    "metrics": file_target("metrics", edit_json),
    "journal": Target(make_journal, check_journal, 1),
    "special": Target(make_special, check_special, 1),
}
