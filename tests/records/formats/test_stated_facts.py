"""What MAT and HDF5 files state of their signals: the same facts in each container, by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from src.config import STANDARD_LEADS
from src.records.formats.stated_facts import (
    Place,
    Statement,
    as_values,
    find_facts,
    unit_by_amplitude,
    values_at,
)
from src.records.reading import read_record
from src.records.record import RecordError
from src.records.synthetic import generate_ecg

ECG = generate_ecg("NORM", fs=100, duration_s=5, rng=np.random.default_rng(4)).signal
COUNTS = np.rint(ECG * 1000).astype(np.int16)
ONE_TO_TWELVE = np.arange(1, 13) * 100.0
ORDER = ("V1", "V2", "V3", "V4", "V5", "V6", "I", "II", "III", "aVR", "aVL", "aVF")
MV = "unit_assumed:mV"
STANDARD = "lead_names_assumed"

Write = Callable[[Path, np.ndarray, dict[str, object]], Path]


# Containers ---------------------------------------------------------------------------------------


def mat5(folder: Path, signal: np.ndarray, stated: dict[str, object]) -> Path:
    scipy.io.savemat(folder / "r.mat", {"val": signal, **stated})
    return folder / "r.mat"


def mat_struct(folder: Path, signal: np.ndarray, stated: dict[str, object]) -> Path:
    scipy.io.savemat(folder / "r.mat", {"ECG": {"data": signal, **stated}})
    return folder / "r.mat"


def mat_header(folder: Path, signal: np.ndarray, stated: dict[str, object]) -> Path:
    scipy.io.savemat(folder / "r.mat", {"rec": {"ecg": signal, "header": stated}})
    return folder / "r.mat"


def mat73(folder: Path, signal: np.ndarray, stated: dict[str, object]) -> Path:
    """As MATLAB writes it: transposed, texts as codes, cell arrays as references."""

    def put(group: h5py.Group, name: str, value: object) -> None:
        if isinstance(value, str):
            held = group.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
            held.attrs["MATLAB_class"] = np.bytes_("char")
        elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
            refs = group.file.require_group("#refs#")
            for number, element in enumerate(value):
                put(refs, f"{name}{number}", element)
            references = [[refs[f"{name}{number}"].ref] for number in range(len(value))]
            held = group.create_dataset(name, data=references, dtype=h5py.ref_dtype)
            held.attrs["MATLAB_class"] = np.bytes_("cell")
        elif np.size(value) == 0:
            held = group.create_dataset(name, data=np.zeros(2, np.uint64))
            held.attrs.update({"MATLAB_class": np.bytes_("double"), "MATLAB_empty": np.uint8(1)})
        else:
            group[name] = np.atleast_2d(value).T

    with h5py.File(folder / "r.mat", "w", userblock_size=512) as file:
        struct = file.create_group("ECG")
        for name, value in {"data": signal, **stated}.items():
            put(struct, name, value)
    with open(folder / "r.mat", "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return folder / "r.mat"


def as_hdf5(value: object) -> object:
    return list(value) if isinstance(value, np.ndarray) and value.dtype.kind == "O" else value


def h5_attributes(folder: Path, signal: np.ndarray, stated: dict[str, object]) -> Path:
    with h5py.File(folder / "r.h5", "w") as file:
        file["signal"] = signal
        file["signal"].attrs.update({name: as_hdf5(value) for name, value in stated.items()})
    return folder / "r.h5"


def h5_datasets(folder: Path, signal: np.ndarray, stated: dict[str, object]) -> Path:
    with h5py.File(folder / "r.h5", "w") as file:
        file["signal"] = signal
        for name, value in stated.items():
            file[f"header/{name}"] = as_hdf5(value)
    return folder / "r.h5"


def h5_group(folder: Path, signal: np.ndarray, stated: dict[str, object]) -> Path:
    with h5py.File(folder / "r.h5", "w") as file:
        file["recording/ecg"] = signal
        file["recording"].attrs.update({name: as_hdf5(value) for name, value in stated.items()})
    return folder / "r.h5"


CONTAINERS = (mat5, mat_struct, mat_header, mat73, h5_attributes, h5_datasets, h5_group)


# Facts --------------------------------------------------------------------------------------------

CASES: dict[str, tuple[np.ndarray, dict[str, object], tuple[str, ...]]] = {
    "gain": (COUNTS, {"fs": 100, "gain": 1000}, (STANDARD,)),
    "gain as text": (COUNTS, {"fs": "100 Hz", "gain": "1000 adu/mV"}, (STANDARD,)),
    "gain and unit": (COUNTS, {"Fs": "0.1 kHz", "adc_gain": 1000.0, "units": "mV"}, (STANDARD,)),
    "gain per microvolt": (COUNTS, {"fs": 100.0, "gain": 1.0, "unit": "uV"}, (STANDARD,)),
    "gain of each lead": (
        np.rint(ECG * ONE_TO_TWELVE[:, None]),
        {"sampling_rate": "100", "gain": ONE_TO_TWELVE},
        (STANDARD,),
    ),
    "baseline": (
        COUNTS + np.int16(2048),
        {"fs": 100, "gain": 1000, "baseline": 2048},
        (STANDARD,),
    ),
    "baseline of each lead": (
        COUNTS + np.arange(12, dtype=np.int16)[:, None] * 100,
        {"fs": 100, "gain": 1000, "adc_zero": np.arange(12) * 100},
        (STANDARD,),
    ),
    "negative gain": (-COUNTS, {"fs": 100, "gain": -1000}, ("gain_negative", STANDARD)),
    "microvolts": (ECG * 1000, {"fs": 100, "units": "uV"}, (STANDARD,)),
    "volts": (ECG / 1000, {"fs": 100, "unit": "Volt"}, (STANDARD,)),
    "units of each lead": (
        ECG * np.where(np.arange(12) < 6, 1.0, 1000.0)[:, None],
        {"fs": 100, "units": np.array(["mV"] * 6 + ["uV"] * 6, object)},
        (STANDARD,),
    ),
    "scale and unit": (COUNTS, {"fs": 100, "scale_factor": 1e-6, "units": "V"}, (STANDARD,)),
    "scale in its name": (COUNTS, {"fs": 100, "uV_per_bit": 1.0}, (STANDARD,)),
    "resolution as text": (COUNTS, {"fs": 100, "resolution": "1 uV/LSB"}, (STANDARD,)),
    "interval": (COUNTS, {"sampling_interval": "10 ms", "gain": 1000}, (STANDARD,)),
    "amplitude": (ECG * 1000, {"fs": 100}, ("unit_assumed:uV", STANDARD)),
    "millivolts by amplitude": (ECG, {"fs": 100}, (MV, STANDARD)),
    "empty gain and unit": (ECG, {"fs": 100, "gain": np.empty((0, 0))}, (MV, STANDARD)),
    "gain of a recorder": (
        ECG,
        {"fs": 100, "gain": 1000, "units": "mV"},
        ("gain_not_applied", STANDARD),
    ),
}


@pytest.mark.parametrize("write", CONTAINERS)
@pytest.mark.parametrize("name", CASES)
def test_scale_and_rate_that_a_file_states_are_used_in_every_container(
    tmp_path: Path, write: Write, name: str
) -> None:
    signal, stated, flags = CASES[name]
    record = read_record(write(tmp_path, signal, stated))
    np.testing.assert_allclose(record.signal, ECG, atol=6e-3)
    assert (record.fs, record.leads, record.flags) == (100.0, STANDARD_LEADS, flags)


@pytest.mark.parametrize("write", CONTAINERS)
@pytest.mark.parametrize("name", ["leads", "sig_name", "channel_names", "Lead Names"])
@pytest.mark.parametrize("n_leads", [12, 8, 1])
def test_lead_lists_are_used_in_every_container(
    tmp_path: Path, write: Write, name: str, n_leads: int
) -> None:
    if write in (mat5, mat_struct, mat_header) and " " in name:
        pytest.skip("no name of a variable")
    order = ORDER[:n_leads]
    stated = {"fs": 100, "unit": "mV", name: np.array(order, object)}
    record = read_record(write(tmp_path, ECG[:n_leads], stated))
    assert (record.leads, record.flags) == (order, ())
    as_one_text = {"fs": 100, "unit": "mV", name: ", ".join(order)}
    assert read_record(write(tmp_path, ECG[:n_leads], as_one_text)).leads == order


@pytest.mark.parametrize("write", CONTAINERS)
def test_the_ecg_is_found_beside_other_channels(tmp_path: Path, write: Write) -> None:
    signal = np.vstack([np.full((1, 500), 90.0), ECG[1:2] * 1000, ECG[:1] * 50, ECG[6:7] * 1000])
    stated = {
        "fs": 100,
        "leads": np.array(["ABP", "II", "RESP", "V1"], object),
        "units": np.array(["mmHg", "uV", "uV", "uV"], object),
    }
    record = read_record(write(tmp_path, signal, stated))
    np.testing.assert_allclose(record.signal, ECG[[1, 6]], atol=1e-5)
    assert (record.leads, record.unused) == (("II", "V1"), ("ABP", "RESP"))
    assert record.flags == ("not_a_voltage:ABP",)


@pytest.mark.parametrize("write", CONTAINERS)
def test_a_short_record_of_many_leads_is_turned_by_its_names(tmp_path: Path, write: Write) -> None:
    stated = {"fs": 100, "unit": "mV", "leads": np.array(ORDER, object)}
    for signal in (ECG[:, :9], ECG[:, :9].T):
        record = read_record(write(tmp_path, signal, stated))
        np.testing.assert_allclose(record.signal, ECG[:, :9], atol=1e-6)


@pytest.mark.parametrize("write", CONTAINERS)
def test_options_take_effect_where_the_file_is_silent(tmp_path: Path, write: Write) -> None:
    record = read_record(write(tmp_path, COUNTS, {}), source_fs=100, source_gain_per_mv=1000)
    np.testing.assert_allclose(record.signal, ECG, atol=6e-4)
    assert (record.fs, record.flags) == (100.0, (STANDARD,))
    stated: dict[str, object] = {"fs": 100, "gain": 1000, "unit": "mV"}
    record = read_record(write(tmp_path, COUNTS, stated), source_fs=7, source_gain_per_mv=7)
    np.testing.assert_allclose(record.signal, ECG, atol=6e-4)
    assert (record.fs, record.flags) == (100.0, (STANDARD,))


@pytest.mark.parametrize("write", CONTAINERS)
@pytest.mark.parametrize(
    ("signal", "stated", "expected"),
    [
        (COUNTS, {"fs": 100}, "no unit and no gain: give --source-gain"),
        (COUNTS.astype(float), {"fs": 100}, "no unit and no gain: give --source-gain"),
        (COUNTS, {"fs": 100, "unit": "adu"}, "no unit and no gain: give --source-gain"),
        (COUNTS, {"fs": 100, "gain": np.arange(3.0)}, "gain has 3 values for 12 leads"),
        (COUNTS, {"fs": 100, "gain": ONE_TO_TWELVE * (ONE_TO_TWELVE > 100)}, "gain is missing for"),
        (ECG, {"fs": 100, "unit": "mmHg"}, "its unit is mmHg: expected mV, uV or V"),
        (ECG, {"fs": "fast", "unit": "mV"}, "sampling rate is fs=fast: expected Hz"),
        (ECG, {"fs": np.arange(1, 13.0), "unit": "mV"}, "states rates of 1 to 12 Hz"),
    ],
)
def test_what_a_file_states_in_vain_is_refused(
    tmp_path: Path, write: Write, signal: np.ndarray, stated: dict[str, object], expected: str
) -> None:
    with pytest.raises(RecordError, match=expected):
        read_record(write(tmp_path, signal, stated))


# One value for each record ------------------------------------------------------------------------


def test_values_of_each_record(tmp_path: Path) -> None:
    gains = np.array([100.0, 200.0, 1000.0])
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["tracings"] = np.rint(ECG.T * gains[:, None, None])
        file["exam_id"] = [5, 6, 7]
        file["fs"], file["gain"] = [100.0, 250.0, 500.0], gains[:, None]
        file["leads"] = [list(STANDARD_LEADS), list(ORDER), list(STANDARD_LEADS)]
        file["units"] = ["mV", "mV", "mV"]
    for row, fs in enumerate((100, 250, 500)):
        record = read_record(f"{tmp_path / 'r.h5'}::{row + 5}")
        np.testing.assert_allclose(record.signal, ECG, atol=6e-3)
        assert (record.fs, record.flags) == (fs, ())
        assert record.leads == (ORDER if row == 1 else STANDARD_LEADS)


def test_gains_of_as_many_records_as_leads_are_told_by_their_shape(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    for shape, expected in (((12, 1), 3.0), ((1, 12), 1.0)):
        with h5py.File(path, "w") as file:
            file["tracings"] = np.tile(ECG.T, (12, 1, 1))
            file["fs"], file["gain"] = 100, (1 / np.arange(1.0, 13)).reshape(shape)
            file.attrs["unit"] = "uV"
        record = read_record(f"{path}::r-00002")
        np.testing.assert_allclose(record.signal[0], ECG[0] * expected / 1000, rtol=1e-4)
    with h5py.File(path, "r+") as file:
        del file["gain"]
        file["gain"] = 1 / np.arange(1.0, 13)
    with pytest.raises(RecordError, match=r"expected the shape \(12, 1\) for records or \(1, 12\)"):
        read_record(f"{path}::r-00002")


@pytest.mark.parametrize("n_records", [1, 5, 9])
def test_the_unit_of_the_code_layout_does_not_hang_on_the_number_of_records(
    tmp_path: Path, n_records: int
) -> None:
    tracings = np.stack([ECG.T * 10] * n_records)
    tracings[1:2] = np.nan
    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        file["tracings"], file["exam_id"] = tracings, np.arange(n_records) + 1
    record = read_record(f"{tmp_path / 'r.hdf5'}::1")
    np.testing.assert_allclose(record.signal, ECG, atol=1e-5)
    assert "unit_assumed:0.1mV" in record.flags


# Structures and cells -----------------------------------------------------------------------------


def test_a_vector_for_each_lead(tmp_path: Path) -> None:
    vectors = {name: ECG[row] for row, name in enumerate(ORDER[:3])}
    scipy.io.savemat(tmp_path / "r.mat", {"leads": vectors, "fs": 100.0, "unit": "mV"})
    record = read_record(tmp_path / "r.mat")
    np.testing.assert_allclose(record.signal, ECG[:3], atol=1e-6)
    assert (record.leads, record.fs, record.flags) == (("V1", "V2", "V3"), 100.0, ())


def test_a_header_of_an_element_for_each_lead(tmp_path: Path) -> None:
    """WFDB's toolbox for MATLAB gives siginfo(k).Gain and the like."""
    siginfo = [{"Units": "mV", "Gain": 1000.0, "Description": lead} for lead in ORDER]
    scipy.io.savemat(tmp_path / "r.mat", {"signal": COUNTS.T, "Fs": 100, "siginfo": siginfo})
    record = read_record(tmp_path / "r.mat")
    np.testing.assert_allclose(record.signal, ECG, atol=6e-4)
    assert (record.leads, record.flags) == (ORDER, ())


