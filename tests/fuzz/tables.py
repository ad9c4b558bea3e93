"""Tables of strangers, each in the smallest form that is read, and how each is read."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from src.labels.builders import build_labels
from src.labels.collections.phrases import load_phrases
from src.labels.crosswalk import load_class_set
from src.labels.mapping import find_problems, iter_rows, load_mapping
from src.labels.matching import match_folder
from src.labels.text_tables import read_table
from src.learning.challenge_score import WeightTable
from src.learning.score_files import load_scores
from src.records.folders import survey_folder
from src.records.formats.wfdb_annotations import read_annotations

from .seeds import MAPPING, Seed

_HEADER = b"A1 1 500 5000\nA1.mat 16+24 1000/mV 16 0 1 1 0 I\n#Age: 74\n#Sex: Male\n"
_PTBXL = (
    "ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr\n"
    "1,15709.0,56.0,1,\"{'NORM': 100.0, 'SR': 0.0}\",3,r/00001_lr,r/00001_hr\n"
    "2,13243.0,300.0,0,\"{'IMI': 15.0, 'NDT': 0.0}\",9,r/00002_lr,r/00002_hr\n"
)
_SPH = (
    "ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date\n"
    "S1.h5,22;23,P1,55,M,5000,2020-03-04\nS2,60+310;145+362,P3,60,F,5000,2020-01-01\n"
)
_CSV = "record_id,mapped_label,patient_id,age,sex\nr1,NORM;SR,p1,57,F\nr2,\"['AF', 'MI']\",p2,,M\n"
_TIMED = (
    "dataset,record_id,mapped_label,patient_id,annotated,start_s,end_s\n"
    "mit,100,N,p1,N;AFIB,0,12.5\nmit,100,AFIB,p1,N;AFIB,12.5,60\nmit,101,V,,,0.25,0.25\n"
    "mit,101,MI,,,,\nmit,102,N,,,,\n"
)
_FLAGS = "record_id,AF,MI,age\nr1,1,0,57\nr2,0,1,\n"
_SCORES = "key,AF,note,NSR\nd__r1,0.25,x,0.75\nd__r2,1,,0\n"
_WEIGHTS = ",426783006,164889003|1\n426783006,1,0.5\n164889003|1,0.5,1\n"

_CODE15 = (
    "exam_id,age,is_male,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,normal_ecg,trace_file\n"
    "11,57,True,True,False,False,False,False,False,5,False,p0.hdf5\n"
    "12,34,False,False,False,False,False,False,,6,True,p0.hdf5\n"
)
_CHAPMAN = "FileName,Rhythm,Beat,PatientAge,Gender\nA1,AFIB,RBBB TWC,85,MALE\nA2,SB,NONE,59,F\n"
_LUDB = "#<age>: 51\n#<sex>: F\n#<diagnoses>:\n#Rhythm: Sinus bradycardia.\n#I degree AV block.\n"
_REPORTS = (
    "subject_id,study_id,report_0,report_1\n1,5,Sinus rhythm,Possible RVH\n1,6,,No ST elevation\n"
)
_PHRASES = "phrase,class\nsinus rhythm,NSR\nabnormal ecg,ABNORMAL\nnormal ecg,\n"

# name -> the table, the files beside it
_TEXTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "mapping": ("m.csv", MAPPING, ()),
    "mapping_timed": ("m.csv", _TIMED, ()),
    "labels_csv": ("t.csv", _CSV, ()),
    "labels_flags": ("t.csv", _FLAGS, ()),
    "labels_ptbxl": ("ptbxl_database.csv", _PTBXL, ("r/00001_lr.hea", "r/00002_lr.hea")),
    "labels_sph": ("metadata.csv", _SPH, ("S1.h5", "S2.h5")),
    "labels_cpsc2018": (
        "REFERENCE.csv",
        "Recording,First_label,Second_label,Third_label\nA1,5,,\nA2,2,5,8\n",
        ("A1.mat", "A2.mat"),
    ),
    "labels_challenge2017": ("REFERENCE.csv", "A1,N\nA2,A\n", ("A1.mat", "A2.mat")),
    "labels_challenge": ("A1.hea", (_HEADER + b"#Dx: 59118001,164889003\n").decode(), ()),
    "labels_code15": ("exams.csv", _CODE15, ("p0.hdf5",)),
    "labels_chapman": ("Diagnostics.csv", _CHAPMAN, ("ECGData/A1.csv", "ECGData/A2.csv")),
    "labels_ludb": ("A1.hea", f"A1 1 500 5000\n{_LUDB}", ()),
    "phrases": ("phrases.csv", _PHRASES, ()),
    "class_set": ("classes.csv", "class,codes\nNORMAL,NORM;426783006\nAF,AFIB\n", ()),
    "weights": ("weights.csv", _WEIGHTS, ()),
    "scores": ("p.csv", _SCORES, ()),
}
TABLES = {
    name: Seed(name, entry, {entry: text.encode(), **dict.fromkeys(beside, b"")})
    for name, (entry, text, beside) in _TEXTS.items()
}
TABLES["labels_mimic-iv-ecg"] = Seed(
    "labels_mimic-iv-ecg",
    "machine_measurements.csv",
    {
        "machine_measurements.csv": _REPORTS.encode(),
        "record_list.csv": b"subject_id,study_id,path\n1,5,f/5\n1,6,f/6\n",
        **dict.fromkeys(("f/5.hea", "f/6.hea"), b""),
    },
)


def use_mapping(path: Path) -> None:
    """Read a label mapping, and match it with the folder that it lies in."""
    read_table(path)
    rows = list(iter_rows(load_mapping(path)))
    match_folder(rows, survey_folder(path.parent))


def use_scores(path: Path) -> None:
    """Read probabilities of another program."""
    load_scores(path, ("AF", "NSR"))


_PAIR = struct.Struct("<H")
# A rhythm, a beat, a jump in time, lost signals, another rhythm, the clock of the file
ANNOTATIONS = Seed(
    "annotations",
    "rec.atr",
    {
        "rec.hea": b"rec 1 100 1000\nrec.dat 16 100/mV 16 0 0 0 0 II\n# 69 M\n",
        "rec.dat": bytes(2000),
        "rec.atr": b"".join(
            item if isinstance(item, bytes) else _PAIR.pack((item[0] << 10) + item[1])
            for item in (
                *((22, 0), (63, 23), b"## time resolution: 100\0"),
                *((28, 5), (63, 2), b"(N", (1, 100), (59, 0), b"\0\0\x40\0", (5, 1)),
                *((14, 9), (61, 255), (28, 90), (63, 5), b"(AFIB\0", (0, 0)),
            )
        ),
    },
)
"""A record with its annotation file."""


def use_annotations(path: Path) -> None:
    """Read the rhythms or the beats of an annotation file, as they are there."""
    read_annotations(path)
    for what in ("rhythm", "beats"):
        frame = build_labels("annotations", path.parent, dataset="d", what=what)
        if problems := find_problems(frame):
            raise AssertionError(f"rows with problems: {problems[:3]}")


def _labels_of(kind: str) -> Callable[[Path], object]:
    return lambda path: build_labels(kind, path.parent, dataset=path.stem)


TABLE_LOADERS: dict[str, Callable[[Path], object]] = {
    "mapping": use_mapping,
    "mapping_timed": use_mapping,
    "labels_flags": _labels_of("csv"),
    **{
        name: _labels_of(name.removeprefix("labels_"))
        for name in TABLES
        if name.startswith("labels_") and name != "labels_flags"
    },
    "class_set": load_class_set,
    "phrases": load_phrases,
    "weights": WeightTable.load,
    "scores": use_scores,
}
"""Table -> what reads it, and raises a ValueError that names it."""
