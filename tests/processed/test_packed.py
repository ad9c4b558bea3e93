from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_files import write_record_file

from src.processed import packed as packed_module
from src.processed.manifest import load_manifest, save_manifest
from src.processed.packed import load_packed, pack_hash, quantize
from src.processed.record_files import load_record_file, record_path
from src.processed.targets import load_records


def test_the_name_of_a_cache_hangs_on_what_it_holds(processed: Path, tmp_path: Path) -> None:
    manifest = load_manifest(processed)
    save_manifest(manifest, tmp_path)
    names = {pack_hash(tmp_path, "train"), pack_hash(processed, "train")}
    assert len(names) == 1
    for column, value in (
        ("input_hash", "0"),
        ("record_id", "other"),
        ("config_hash", "0"),
        ("split", "val"),
    ):
        changed = manifest.copy()
        changed.loc[(manifest["split"] == "train").idxmax(), column] = value
        save_manifest(changed, tmp_path)
        names.add(pack_hash(tmp_path, "train"))
    assert len(names) == 5


def test_codes_keep_a_lead_within_half_a_step() -> None:
    signal = np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32)
    signal[1] = 7.5
    codes, scale, offset = quantize(signal)
    assert codes.dtype == np.int16 and codes[0].min() == -32768 and codes[0].max() == 32767
    error = np.abs(codes * scale[:, None] + offset[:, None] - signal)
    assert (error <= np.ptp(signal, axis=1)[:, None] / 65535).all() and (error[1] == 0).all()


def test_a_packed_split_is_its_record_files(processed: Path) -> None:
    packed = load_packed(processed, "train")
    assert packed.keys == load_records(processed, keep_other=True)["train"].keys
    for row in (0, len(packed) - 1):
        arrays = load_record_file(record_path(processed, packed.keys[row]))
        limit = np.ptp(arrays["signal"], axis=1)[:, None] / 65535 + 1e-6
        assert (np.abs(packed.read(row) - arrays["signal"]) <= limit).all()
        np.testing.assert_array_equal(packed.lead_std[row], arrays["lead_std"])
        assert packed.n_valid[row] == arrays["n_valid"]


def test_windows_are_cut_from_the_codes(processed: Path) -> None:
    packed = load_packed(processed, "train")
    windows = packed.read_codes([2, 0], [10, 700], 50)
    np.testing.assert_array_equal(windows[0], packed.codes[2, :, 10:60])
    np.testing.assert_array_equal(windows[1], packed.codes[0, :, 700:750])
    assert packed.read_codes([1]).shape == (1, *packed.codes.shape[1:])


def test_a_cache_of_other_records_is_built_anew(processed: Path, tmp_path: Path) -> None:
    shutil.copytree(processed, tmp_path / "p")
    load_packed(tmp_path / "p", "val")
    before = {path.name for path in (tmp_path / "p" / "packed").glob("val-*")}
    manifest = (tmp_path / "p" / "manifest.csv").read_text()
    row = next(line for line in manifest.splitlines() if ",val,ok," in line)
    (tmp_path / "p" / "manifest.csv").write_text(manifest.replace(row + "\n", ""))
    packed = load_packed(tmp_path / "p", "val")
    after = {path.name for path in (tmp_path / "p" / "packed").glob("val-*")}
    assert (
        len(packed) == len(load_records(tmp_path / "p", keep_other=True)["val"])
        and not before & after
        and len(after) == 2
    )


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_damaged_cache_is_built_anew(processed: Path, tmp_path: Path, suffix: str) -> None:
    shutil.copytree(processed, tmp_path / "p")
    whole = np.array(load_packed(tmp_path / "p", "val").codes)
    file = next((tmp_path / "p" / "packed").glob(f"val-*{suffix}"))
    file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(load_packed(tmp_path / "p", "val").codes, whole)


def test_a_split_without_records_says_so(processed: Path, tmp_path: Path) -> None:
    shutil.copytree(processed, tmp_path / "p")
    text = (tmp_path / "p" / "manifest.csv").read_text()
    (tmp_path / "p" / "manifest.csv").write_text(text.replace(",test,ok,", ",train,ok,"))
    with pytest.raises(ValueError, match="split test has no records to pack"):
        load_packed(tmp_path / "p", "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: {name: array for name, array in arrays.items() if name != "lead_std"},
            "no array lead_std",
        ),
        (
            lambda arrays: {
                **arrays,
                "signal": arrays["signal"][:, :900],
                "n_valid": np.int32(900),
            },
            r"its signal is of shape \(12, 900\)",
        ),
    ],
)
def test_a_record_file_that_does_not_fit_is_named(
    change: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
    processed: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(processed, tmp_path / "p", ignore=shutil.ignore_patterns("packed"))
    path = record_path(tmp_path / "p", load_records(tmp_path / "p")["train"].keys[1])
    write_record_file(path, change(load_record_file(path)))
    with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
        load_packed(tmp_path / "p", "train")


def test_a_cache_holds_no_records_that_are_made_anew_meanwhile(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    shutil.copytree(processed, folder, ignore=shutil.ignore_patterns("packed"))
    key = load_records(folder)["train"].keys[0]
    path = record_path(folder, key)
    was_read: list[Path] = []

    def read_then_rewrite(file: Path, *names: str) -> dict[str, Any]:
        """Read a file; then act once as preprocess: first the manifest, then the record file."""
        arrays = load_record_file(file, *names)
        was_read.append(file)
        if was_read == [file]:
            save_manifest(load_manifest(folder), folder)
            changed = load_record_file(path)
            write_record_file(path, {**changed, "signal": -changed["signal"]})
        return arrays

    monkeypatch.setattr(packed_module, "load_record_file", read_then_rewrite)
    packed = load_packed(folder, "train")
    assert len(was_read) == 2 * len(packed.keys)
    row = packed.keys.index(key)
    signal = load_record_file(path)["signal"]
    np.testing.assert_allclose(packed.read(row), signal, atol=float(packed.scale[row].max()))


def test_records_that_change_all_the_time_are_not_packed(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    shutil.copytree(processed, folder, ignore=shutil.ignore_patterns("packed"))

    def read(file: Path, *names: str) -> dict[str, Any]:
        save_manifest(load_manifest(folder), folder)
        return load_record_file(file, *names)

    monkeypatch.setattr(packed_module, "load_record_file", read)
    with pytest.raises(RuntimeError, match="wait for it"):
        load_packed(folder, "val")
    assert not list((folder / "packed").glob("*.npz"))


def test_loader_processes_open_the_file_themselves(processed: Path) -> None:
    packed = load_packed(processed, "train")
    sent = pickle.dumps(packed)
    assert len(sent) < packed.codes.nbytes / 2
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.codes, packed.codes)
    assert isinstance(again.codes, np.memmap) and again.keys == packed.keys
