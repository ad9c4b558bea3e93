"""Every reader against files that are broken or made to do harm: a bounded run of the fuzzer, and
what it found before.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import wfdb
from fuzz.guided import main as fuzz_guided
from fuzz.hostile import ARCHIVES, RECORDS
from fuzz.runner import run_fuzzer
from fuzz.seeds import record_seeds
from fuzz.targets import make_packed, own_files

from src.config import load_config
from src.labels.mapping import MappingError, load_mapping
from src.learning.checkpoints import load_checkpoint, save_checkpoint
from src.learning.predictions import Predictions
from src.model import load_model
from src.processed.manifest import MANIFEST_COLUMNS, Journal, ManifestRow, load_manifest
from src.processed.packed import load_packed
from src.processed.record_files import load_record_file
from src.processed.splits import load_splits
from src.records.formats import mat_check
from src.records.reading import READABLE_SUFFIXES, iter_records, list_records, read_record
from src.records.record import RecordError
from src.utils import printable


def test_mutated_files_are_read_or_refused() -> None:
    """The whole run is ``make fuzz``."""
    report = run_fuzzer(2500, seed=11, max_s=6)
    assert not report.findings, str(report)
    assert report.n_inputs > 150 and all(counts.total() for counts in report.counts.values())


def test_guided_fuzzing_says_what_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fuzz_guided(["wfdb"]) == 0 and capsys.readouterr().out.startswith(
        "skipped: atheris is not installed"
    )
    assert fuzz_guided(["x"]) == 2 and "expected one of wfdb" in capsys.readouterr().err


def test_every_format_has_a_seed() -> None:
    suffixes = {Path(seed.entry).suffix for seed in record_seeds()}
    assert set(READABLE_SUFFIXES) - suffixes <= {".hdf"}, (
        "give a new format its seed in tests/fuzz/seeds.py"
    )


@pytest.mark.parametrize(
    "name",
    [name for name in RECORDS if name not in ("a million comments", "a million leads", "wide xml")],
)
def test_harmful_records_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    path = RECORDS[name](tmp_path / "x")
    with pytest.raises(RecordError, match=path.stem):
        [read_record(record) for record in list_records(path)]


@pytest.mark.parametrize("name", ARCHIVES)
def test_harmful_archives_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.npz").write_bytes(ARCHIVES[name]())
    with pytest.raises(ValueError, match=r"a\.npz: not a record file"):
        load_record_file(tmp_path / "a.npz")
    # An array of another name is not read, where there are predictions
    (tmp_path / "a.npz").write_bytes(ARCHIVES[name]().replace(b"signal.npy", b"y_true.npy"))
    with pytest.raises(ValueError, match=r"a\.npz: not a predictions file"):
        Predictions.load(tmp_path / "a.npz")


# Recordings ---------------------------------------------------------------------------------------


def write_seed(folder: Path, name: str, **replaced: tuple[bytes, bytes]) -> Path:
    """Write the files of a seed, with bytes of the suffixes given replaced."""
    seed = next(seed for seed in record_seeds() if seed.name == name)
    for file, raw in seed.files.items():
        (folder / file).write_bytes(raw.replace(*replaced.get(Path(file).suffix[1:], (b"", b""))))
    return folder / seed.entry


@pytest.mark.parametrize("name", ["segments", "segments_layout"])
def test_segments_and_gaps_are_put_together(tmp_path: Path, name: str) -> None:
    path = write_seed(tmp_path, name)
    one, two = (wfdb.rdrecord(str(tmp_path / part)).p_signal.T for part in ("s1", "s2"))
    record = read_record(path)
    np.testing.assert_allclose(
        record.signal, np.hstack([one, np.full((2, 10), np.nan), two]), atol=1e-6
    )
    if name == "segments_layout":  # the package cannot read a gap without a layout
        np.testing.assert_allclose(
            record.signal, wfdb.rdrecord(str(path.with_suffix(""))).p_signal.T, atol=1e-6
        )
    assert record.leads == ("II", "V1") and record.flags == ()
    windows = list(iter_records(path, window_s=0.4))
    np.testing.assert_array_equal(
        np.hstack([window.signal for window in windows]), record.signal[:, :120]
    )


def test_a_segment_that_disagrees_with_its_record_is_refused(tmp_path: Path) -> None:
    path = write_seed(tmp_path, "segments")
    (tmp_path / "s2.hea").write_text(
        (tmp_path / "s2.hea").read_text().replace("s2 2 100", "s2 2 200")
    )
    with pytest.raises(
        RecordError, match="segment s2 has 60 samples at 200 Hz, the record says 60 at 100 Hz"
    ):
        read_record(path)


@pytest.mark.parametrize(
    "name", ["ptbxl", "mitdb", "big_endian", "wide", "frames", "format24", "format516", "segments"]
)
def test_one_changed_sample_is_flagged_in_every_storage_format(tmp_path: Path, name: str) -> None:
    assert not [
        flag for flag in read_record(write_seed(tmp_path, name)).flags if "mismatch" in flag
    ]
    if (
        name == "format516"
    ):  # a changed byte would break the FLAC stream, so the checksum is changed
        header = tmp_path / "r.hea"
        first = next(line for line in header.read_text().splitlines() if line.startswith("r.dat"))
        fields = first.split()
        header.write_text(
            header.read_text().replace(
                first, " ".join([*fields[:6], str(int(fields[6]) + 1), *fields[7:]])
            )
        )
    else:
        samples = tmp_path / ("s1.dat" if name == "segments" else "r.dat")
        raw = bytearray(samples.read_bytes())
        raw[40] ^= 1
        samples.write_bytes(raw)
    assert [
        flag
        for flag in read_record(tmp_path / "r.hea").flags
        if flag.startswith("checksum_mismatch")
    ]


def test_an_initial_value_counts_where_no_checksum_is_given(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(np.array([5, 6], "<i2").tobytes())
    for fields, flags in (
        ("16 0 4", ("initial_value_mismatch:",)),
        ("16 0 5", ()),
        ("16 0 4 0 0 II", ()),
    ):
        (tmp_path / "r.hea").write_text(f"r 1 100 2\nr.dat 16 100/mV {fields}\n")
        assert read_record(tmp_path / "r").flags == flags


def test_voltages_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "r.mat", {"ECG": {"data": np.full((12, 500), 1e300)}})
    with pytest.raises(RecordError, match="samples beyond any voltage"):
        read_record(tmp_path / "r.mat")


def test_texts_of_a_source_cannot_steer_a_terminal_or_break_a_table(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(bytes(8))
    (tmp_path / "r.hea").write_text(
        "r 1 100 4\nr.dat 16 100/mV 16 0 0 0 0 \x1b[31mI\x07I" + "x" * 900 + "\n"
    )
    (lead,) = read_record(tmp_path / "r").leads
    assert lead.startswith("\\x1b[31mI\\x07Ix") and len(lead) < 220
    assert printable("a\n\ud800é") == "a\\n\\ud800é"
    with pytest.raises(RecordError, match=r"no such record") as error:
        read_record(tmp_path / "\x1b[2J")
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "."])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError):
        read_record(name if name in ("", ".") else f"{tmp_path}/{name}")


def test_links_within_a_farm_are_followed(tmp_path: Path) -> None:
    """A record whose header is a link too is what the user put there."""
    (tmp_path / "data").mkdir()
    write_seed(tmp_path / "data", "ptbxl")
    for where in ("both", "folder"):
        (tmp_path / where).symlink_to("data") if where == "folder" else (tmp_path / where).mkdir()
    for name in ("r.hea", "r.dat"):
        (tmp_path / "both" / name).symlink_to(tmp_path / "data" / name)
    assert (
        read_record(tmp_path / "both" / "r").n_samples
        == read_record(tmp_path / "folder" / "r").n_samples
        == 120
    )


# Tables, settings, splits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "dataset,record_id,mapped_label\nd,a\0b,N\n",
            r"column record_id, value 'a\\x00b': holds a control character",
        ),
        (",".join(["c"] * 2000) + "\n", "has 2000 columns"),
        ("dataset,record_id,mapped_label\nd,a,N,\x1b,x\n", "not a CSV table"),
        (
            "dataset,record_id,mapped_label\nd," + "x" * 5000 + ",\n",
            r"xxx \.\.\.: is empty|mapped_label",
        ),
    ],
)
def test_hostile_mappings(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(MappingError, match=expected) as error:
        load_mapping(tmp_path / "m.csv")
    assert max(map(len, str(error.value).splitlines())) < 1200


def test_hostile_json(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for text in (
        "[" * 100_000,
        '{"train": {"classes": ' + json.dumps(list(range(5000))) + "}}",
        '{"preprocess": {"fs": 1e999}}',
        "[1]",
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"c\.json") as error:
            load_config(path)
        assert len(str(error.value)) < 5000
    path.write_text('{"train": [], "val": [], "test": [], "seed": 1e999, "rule": {}}')
    with pytest.raises(ValueError, match="not a splits file"):
        load_splits(path)


# Our own archives ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("signal", np.zeros(5, np.float32), "signal is float32 of shape"),
        ("signal", np.full((12, 5), np.nan, np.float32), "signal is not finite"),
        ("lead_mean", np.zeros(3, np.float32), r"leads"),
        ("n_valid", np.int32(9999), "n_valid is 9999"),
        ("n_valid", np.zeros((1, 1), np.int32), "n_valid is int32 of shape"),
        ("label", np.array([0x7FFFFFFF], "<u4").view("<U1"), "holds text that is not Unicode"),
    ],
)
def test_record_files_with_wrong_arrays(
    processed: Path, tmp_path: Path, name: str, value: np.ndarray, expected: str
) -> None:
    good = load_record_file(next((processed / "records").glob("*.npz")))
    np.savez(tmp_path / "a.npz", **{**good, name: value})
    with pytest.raises(ValueError, match=rf"a\.npz: not a record file \(.*{expected}"):
        load_record_file(tmp_path / "a.npz")


def test_a_damaged_cache_is_built_anew(tmp_path: Path) -> None:
    import random

    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        make_packed(random.Random(seed), folder)
        packed = load_packed(folder, "train")
        assert len(packed) == packed.codes.shape[0] and np.isfinite(packed.read(0)).all()


def test_rows_after_a_torn_line_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([ManifestRow("d", "a", reason='"\n,')])
    whole = journal.path.read_bytes()
    for cut in range(len(whole)):
        journal.path.write_bytes(whole[:cut])
        journal.append([ManifestRow("d", "b")])
        assert journal.load()["record_id"].tolist()[-1] == "b" and len(journal.load()) <= 2


# Checkpoints --------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "c.pth").write_bytes(own_files()["c.pth"])
    return tmp_path / "c.pth"


def test_checkpoints_whose_card_asks_for_too_much(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for section, name, value, expected in (
        ("model", "base_channels", 10**6, "weights do not fit the model it describes"),
        ("model", "base_channels", 10**30, "weights do not fit the model it describes"),
        ("preprocess", "n_samples", 90_000_000, "input is 12 leads of 90000000 samples"),
        ("", "classes", ["A", "A"], "classes are A, A: expected 1 to 10000 different names"),
        ("", "classes", ["A", "=\x07"], "different names"),
        ("", "leads", ["I", "X"], "leads are I, X: expected some of"),
        ("", "thresholds", [0.5], "1 thresholds for 2 classes"),
    ):
        card = json.loads(json.dumps(content["card"]))
        (card[section] if section else card)[name] = value
        torch.save({**content, "card": card}, checkpoint)
        with pytest.raises(ValueError, match=rf"c\.pth: .*{expected}"):
            load_model(load_checkpoint(checkpoint))


def test_checkpoints_with_hostile_weights(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    name = next(iter(content["weights"]))
    good = content["weights"][name]
    for value, expected in (
        (torch.zeros(1).expand(10**4, 10**5), "expected torch.float32"),
        (torch.full_like(good, float("nan")), "is not finite"),
        (good.to_sparse(), "no plain tensor"),
        ("x", "no plain tensor"),
        (None, "missing"),
    ):
        torch.save({**content, "weights": {**content["weights"], name: value}}, checkpoint)
        with pytest.raises(ValueError, match=rf"c\.pth: weights do not fit .*{expected}"):
            load_model(load_checkpoint(checkpoint))
    variances = {
        key: value * 0 - 1 if key.endswith("running_var") else value
        for key, value in content["weights"].items()
    }
    torch.save({**content, "weights": variances}, checkpoint)
    with pytest.raises(ValueError, match="no finite number"):
        load_model(load_checkpoint(checkpoint))


def test_a_compressed_checkpoint_and_another_version_are_refused(checkpoint: Path) -> None:
    import zipfile

    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "format": [0] * 10**5}, checkpoint)
    with pytest.raises(ValueError, match="this version reads 1; train again") as error:
        load_checkpoint(checkpoint)
    assert len(str(error.value)) < 600
    with zipfile.ZipFile(checkpoint) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(checkpoint, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    with pytest.raises(ValueError, match="not a checkpoint of this program"):
        load_checkpoint(checkpoint)


def test_checkpoint_bytes_depend_on_their_content_only(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    for name in ("a.pth", "b.pth"):
        save_checkpoint(tmp_path / name, loaded.card, loaded.weights, loaded.state)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    assert dataclasses.asdict(loaded.card)["classes"] == ("A", "B") and not list(
        tmp_path.glob(".tmp*")
    )


def test_a_manifest_whose_lines_ran_together_is_refused_in_time(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(",".join(MANIFEST_COLUMNS) + " d,r0" * 200_000)
    began = time.process_time()
    with pytest.raises(
        ValueError, match=rf"not a manifest \(it has {200_000 + len(MANIFEST_COLUMNS)} columns\)"
    ):
        load_manifest(tmp_path)
    assert time.process_time() - began < 1


def test_a_manifest_whose_first_row_runs_on_is_refused_in_time(tmp_path: Path) -> None:
    row = "d,r0" + "," * 500_000
    (tmp_path / "manifest.csv").write_text(",".join(MANIFEST_COLUMNS) + f"\n{row}\n")
    began = time.process_time()
    with pytest.raises(
        ValueError, match=f"its first row has 500002 cells for {len(MANIFEST_COLUMNS)} columns"
    ):
        load_manifest(tmp_path)
    assert time.process_time() - began < 1


# MAT files of many parts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n_bytes", "expected"),
    [
        ("r.mat", 2**40, "has 1099511627776 bytes, over"),
        ("r.scp", 2**40, "has 1099511627776 bytes, over"),
        ("r.xml", 2**40, "has 1099511627776 bytes, over"),
        ("r.dcm", 2**40, "has 1099511627776 bytes, over"),
        ("r.edf", 2**40, "expected an EDF header"),
        ("r.hea", 2**40, "header is over"),
        ("r.mat", 2**26, "variable at byte 0 has type 0"),
    ],
)
def test_sparse_files_that_claim_to_be_large(
    tmp_path: Path, name: str, n_bytes: int, expected: str
) -> None:
    """They hold no data at all, but reading them whole would take all memory."""
    with open(tmp_path / name, "wb") as stream:
        stream.truncate(n_bytes)
    # A file system without holes tells nothing, and then the size does.
    with pytest.raises(RecordError, match=rf"{name}: .*(?:is sparse: 0 of|{expected})"):
        read_record(tmp_path / name)


def _mat5(*elements: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content


def test_mat_files_of_many_parts_are_refused_in_time(tmp_path: Path) -> None:
    flags, name = _element(6, struct.pack("<II", 6, 0)), _element(1, b"val\0\0\0\0\0")
    shape = _element(5, struct.pack("<ii", 1, 1))
    for content, expected in (
        (_mat5(bytes(2**26)), "element at byte 128 is of type 0"),
        (_mat5(_element(14, flags + shape + name + bytes(2**24))), "holds over 200000 elements"),
        (struct.pack("<5i", 0, 0, 0, 0, 1) * 10 + bytes(10), "variable"),
        ((struct.pack("<5i", 0, 0, 0, 0, 1) + b"x") * 5000, "holds over 1000 variables"),
    ):
        (tmp_path / "r.mat").write_bytes(content)
        began = time.process_time()
        with pytest.raises(RecordError, match=f"r.mat: .*{expected}"):
            read_record(tmp_path / "r.mat", source_fs=500.0, source_gain_per_mv=1.0)
        assert time.process_time() - began < 2


@pytest.mark.parametrize("kind", [0, 8, 10, 200])
def test_text_of_a_type_that_does_not_exist_is_refused(tmp_path: Path, kind: int) -> None:
    """On such text SciPy ends the process."""
    names = np.array(["I", "II"], object)
    scipy.io.savemat(tmp_path / "r.mat", {"val": np.ones((2, 900)), "leads": names})
    content = (tmp_path / "r.mat").read_bytes()
    for text, length in ((b"I\0\0\0", 1), (b"II\0\0", 2)):
        tag = struct.pack("<HH", 16, length) + text
        assert tag in content
        content = content.replace(tag, struct.pack("<HH", kind, length) + text)
    (tmp_path / "r.mat").write_bytes(content)
    with pytest.raises(RecordError, match=r"r\.mat: .* is damaged"):
        read_record(tmp_path / "r.mat", source_fs=500.0, source_gain_per_mv=1.0)


def test_a_variable_that_uses_up_the_limit_leaves_none_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To zlib, nothing left means no limit."""
    monkeypatch.setattr(mat_check, "_SMALL_BYTES", 1000)
    monkeypatch.setattr(mat_check, "_MAX_RATIO", 0)
    first, second = (_element(15, zlib.compress(_element(14, bytes(n - 8)))) for n in (1000, 10**6))
    (tmp_path / "r.mat").write_bytes(_mat5(first, second))
    with pytest.raises(RecordError, match="inflates to over 0: expected the samples of an ECG"):
        read_record(tmp_path / "r.mat")
