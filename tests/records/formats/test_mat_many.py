from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from src.config import STANDARD_LEADS
from src.records.folders import index_folder
from src.records.formats.mat_many import may_hold_many
from src.records.reading import iter_records, list_parts, read_record
from src.records.record import RecordError

RNG = np.random.default_rng(91)
WAVE = np.sin(np.arange(900) / 7)[None] ** 15
ECGS = [
    ((k + 1) * WAVE[:, : 500 + 200 * k] + RNG.normal(0, 0.01, (12, 500 + 200 * k)))
    for k in range(3)
]  # mV, of three lengths
STACK = np.stack([ecg[:, :500] for ecg in ECGS])  # records x leads x samples


def cells(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def write(path: Path, *, deflated: bool = False, **variables: Any) -> Path:
    scipy.io.savemat(path, variables, do_compression=deflated)
    return path


def write_73(path: Path, **variables: Any) -> Path:
    """Write a file as MATLAB does: matrices transposed, cells as references, texts as numbers."""
    with h5py.File(path, "w", userblock_size=512) as file:
        held = file.create_group("#refs#")

        def put(group: Any, name: str, value: Any) -> None:
            if isinstance(value, str):
                group[name] = np.array([[ord(c)] for c in value], np.uint16)
                group[name].attrs["MATLAB_class"] = np.bytes_("char")
            elif isinstance(value, list):
                references = []
                for element in value:
                    number = len(held)
                    put(held, f"r{number}", element)
                    references.append([held[f"r{number}"].ref])
                group.create_dataset(name, data=references, dtype=h5py.ref_dtype)
            elif isinstance(value, dict):
                inner = group.create_group(name)
                for key, held_value in value.items():
                    put(inner, key, held_value)
            else:
                group[name] = np.atleast_2d(np.asarray(value, np.float64)).T

        for name, value in variables.items():
            put(file, name, value)
    return path


@pytest.mark.parametrize("deflated", [False, True])
def test_a_cell_for_each_record_of_any_length(tmp_path: Path, deflated: bool) -> None:
    path = write(
        tmp_path / "r.mat",
        deflated=deflated,
        X=cells(ECGS),
        record_id=cells(["a", "b", "c"]),
        fs=np.array([250.0, 500.0, 250.0]),
        age=np.array([50, 60, 70]),
        unit="mV",
    )
    assert list_parts(path) == ("a", "b", "c")
    assert [found.stem for found in index_folder(tmp_path)] == ["a", "b", "c"]
    record = read_record(f"{path}::b")
    np.testing.assert_allclose(record.signal, ECGS[1], rtol=1e-6)
    assert (record.record_id, record.fs, record.age, record.leads) == ("b", 500, 60, STANDARD_LEADS)
    assert record.flags == ("lead_names_assumed",)
    assert [record.n_samples for record in iter_records(path)] == [500, 700, 900]


def test_an_array_of_structures(tmp_path: Path) -> None:
    dtype = [(name, object) for name in ("ecg_id", "data", "leads", "sex")]
    rows = [(7 + k, ecg[:2].T * 1000, "II, V1", "F") for k, ecg in enumerate(ECGS)]
    path = write(tmp_path / "r.mat", records=np.array(rows, dtype), fs=250, unit="uV")
    assert list_parts(path) == ("7", "8", "9")
    record = read_record(f"{path}::9")
    np.testing.assert_allclose(record.signal, ECGS[2][:2], rtol=1e-5)
    assert (record.fs, record.leads, record.sex, record.flags) == (250, ("II", "V1"), "female", ())


@pytest.mark.parametrize(
    ("axes", "ids", "flags"),
    [
        ((0, 1, 2), None, ("lead_names_assumed",)),
        # 500 records of 12 leads, or 12 records of 3 leads
        ((0, 2, 1), None, ("lead_names_assumed", "records_first_assumed")),
        ((1, 2, 0), cells(["x", "y", "z"]), ("lead_names_assumed",)),
        ((2, 1, 0), cells(["x", "y", "z"]), ("lead_names_assumed",)),
    ],
)
def test_a_stack(
    tmp_path: Path, axes: tuple[int, int, int], ids: Any, flags: tuple[str, ...]
) -> None:
    beside = {} if ids is None else {"id": ids}
    path = write(tmp_path / "r.mat", val=STACK.transpose(axes), fs=250, unit="mV", **beside)
    assert list_parts(path) == (("r-00000", "r-00001", "r-00002") if ids is None else tuple("xyz"))
    record = read_record(f"{path}::{list_parts(path)[2]}")
    np.testing.assert_allclose(record.signal, STACK[2], rtol=1e-6)
    assert record.flags == flags


def test_a_stack_that_may_be_read_both_ways_is_flagged(tmp_path: Path) -> None:
    stack = np.moveaxis(np.tile(STACK[:1], (300, 1, 1)), 0, 2)[:, :400]  # 12 x 400 x 300
    path = write(tmp_path / "r.mat", X=stack, fs=250, unit="mV")
    assert len(list_parts(path)) == 300  # 12 records of 400 leads are none
    both = np.moveaxis(stack, 0, 1)  # 400 records of 12 x 300, or 300 of 400 x 12
    path = write(tmp_path / "s.mat", X=both, fs=250, unit="mV")
    record = read_record(f"{path}::s-00000")
    assert record.n_samples == 300 and record.flags[-1] == "records_first_assumed"
    (tmp_path / "s.csv").write_text("id\n" + "".join(f"{k}\n" for k in range(300)))
    with pytest.raises(RecordError, match=r"s\.csv has 300 rows, 400 records are stored"):
        list_parts(path)


def test_a_matrix_for_each_lead(tmp_path: Path) -> None:
    leads = {name: STACK[:, i] for i, name in enumerate(("I", "II", "V1"))}
    path = write(tmp_path / "r.mat", **leads, exam_id=np.array([1, 2, 3]), fs=250, unit="mV")
    record = read_record(f"{path}::2")
    np.testing.assert_allclose(record.signal, STACK[1, :3], rtol=1e-6)
    assert (record.leads, record.flags) == (("I", "II", "V1"), ())
    turned = {name: values.T for name, values in leads.items()}
    path = write(tmp_path / "t.mat", **turned, exam_id=np.array([1, 2, 3]), fs=250, unit="mV")
    np.testing.assert_array_equal(read_record(f"{path}::2").signal, record.signal)


def test_version_73(tmp_path: Path) -> None:
    path = write_73(tmp_path / "c.mat", X=list(ECGS), id=["a", "b", "c"], fs=250, unit="mV")
    record = read_record(f"{path}::c")
    np.testing.assert_allclose(record.signal, ECGS[2], rtol=1e-6)
    assert (record.fs, list_parts(path)) == (250.0, ("a", "b", "c"))
    structure = {"data": list(ECGS), "age": [50, 60, 70], "unit": ["mV"] * 3}
    path = write_73(tmp_path / "s.mat", recs=structure, fs=500)
    record = read_record(f"{path}::s-00001")
    np.testing.assert_allclose(record.signal, ECGS[1], rtol=1e-6)
    assert (record.fs, record.age) == (500.0, 60.0)
    path = write_73(tmp_path / "v.mat", val=STACK, fs=250, unit="mV")
    np.testing.assert_allclose(read_record(f"{path}::v-00002").signal, STACK[2], rtol=1e-6)


@pytest.mark.parametrize(
    "variables",
    [
        {"val": ECGS[0], "fs": 500.0, "leads": cells(list(STANDARD_LEADS))},
        {"ECG": {"sex": "Male", "age": 74, "data": ECGS[0]}},
        {"val": cells(list(ECGS[0])), "fs": 500.0},
        {"val": cells([ECGS[0], "x"]), "fs": 500.0},
        {"val": ECGS[0][None], "fs": 500.0},
        {"rec": {"II": ECGS[0][1], "V1": ECGS[0][6]}, "siginfo": [{"Units": "mV"}] * 2, "fs": 500},
    ],
)
def test_files_of_one_record_stay_so(tmp_path: Path, variables: dict[str, Any]) -> None:
    path = write(tmp_path / "r.mat", **variables)
    assert list_parts(path) == () and read_record(path).record_id == "r"
    assert [found.relative for found in index_folder(tmp_path)] == ["r.mat"]


def test_a_file_of_one_matrix_is_not_loaded_to_be_told(tmp_path: Path) -> None:
    path = write(tmp_path / "r.mat", val=ECGS[0], note="x" * 5000)
    assert not may_hold_many(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:600])
    assert not may_hold_many(path)


@pytest.mark.parametrize(
    ("variables", "part", "expected"),
    [
        ({"X": cells(ECGS)}, "", "holds 3 records: name one that it has, such as r.mat::r-00000"),
        ({"X": cells(ECGS)}, "9", "holds 3 records: name one"),
        ({"X": cells(ECGS)}, "r-00001", "says no sampling rate: give --source-fs"),
        ({"X": cells(ECGS), "id": np.array([1, 1, 2])}, "1", "id has 2 ids of 3 records"),
        ({"X": np.ones((200, 300, 400))}, "", r"has a stack of shape \(200, 300, 400\): expected"),
        ({"II": np.ones((3, 200)), "V1": np.ones((3, 300))}, "", "has leads of shapes"),
        (
            {"X": np.tile(STACK, (4, 1, 1)), "fs": 250, "gain": np.arange(1.0, 13)},
            "r-00000",
            "gain has 12 values for as many records of as many leads",
        ),
    ],
)
def test_wrong_files_are_one_line(
    tmp_path: Path, variables: dict[str, Any], part: str, expected: str
) -> None:
    path = write(tmp_path / "r.mat", **variables)
    with pytest.raises(RecordError, match=f"r.mat.*{expected}"):
        read_record(f"{path}::{part}" if part else path)
