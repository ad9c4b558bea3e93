"""What is inside an HDF5 or MAT 7.3 file is reached by one guarded way, whatever it claims."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from src.records.formats.hdf5_access import member, open_hdf5, read_fact
from src.records.reading import read_record
from src.records.record import RecordError

ECG = np.random.default_rng(3).normal(size=(12, 300)).astype(np.float32)
Add = Callable[[h5py.File, Path], None]


def write(path: Path, add: Add, *, stated: bool = True) -> Path:
    """Write a recording with something hostile in it."""
    with h5py.File(path, "w", libver="latest") as file:
        file["ecg"] = ECG
        if stated:
            file["ecg"].attrs.update({"fs": 100.0, "unit": "mV"})
        add(file, path.parent)
    return path


def put_behind_links(name: str) -> Add:
    def add(file: h5py.File, folder: Path) -> None:
        with h5py.File(folder / "secret.h5", "w") as secret:
            secret["held"] = np.ones((12, 300))
        if name in file:
            del file[name]
        file.create_group("g")["out"] = h5py.ExternalLink("secret.h5", "/")
        file["near"] = h5py.SoftLink("/g/out")
        file[name] = h5py.SoftLink("near/held")

    return add


def put_in_pipe(name: str) -> Add:
    def add(file: h5py.File, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        if name in file:
            del file[name]
        file.create_dataset(name, (12,), "S20", external=[(str(folder / "pipe"), 0, 240)])

    return add


def put_virtual(name: str) -> Add:
    """An unlimited virtual dataset, for whose shape HDF5 opens the files it is made of."""

    def add(file: h5py.File, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        if name in file:
            del file[name]
        layout = h5py.VirtualLayout((12, 100), maxshape=(12, None), dtype="f4")
        source = h5py.VirtualSource("pipe", "ecg", shape=(12, 100), maxshape=(12, None))
        layout[:, : h5py.h5s.UNLIMITED] = source[:, : h5py.h5s.UNLIMITED]
        file.create_virtual_dataset(name, layout)

    return add


@pytest.mark.parametrize("name", ["ecg", "leads", "fs", "units", "gain"])
@pytest.mark.parametrize("put", [put_behind_links, put_in_pipe, put_virtual])
def test_nothing_outside_the_file_is_opened(
    tmp_path: Path, name: str, put: Callable[[str], Add]
) -> None:
    path = write(tmp_path / "r.h5", put(name), stated=name == "leads")
    with pytest.raises(RecordError, match="expected the data in the file itself"):
        read_record(path, source_fs=100)


@pytest.mark.parametrize("suffix", ["mat", "h5"])
def test_elements_and_fields_outside_the_file_are_refused(tmp_path: Path, suffix: str) -> None:
    def add(file: h5py.File, folder: Path) -> None:
        put_in_pipe("#refs#/a")(file, folder)
        file.create_dataset("leads", data=[[file["#refs#/a"].ref]], dtype=h5py.ref_dtype)

    path = write(tmp_path / f"r.{suffix}", add)
    if suffix == "h5":
        assert read_record(path).flags == ("lead_names_assumed",)
        return
    with pytest.raises(RecordError, match="an element is stored outside the file"):
        read_record(path)


def test_links_inside_the_file_are_followed_and_loops_end(tmp_path: Path) -> None:
    def add(file: h5py.File, folder: Path) -> None:
        file["held/rate"] = 250.0
        del file["ecg"].attrs["fs"]
        file["fs"], file["unit"] = h5py.SoftLink("held/./rate"), h5py.SoftLink("/nowhere")

    record = read_record(write(tmp_path / "r.h5", add))
    assert record.fs == 250

    def add_loop(file: h5py.File, folder: Path) -> None:
        file["leads"] = h5py.SoftLink("/loop/x")
        file["loop"] = h5py.SoftLink("/leads")

    with pytest.raises(RecordError, match="is behind over 16 links"):
        read_record(write(tmp_path / "r.h5", add_loop))


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.h5")
    with pytest.raises(RecordError, match="no regular file"), open_hdf5(tmp_path / "r.h5"):
        pass


# Sizes --------------------------------------------------------------------------------------------


def wide_texts(file: h5py.File, folder: Path) -> None:
    file.create_dataset("leads", (12,), "S300000000")


def wide_chunk(file: h5py.File, folder: Path) -> None:
    file.create_dataset("leads", (12,), "S20", maxshape=(None,), chunks=(2**26,), compression=1)


def wide_signal_chunk(file: h5py.File, folder: Path) -> None:
    del file["ecg"]
    options = {"maxshape": (12, None), "chunks": (12, 2**21), "compression": "gzip"}
    held = file.create_dataset("ecg", (12, 300), "f4", **options)
    packed = zlib.compress(bytes(4 * 12 * 2**21), 9)
    held.id.write_direct_chunk((0, 0), packed)
    held.attrs.update({"fs": 100.0, "unit": "mV"})


def many_members(file: h5py.File, folder: Path) -> None:
    for number in range(10_001):
        file[f"n{number}"] = h5py.SoftLink("/ecg")


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (wide_texts, "expected numbers or short texts"),
        (wide_chunk, "expected numbers or short texts"),
        (wide_signal_chunk, "promises 100663296 bytes"),
        (many_members, "holds 10002 members, the limit is 10000"),
    ],
)
def test_claimed_sizes_are_held_against_limits(tmp_path: Path, add: Add, expected: str) -> None:
    with pytest.raises(RecordError, match=expected):
        read_record(write(tmp_path / "r.h5", add))


def test_one_long_text_named_many_times_is_not_read_as_often(tmp_path: Path) -> None:
    """Ids of 28 kB that take 4 GB: each refers to the same 20 kB, and references deflate well."""
    n_ids = 200_000
    with h5py.File(tmp_path / "r.h5", "w") as file:
        options = {"chunks": (n_ids,), "maxshape": (None,), "compression": "gzip"}
        ids = file.create_dataset("exam_id", (n_ids,), h5py.string_dtype(), **options)
        ids[0] = "x" * 20_000
        file.flush()
        reference = zlib.decompress(ids.id.read_direct_chunk((0,))[1])[:16]
        ids.id.write_direct_chunk((0,), zlib.compress(reference * n_ids, 9))
    assert (tmp_path / "r.h5").stat().st_size < 30_000
    path = tmp_path / "r.h5"
    with open_hdf5(path) as file:
        held = member(path, file, "exam_id")
        assert isinstance(held, h5py.Dataset)
        with pytest.raises(RecordError, match="the texts of /exam_id have over"):
            read_fact(path, held)


def test_cells_that_hold_themselves_or_one_matrix_often(tmp_path: Path) -> None:
    for value in (np.full((12, 100_000), 1.5), None):
        with h5py.File(tmp_path / "r.mat", "w") as file:
            if value is None:
                held = file.create_dataset("#refs#/a", (1, 1000), h5py.ref_dtype)
                held[:] = [[held.ref] * 1000]
            else:
                held = file.create_dataset("#refs#/a", data=value)
            file.create_dataset("data", data=[[held.ref] * 1000], dtype=h5py.ref_dtype)
        with pytest.raises(RecordError, match="more in structures and cells than its bytes can"):
            read_record(tmp_path / "r.mat")
