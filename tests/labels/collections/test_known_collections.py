"""Made-up collections in the layouts that their public pages describe."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import wfdb

from src.labels.builders import build_labels
from src.labels.mapping import COLUMNS, find_problems, iter_rows, load_mapping, update_mapping
from src.labels.matching import match_folder
from src.records.folders import survey_folder
from src.records.reading import read_record

RNG = np.random.default_rng(97)
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def labels_of(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    assert tuple(frame.columns) == COLUMNS
    assert find_problems(frame) == []
    rows = zip(frame["record_id"], frame["mapped_label"], frame["annotated"], strict=True)
    return {name: (labels, annotated) for name, labels, annotated in rows}


def matched(frame: pd.DataFrame, root: Path, tmp_path: Path) -> list[str]:
    """Return the files that the rows of a mapping name, as preprocessing finds them."""
    update_mapping(tmp_path / "mapping.csv", frame)
    matches = match_folder(
        list(iter_rows(load_mapping(tmp_path / "mapping.csv"))), survey_folder(root)
    )
    assert matches.missing == ()
    return sorted(match.found.relative for match in matches.records if match.row is not None)


def header(path: Path, *comments: str, n: int = 1000, fs: int = 500) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.stem
    lines = [f"{name} 1 {fs} {n}", f"{name}.dat 16 1000/mV 16 0 0 0 0 I"]
    path.write_text("\n".join([*lines, *(f"#{text}" for text in comments)]) + "\n")
    path.with_suffix(".dat").write_bytes(bytes(2 * n))


# CODE-15% -----------------------------------------------------------------------------------------

EXAMS = (
    "exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,"
    "normal_ecg,trace_file\n"
    "11,57,True,55.1,True,False,False,False,False,False,5,False,2.1,False,exams_part0.hdf5\n"
    "12,34,False,31.9,False,False,False,False,False,False,6,,,True,exams_part0.hdf5\n"
    "13,71,True,70.0,False,True,False,True,False,,5,,,False,exams_part1.hdf5\n"
    "14,71,True,70.0,False,True,False,True,False,True,7,,,False,exams_part9.hdf5\n"
)


@pytest.fixture
def code15(tmp_path: Path) -> Path:
    root = tmp_path / "code15"
    root.mkdir()
    (root / "exams.csv").write_text(EXAMS)
    for part, ids in (("0", [11, 12]), ("1", [13])):
        with h5py.File(root / f"exams_part{part}.hdf5", "w") as file:
            file["tracings"] = RNG.normal(0, 0.3, (len(ids), 4096, 12)).astype(np.float32)
            file["exam_id"] = np.array(ids)
    return root


def test_code15(code15: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frame = build_labels("code15", code15)
    six = "IAVB;RBBB;LBBB;SB;STach;AF"
    assert labels_of(frame) == {
        "11": ("IAVB", six),
        "12": ("", six),
        "13": ("RBBB;SB", "IAVB;RBBB;LBBB;SB;STach"),
    }
    assert frame[["patient_id", "age", "sex"]].to_numpy().tolist() == [
        ["5", "57", "M"],
        ["6", "34", "F"],
        ["5", "71", "M"],
    ]
    assert "1 records are in parts that are not below the root, skipped (14)" in caplog.text
    assert matched(frame, code15, tmp_path) == [
        "exams_part0.hdf5::11",
        "exams_part0.hdf5::12",
        "exams_part1.hdf5::13",
    ]
    normal = labels_of(build_labels("code15", code15, task="normal"))
    assert normal["12"] == ("NORM", f"{six};NORM")
    scored = labels_of(build_labels("code15", code15, classes="challenge2021"))
    assert scored["13"][0] == "SB;RBBB"


def test_a_cell_that_is_no_flag_is_named(code15: Path) -> None:
    (code15 / "exams.csv").write_text(EXAMS.replace("True,False,False", "maybe,False,False", 1))
    with pytest.raises(ValueError, match=r"exams\.csv: row 2, column 1davb is 'maybe': expected"):
        build_labels("code15", code15)


# Challenge 2025 -----------------------------------------------------------------------------------


def test_chagas2025_from_headers_with_patients_of_code15(tmp_path: Path) -> None:
    root = tmp_path / "chagas"
    header(root / "11.hea", " Age: 57", " Sex: Male", " Chagas label: True", " Source: CODE-15%")
    header(root / "12.hea", " Age: 34", " Sex: Female", " Chagas label: False", " Source: CODE-15%")
    header(root / "s1.hea", " Age: 60", " Chagas label: True", " Source: SaMi-Trop")
    header(root / "x.hea", " Dx: 426783006")
    (root / "exams.csv").write_text(EXAMS)
    frame = build_labels("chagas2025", root)
    assert labels_of(frame) == {
        "11": ("Chagas", "Chagas"),
        "12": ("", "Chagas"),
        "s1": ("Chagas", "Chagas"),
    }
    assert frame["patient_id"].tolist() == ["5", "6", ""]


def test_chagas2025_from_tables(code15: Path) -> None:
    (code15 / "code15_chagas_labels.csv").write_text("exam_id,chagas\n11,True\n13,False\n")
    frame = build_labels("chagas2025", code15)
    assert labels_of(frame) == {"11": ("Chagas", "Chagas"), "13": ("", "Chagas")}
    assert frame["path"].tolist() == ["exams_part0.hdf5", "exams_part1.hdf5"]


# Chapman, Georgia, PTB ----------------------------------------------------------------------------


def test_chapman_georgia_and_ptb_from_headers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header(tmp_path / "WFDBRecords/01/010/JS00001.hea", "Age: 85", "Sex: Male", "Dx: 164889003")
    header(tmp_path / "WFDBRecords/45/454/JS45551.hea", "Age: 40", "Sex: Female", "Dx: 426177001")
    header(tmp_path / "g1/E00001.hea", "Dx: 426783006")
    header(tmp_path / "S0001.hea", "Dx: 164865005")
    with caplog.at_level(logging.WARNING):
        frame = build_labels("chapman", tmp_path)
    assert {name: labels for name, (labels, _) in labels_of(frame).items()} == {
        "JS00001": "AF",
        "JS45551": "SB",
    }
    assert "2 records are of other collections and are skipped (S0001, g1/E00001)" in caplog.text
    # Ningbo looked for bradycardia, Chapman-Shaoxing did not
    assert "Brady" not in labels_of(build_labels("chapman", tmp_path, task="all"))["JS00001"][1]
    assert list(labels_of(build_labels("georgia", tmp_path))) == ["E00001"]
    assert list(labels_of(build_labels("ptb", tmp_path, task="all"))) == ["S0001"]
    with pytest.raises(ValueError, match=r"no header of the collection with #Dx: .* E00001\.hea"):
        build_labels("georgia", tmp_path / "WFDBRecords")


def test_chapman_as_csv(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "chapman"
    (root / "Diagnostics.csv").parent.mkdir()
    (root / "Diagnostics.csv").write_text(
        "FileName,Rhythm,Beat,PatientAge,Gender,VentricularRate\n"
        "MUSE_1,AFIB,RBBB TWC,85,MALE,117\nMUSE_2,SB,NONE,59,FEMALE,52\nMUSE_3,SR,XYZ,20,MALE,70\n"
        "MUSE_4,SR,NONE,20,MALE,70\n"
    )
    signal = np.cumsum(RNG.normal(0, 9, (5000, 12)), axis=0)
    for folder, names in (("ECGData", (1, 2, 3)), ("ECGDataDenoised", (1, 2, 3))):
        (root / folder).mkdir()
        for name in names:
            top = ",".join(LEADS) if folder == "ECGData" else ""
            np.savetxt(
                root / folder / f"MUSE_{name}.csv",
                signal,
                "%.2f",
                delimiter=",",
                header=top,
                comments="",
            )
    with caplog.at_level(logging.WARNING):
        frame = build_labels("chapman", root, task="all")
    labels = {name: labels for name, (labels, _) in labels_of(frame).items()}
    assert labels == {"MUSE_1": "AF;RBBB;TAb", "MUSE_2": "SB", "MUSE_3": "NSR"}
    assert frame["path"].tolist() == [f"ECGData/MUSE_{k}.csv" for k in (1, 2, 3)]
    assert frame[["age", "sex"]].to_numpy().tolist() == [["85", "M"], ["59", "F"], ["20", "M"]]
    assert "1 statements that no phrase knows, with their number of records: 'XYZ' 1" in caplog.text
    record = read_record(root / "ECGData" / "MUSE_1.csv", source_fs=500, source_gain_per_mv=1000)
    np.testing.assert_allclose(record.signal, signal.T / 1000, atol=1e-5)
    assert record.leads == LEADS
    (root / "Diagnostics.csv").rename(root / "Diagnostics.xlsx")
    with pytest.raises(ValueError, match=r"Diagnostics\.xlsx: is a workbook: save it as"):
        build_labels("chapman", root)


# MIMIC-IV-ECG -------------------------------------------------------------------------------------


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    root = tmp_path / "mimic"
    path = "files/p1000/p10000032/s{0}/{0}"
    for study in (40689238, 44458630, 49036311):
        header(root / f"{path.format(study)}.hea")
    (root / "record_list.csv").write_text(
        "subject_id,study_id,file_name,ecg_time,path\n"
        + "".join(
            f"{subject},{study},{study},2180-07-23 08:44:00,{path.format(study)}\n"
            for subject, study in (
                (10000032, 40689238),
                (10000032, 44458630),
                (10000117, 49036311),
                (10000117, 49999999),
            )
        )
    )
    reports = ",".join(f"report_{i}" for i in range(18))
    (root / "machine_measurements.csv").write_text(
        f"subject_id,study_id,cart_id,ecg_time,{reports},bandwidth,rr_interval\n"
        "10000032,40689238,6,2180-07-23,Sinus rhythm,Possible right atrial abnormality,"
        "Borderline ECG" + "," * 17 + "659\n"
        "10000032,44458630,6,2180-05-07,Atrial fibrillation,Left axis deviation,Abnormal ECG"
        + "," * 17
        + "659\n10000117,49036311,6,2181-05-07,Sinus rhythm,Wholly new words,Abnormal ECG"
        + "," * 17
        + "659\n"
    )
    return root


def test_mimic_iv_ecg(mimic: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frame = build_labels("mimic-iv-ecg", mimic)
    rows = labels_of(frame)
    assert {name: labels for name, (labels, _) in rows.items()} == {
        "40689238": "NSR",
        "44458630": "AF;LAD;ABNORMAL",
        "49036311": "NSR;ABNORMAL",
    }
    # In doubt, and so neither present nor absent
    assert "RAAb" not in rows["40689238"][1].split(";")
    assert "RAAb" in rows["44458630"][1].split(";")
    assert frame["patient_id"].tolist() == ["10000032", "10000032", "10000117"]
    assert frame["path"][0] == "files/p1000/p10000032/s40689238/40689238"
    assert "1 records have no signal file below the root" in caplog.text
    assert "with their number of records: 'Wholly new words' 1" in caplog.text
    assert len(matched(frame, mimic, tmp_path)) == 3


def test_mimic_superclasses_take_no_abnormal_ecg_for_normal(mimic: Path) -> None:
    rows = labels_of(build_labels("mimic-iv-ecg", mimic, classes="ptbxl_superclass"))
    assert "49036311" not in rows
    # A right atrial abnormality in doubt leaves hypertrophy open.
    assert rows["40689238"][0] == "NORM"


def test_the_user_may_replace_the_phrases(mimic: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("phrase,class\nsinus rhythm,calm\natrial fibrillation,wild\n")
    frame = build_labels("mimic-iv-ecg", mimic, table=tmp_path / "own.csv")
    assert {name: labels for name, (labels, _) in labels_of(frame).items()} == {
        "40689238": "calm",
        "44458630": "wild",
        "49036311": "calm",
    }


# EchoNext -----------------------------------------------------------------------------------------


@pytest.fixture
def echonext(tmp_path: Path) -> Path:
    root = tmp_path / "echonext"
    root.mkdir()
    wave = np.cumsum(RNG.normal(0, 0.05, (6, 1, 2500, 12)), axis=2)
    for split, rows in (("train", slice(0, 2)), ("val", slice(2, 3)), ("test", slice(3, 4))):
        np.save(root / f"EchoNext_{split}_waveforms.npy", wave[rows])
        np.save(root / f"EchoNext_{split}_tabular_features.npy", RNG.normal(size=(2, 7)))
    (root / "echonext_metadata_100k.csv").write_text(
        ",ecg_key,patient_key,split,age_at_ecg,sex,lvef_value,lvef_lte_45_flag,"
        "shd_moderate_or_greater_flag\n"
        "0,k1,p1,train,60,Male,40,1,1\n1,k2,p2,val,61,Female,60,0,0\n"
        "2,k3,p1,train,62,Male,,0,0\n3,k4,p3,test,63,Female,55,0,1\n4,k5,p3,no_split,64,F,,0,0\n"
    )
    return root


def test_echonext(echonext: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frame = build_labels("echonext", echonext)
    disease = "shd_moderate_or_greater"
    assert labels_of(frame) == {
        "EchoNext_train_waveforms-00000": (disease, disease),
        "EchoNext_val_waveforms": ("", disease),
        "EchoNext_train_waveforms-00001": ("", disease),
        "EchoNext_test_waveforms": (disease, disease),
    }
    assert frame["fold"].tolist() == ["1", "9", "1", "10"]
    assert frame["patient_id"].tolist() == ["p1", "p2", "p1", "p3"]
    assert "1 records are of no split, or its array is missing, skipped (row 6)" in caplog.text
    found = labels_of(build_labels("echonext", echonext, task="findings"))
    assert found["EchoNext_train_waveforms-00000"][0] == f"lvef_lte_45;{disease}"
    # 0 without a measurement is not annotated.
    assert found["EchoNext_train_waveforms-00001"] == ("", disease)
    files = matched(frame, echonext, tmp_path)
    assert files[1] == "EchoNext_train_waveforms.npy::EchoNext_train_waveforms-00000"
    record = read_record(echonext / files[1])
    assert (record.leads, record.fs, record.n_samples) == (LEADS, 250.0, 2500)
    assert "fs_assumed" in record.flags


def test_echonext_arrays_of_another_length_are_refused(echonext: Path) -> None:
    np.save(echonext / "EchoNext_val_waveforms.npy", np.ones((3, 1, 2500, 12)))
    expected = "has 1 rows of split val, EchoNext_val_waveforms.npy holds 3 records"
    with pytest.raises(ValueError, match=expected):
        build_labels("echonext", echonext)


# LUDB ---------------------------------------------------------------------------------------------


def test_ludb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    axis = "Electric axis of the heart: "
    header(
        tmp_path / "data/1.hea",
        *("<age>: 51", "<sex>: F", "<diagnoses>:", "Rhythm: Sinus bradycardia.", axis + "normal."),
        *("I degree AV block.", "Left ventricular hypertrophy.", "Made-up words."),
    )
    header(
        tmp_path / "data/2.hea",
        *("<age>: >89", "<sex>: M", "<diagnoses>:", "Rhythm: Atrial flutter, typical."),
        "Incomplete right bundle branch block.",
    )
    header(tmp_path / "data/3.hea", "<age>: 20", "<sex>: M")
    with caplog.at_level(logging.WARNING):
        frame = build_labels("ludb", tmp_path)
    rhythms = "NSR;SB;STach;SA;IRREGULAR_SINUS;AF;AFL;WAP"
    assert labels_of(frame) == {"1": ("SB", rhythms), "2": ("AFL", rhythms)}
    assert frame[["age", "sex"]].to_numpy().tolist() == [["51", "F"], ["90", "M"]]
    assert "1 records have no <diagnoses> in their header" in caplog.text
    assert "'Made-up words' 1" in caplog.text
    conduction = labels_of(build_labels("ludb", tmp_path, task="conduction"))
    assert {name: labels for name, (labels, _) in conduction.items()} == {
        "1": "IAVB",
        "2": "IRBBB",
    }
    axes = labels_of(build_labels("ludb", tmp_path, task="axis"))
    # An undetermined axis is not annotated.
    assert list(axes) == ["1"] and axes["1"][0] == "AXIS_NORMAL"
    whole = labels_of(build_labels("ludb", tmp_path, task="all"))
    assert whole["1"][0] == "SB;AXIS_NORMAL;IAVB;LVH" and "LAD" not in whole["2"][1].split(";")


# MIT-BIH ------------------------------------------------------------------------------------------


def test_mitbih_and_afdb(tmp_path: Path) -> None:
    header(tmp_path / "201.hea", " 68 M 1019 1035 x1", n=3600, fs=360)
    header(tmp_path / "202.hea", " 68 M 1020 1036 x1", n=3600, fs=360)
    for name in ("201", "202"):
        wfdb.wrann(
            name,
            "atr",
            np.array([10, 100, 1800, 1900]),
            ["+", "N", "+", "V"],
            aux_note=["(N", "", "(AFIB", ""],
            write_dir=str(tmp_path),
        )
    frame = build_labels("mitbih", tmp_path)
    assert frame["mapped_label"].tolist() == ["N", "AFIB"] * 2
    assert set(frame["patient_id"]) == {"201"} and set(frame["dataset"]) == {"mitbih"}
    beats = build_labels("mitbih", tmp_path, what="beats", classes="aami")
    assert beats["mapped_label"].tolist() == ["N", "V"] * 2
    frame = build_labels("afdb", tmp_path)
    assert set(frame["annotated"]) == {"AFIB;AFL;J;N"}
