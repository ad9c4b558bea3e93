"""What is fuzzed: how an input is made from the seeds, and what must come of it."""

from __future__ import annotations

import io
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
from src.labels.mapping import iter_rows, load_mapping
from src.labels.text_tables import read_table
from src.learning.checkpoints import ModelCard, load_checkpoint, save_checkpoint
from src.learning.predictions import Predictions
from src.model import build_model, load_model
from src.preprocessing import build_tensor, run_preprocessing
from src.processed.manifest import Journal, load_manifest, load_preprocess_config
from src.processed.packed import load_packed
from src.processed.record_files import load_record_file
from src.processed.runs.tasks import RejectedError
from src.processed.splits import load_splits
from src.records.folders import index_folder
from src.records.reading import find_start, iter_records, list_records, read_record
from src.records.record import ReadingHints, RecordError

from . import hostile
from .mutate import mutate_bytes, mutate_mat, mutate_text, mutate_zip
from .oracle import WrongError, check_error, check_valid, expected_remarks, require
from .seeds import MAPPING, Seed, record_seeds

SMALL = PreprocessConfig(fs=100.0, n_samples=250)
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
    return mutate_bytes(rng, raw, other)


def check_record(rng: random.Random, path: Path) -> str:
    """Read whole, its beginning or its windows; a record that comes back must serve the rest of the
    pipeline.
    """
    given = rng.choice(({}, {"source_fs": 500.0, "source_gain_per_mv": 1000.0}))
    way = rng.choice(("whole", "whole", "start", "windows"))
    try:
        index_folder(path.parent)
        names = list_records(path)
        if way == "whole":
            records = [read_record(name, **given) for name in names[:3]]
        elif way == "start":
            records = [find_start(names[0], 0.3, ReadingHints(*given.values())).read()[0]]
        else:
            windows = iter_records(path, window_s=0.2, **given)
            records = [window for window, _ in zip(windows, range(5), strict=False)]
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
        save_config(build_small_config(), root / "config.json")
        kept = [
            path
            for path in root.rglob("*")
            if path.is_file() and "src" not in path.parts and path.name != "m.csv"
        ]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in kept}


def build_small_config() -> object:
    from src.config import Config

    return Config(preprocess=SMALL)


def _own(pattern: str) -> list[str]:
    return sorted(name for name in own_files() if Path(name).match(pattern))


def file_target(
    pattern: str,
    load: Callable[[Path], object],
    weight: int,
    mutate: Callable[[random.Random, bytes], bytes],
) -> Target:
    """A file of ours alone in a folder of its kind; `load` gets its path and gives a value or a
    ValueError naming it.
    """

    def make(rng: random.Random, folder: Path) -> Path:
        name = rng.choice(_own(pattern))
        path = folder / Path(name).name
        path.write_bytes(mutate(rng, own_files()[name]))
        return path

    def check(rng: random.Random, path: Path) -> str:
        try:
            load(path)
        except ValueError as error:
            check_error(error, path)
            return REFUSED
        return READ

    return Target(make, check, weight)


def file_target_of(archives: dict[str, Callable[[], bytes]]) -> Target:
    """Archives made to do harm, as record files and as predictions."""

    def make(rng: random.Random, folder: Path) -> Path:
        (folder / "a.npz").write_bytes(rng.choice(list(archives.values()))())
        return folder / "a.npz"

    def check(rng: random.Random, path: Path) -> str:
        try:
            rng.choice((load_record_file, Predictions.load))(path)
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


def use_record_file(path: Path) -> None:
    from src.processed.record_files import to_millivolts

    arrays = load_record_file(
        path, "signal", "lead_mean", "lead_std", "lead_present", "n_valid", "fs"
    )
    to_millivolts(arrays)


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


def make_table(rng: random.Random, folder: Path) -> Path:
    path = folder / "m.csv"
    path.write_bytes(mutate_json(rng, MAPPING.encode()))
    return path


def check_table(rng: random.Random, path: Path) -> str:
    try:
        read_table(path)
        rows = list(iter_rows(load_mapping(path)))
    except ValueError as error:
        check_error(error, path)
        return REFUSED
    for row in rows:
        require(
            row.dataset and row.record_id and (row.age is None or 0 <= row.age <= 120), f"{row}"
        )
        require("\0" not in row.record_id, f"{row}")
    return READ


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


TARGETS: dict[str, Target] = {
    "wfdb": record_target(".hea", 8),
    "mat": record_target(".mat", 4),
    "hdf5": record_target("5", 3),
    "hostile": Target(make_hostile, check_hostile, 1),
    "hostile_archive": file_target_of(hostile.ARCHIVES),
    "edf": record_target(".edf", 2),
    "dicom": record_target(".dcm", 2),
    "xml": record_target(".xml", 2),
    "scp": record_target(".scp", 2),
    "ishne": record_target(".ecg", 2),
    "npy": record_target(".npy", 2),
    "csv": record_target(".csv", 1),
    "tsv": record_target(".tsv", 1),
    "txt": record_target(".txt", 1),
    "asc": record_target(".asc", 1),
    "mapping": Target(make_table, check_table, 2),
    "record_file": file_target("records/*.npz", use_record_file, 2, mutate_archive),
    "predictions": file_target(
        "predictions*.npz", lambda path: Predictions.load(path), 1, mutate_archive
    ),
    "packed": Target(make_packed, check_packed, 1),
    "checkpoint": file_target("*.pth", use_checkpoint, 1, mutate_archive),
    "card": Target(make_card, check_checkpoint, 1),
    "splits": file_target("splits.json", load_splits, 1, mutate_json),
    "manifest": file_target(
        "manifest.csv", lambda path: load_manifest(path.parent), 1, mutate_json
    ),
    "preprocess_config": file_target(
        "preprocess_config.json", lambda path: load_preprocess_config(path.parent), 1, mutate_json
    ),
    "config": file_target("config.json", load_config, 1, mutate_json),
    "journal": Target(make_journal, check_journal, 1),
}