def test_cells_of_vectors_and_empty_matrices(tmp_path: Path) -> None:
    cells = np.empty(2, object)
    cells[:] = [ECG[0], ECG[1]]
    stated = {"val": np.empty((0, 0)), "data": cells, "fs": 100.0, "units": "mV", "gain": []}
    scipy.io.savemat(tmp_path / "r.mat", {**stated, "leads": np.array(["I", "II"], object)})
    record = read_record(tmp_path / "r.mat")
    np.testing.assert_allclose(record.signal, ECG[:2], atol=1e-6)
    assert record.leads == ("I", "II")
    scipy.io.savemat(tmp_path / "r.mat", {"val": np.empty((12, 0))})
    with pytest.raises(RecordError, match="signal matrix is empty"):
        read_record(tmp_path / "r.mat")


def test_the_rate_of_another_signal_is_not_taken(tmp_path: Path) -> None:
    ppg = {"data": np.ones(900), "fs": 125.0}
    scipy.io.savemat(tmp_path / "r.mat", {"ECG": {"data": ECG, "units": "mV"}, "PPG": ppg})
    record = read_record(tmp_path / "r.mat")
    assert (record.fs, record.flags) == (500.0, ("fs_assumed", STANDARD))


def test_physical_signals_of_wfdb_have_their_gain_applied(tmp_path: Path) -> None:
    stated = {"fs": 100, "units": ["mV"] * 12, "adc_gain": [1000.0] * 12, "baseline": [5] * 12}
    scipy.io.savemat(tmp_path / "r.mat", {"p_signal": ECG.T, "sig_name": list(ORDER), **stated})
    record = read_record(tmp_path / "r.mat")
    np.testing.assert_allclose(record.signal, ECG, atol=1e-6)
    assert (record.leads, record.flags) == (ORDER, ())


# Parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", b" \0", [], np.empty((0, 3)), np.nan, [""], None, {"a": 1}])
def test_empty_values_state_nothing(value: object) -> None:
    assert as_values(value) is None
    assert find_facts([{"fs": value}]).fs is None


def test_the_nearest_statement_comes_first() -> None:
    facts = find_facts([{"header": {"fs": 1}}, {"fs": 2, "Sampling Rate": 3, "gain": 4}])
    assert facts.fs is not None and facts.gain is not None
    assert (facts.fs.values.tolist(), facts.gain.values.tolist()) == ([1.0], [4.0])


def test_values_at_a_place() -> None:
    place = Place(1, 3, 2, (0, 1))
    table = Statement("gain", np.array([[1.0, 2], [3, 4], [5, 6]]), False)
    assert values_at(Path("r"), table, place) == [3.0, 4.0]
    assert values_at(Path("r"), Statement("gain", np.array([7.0, 8]), False), place) == [7.0, 8.0]
    assert values_at(Path("r"), Statement("gain", np.array([7.0, 8, 9]), False), place) == [8.0]
    assert values_at(Path("r"), Statement("gain", np.array([7.0, 8, 9, 1]), False), place) is None


@pytest.mark.parametrize(
    ("amplitude", "n_records", "is_code", "expected"),
    [
        (1.0, 1, False, 1.0),
        (9.0, 1, False, 1.0),
        (9.0, 1, True, 0.1),
        (9.0, 20, False, 0.1),
        (1000.0, 20, False, 1e-3),
        (100.0, 20, False, None),
        (60.0, 1, False, None),
        (0.001, 20, True, 1e3),
        (0.0, 20, False, 1.0),
    ],
)
def test_units_by_amplitude(
    amplitude: float, n_records: int, is_code: bool, expected: float | None
) -> None:
    assert unit_by_amplitude(amplitude, n_records, is_code=is_code) == expected
