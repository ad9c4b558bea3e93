"""What each command takes, and an example of it; `src.options` turns settings into options."""

from __future__ import annotations

import argparse

from src.commands.options import (
    add_data,
    add_settings,
    at_least,
    count,
    count_or_none,
    list_of,
    name_value,
    threshold_rule,
)
from src.config import (
    ExecutionConfig,
    LoaderConfig,
    ModelConfig,
    PreprocessConfig,
    SplitConfig,
    TrainConfig,
)
from src.processed.splits import SPLIT_NAMES
from src.utils import project_paths

# named here too, since the modules that have them are heavy
KINDS = (
    "ptbxl",
    "challenge",
    "challenge2017",
    "cpsc2018",
    "sph",
    "csv",
)  # src.label_builders.BUILDERS
SALIENCY_METHODS = ("integrated_gradients", "grad_cam", "occlusion")  # src.saliency.METHODS
FIGURE_FORMATS = ("png", "svg", "pdf")  # src.figures.SAVE_SUFFIXES

EXAMPLES = {
    "sample-data": "data/example --records 216",
    "check": "--mapping logs/mine.csv --data mine=data/mine",
    "labels": (
        "csv --root data/mine --dataset mine --columns record_id=file mapped_label=diagnosis "
        "--out logs/mine.csv"
    ),
    "preprocess": (
        "--mapping logs/mine.csv --data mine=data/mine --fs 100 --n-samples 1000 --out "
        "artifacts/mine"
    ),
    "train": "--processed artifacts/mine --run mine --epochs 20",
    "evaluate": (
        "--checkpoint artifacts/runs/mine/models/best.pth --processed artifacts/mine --split "
        "test --intervals 1000 --out artifacts/runs/mine"
    ),
    "predict": (
        "--checkpoint artifacts/runs/mine/models/best.pth --out answers.csv --saliency maps "
        "data/mine"
    ),
    "export": (
        "--checkpoint artifacts/runs/mine/models/best.pth --out mine.onnx --processed "
        "artifacts/mine"
    ),
    "export-dataset": "--processed artifacts/mine --out exported",
    "smoke": "--data mine=data/mine --mapping logs/mine.csv",
    "compare": "mine tuned",
    "compare-predictions": (
        "artifacts/runs/mine/predictions_test.npz artifacts/runs/tuned/predictions_test.npz "
        "--manifest artifacts/mine/manifest.csv"
    ),
    "leave-one-out": "--processed artifacts/union --out artifacts/runs/elsewhere --epochs 20",
    "cross-fit": "--processed artifacts/ptbxl100 --out artifacts/runs/cross_fit --parts 4",
    "report": "--run mine --processed artifacts/mine",
    "demo": "--out executed.ipynb",
}
"""Command -> an example of its arguments, which its help ends with."""


class Help(argparse.HelpFormatter):
    """Leaves room for long option names, and examples as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keep an example on one line, to be copied."""
        return text if text.startswith("example:") else super()._fill_text(text, width, indent)


def add_sample_data(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sample-data`."""
    parser.add_argument("dest", metavar="DEST", help="folder to write into")
    parser.add_argument(
        "--records",
        type=at_least(3),
        default=180,
        metavar="N",
        help="records over all collections (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="S",
        help="seed of the generator (default: %(default)s)",
    )


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    add_data(parser, required=True)
    parser.add_argument(
        "--probe",
        type=count,
        default=20,
        metavar="N",
        help="records of each collection to read (default: %(default)s)",
    )
    add_settings(parser, PreprocessConfig)
    add_settings(
        parser, ExecutionConfig, skip=("on_error", "chunk_size", "max_failed", "shard_above")
    )


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `labels`."""
    parser.add_argument(
        "kind",
        choices=KINDS,
        metavar="KIND",
        help="ptbxl; challenge (PhysioNet/CinC 2020 and 2021); challenge2017; cpsc2018; sph "
        "(Shandong Provincial Hospital); or csv, any table with a row per record",
    )
    parser.add_argument(
        "--root",
        required=True,
        metavar="DIR",
        help="folder of the recordings; the collection's own table is looked for there, for "
        "most kinds also right below and up to two folders above",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="CSV",
        help="label table to make or extend; the dataset's own rows are replaced, those of "
        "others stay",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="name of the dataset in the table, as in --data NAME=DIR (default: KIND)",
    )
    parser.add_argument(
        "--task",
        metavar="T",
        help="the collection's own labels: ptbxl superclass, subclass, diagnostic, form, "
        "rhythm or all, or several as superclass+all; challenge scored or all; "
        "challenge2017 rhythm; cpsc2018 nine; sph all; csv labels (default: the first)",
    )
    parser.add_argument(
        "--classes",
        metavar="SET",
        help="instead of a task, a label set that collections share: ptbxl_superclass, "
        "challenge2021 (its 26 scored classes), crosswalk (every class), or a CSV of your "
        "own with the columns class and codes; docs/crosswalk.md explains them (default: "
        "none)",
    )
    parser.add_argument(
        "--rate",
        type=int,
        choices=(100, 500),
        help="ptbxl: which of its two rates to label, in Hz (default: the one that is there, "
        "500 where both are)",
    )
    parser.add_argument(
        "--min-likelihood",
        type=float,
        default=0.0,
        metavar="P",
        help="ptbxl: smallest likelihood, 0 to 100, of a statement that counts; 0 counts all, "
        "as the published benchmarks do, since likelihood 0 means ungraded (default: "
        "%(default)g)",
    )
    parser.add_argument(
        "--unvalidated-weight",
        type=float,
        default=1.0,
        metavar="W",
        help="ptbxl: weight in training, 0 to 1, of the records whose statements no human "
        "validated, a third of folds 1 to 8 and none of 9 and 10 (default: %(default)g)",
    )
    parser.add_argument(
        "--columns",
        type=name_value,
        nargs="+",
        action="extend",
        default=[],
        metavar="OURS=THEIRS",
        help="csv: which of its columns is our record_id, mapped_label, patient_id, fold, "
        "path, age, sex, annotated or weight (default: those of the same names)",
    )
    parser.add_argument(
        "--table",
        metavar="CSV",
        help="csv: the table, by its path or its name in DIR (default: the only .csv or .tsv "
        "in DIR)",
    )
    parser.add_argument(
        "--separator",
        default=";",
        metavar="TEXT",
        help="csv: what stands between the labels of one record (default: %(default)s)",
    )


def add_preprocess(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `preprocess`."""
    add_data(parser, required=True)
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="folder or URL that gets records/, manifest.csv and splits.json",
    )
    parser.add_argument(
        "--figures",
        metavar="DIR",
        help="gets a page on the quality of each collection (default: none)",
    )
    _add_figure_format(parser)
    for kind in (PreprocessConfig, SplitConfig, ExecutionConfig):
        add_settings(parser, kind)


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    parser.add_argument(
        "--processed",
        default=str(project_paths().processed),
        metavar="DIR",
        help="folder that preprocess filled (default: artifacts/processed)",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--out",
        metavar="RUN",
        help="folder of the run: gets models/, training_log.json and figures/",
    )
    where.add_argument("--run", metavar="NAME", help="name of the run, kept in artifacts/runs/NAME")
    _add_figure_format(parser)
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="JSON settings; options given here come before it (default: none)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from models/latest.pth where there is one (default: off)",
    )
    for kind in (TrainConfig, ModelConfig, LoaderConfig):
        add_settings(parser, kind)


def add_leave_one_out(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `leave-one-out`."""
    parser.add_argument(
        "--processed",
        default=str(project_paths().processed),
        metavar="DIR",
        help="folder that preprocess filled (default: artifacts/processed)",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="gets leave_one_out.json and a run per dataset"
    )
    parser.add_argument(
        "--datasets",
        type=list_of(str),
        default=(),
        metavar="A,B,...",
        help="datasets to leave out, one at a time (default: each in turn)",
    )
    _add_intervals(parser)
    _add_training(parser)


def add_cross_fit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cross-fit`."""
    parser.add_argument(
        "--processed",
        default=str(project_paths().processed),
        metavar="DIR",
        help="folder that preprocess filled (default: artifacts/processed)",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="gets predictions_cross_fit.npz and a run per part",
    )
    parser.add_argument(
        "--parts",
        type=count,
        default=4,
        metavar="N",
        help="parts of the training records, each answered for by a network that learned the "
        "others (default: %(default)s)",
    )
    _add_training(parser)


def _add_intervals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--intervals",
        type=count_or_none,
        default=0,
        metavar="N",
        help="confidence intervals from N bootstrap resamples of patients, such as 1000; 0 "
        "gives none (default: %(default)s)",
    )


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="best.pth or latest.pth of a run"
    )
    parser.add_argument(
        "--processed", required=True, metavar="DIR", help="folder that preprocess filled"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=SPLIT_NAMES,
        help="which records to judge (default: %(default)s)",
    )
    parser.add_argument(
        "--out", required=True, metavar="RUN", help="gets metrics, predictions and figures/"
    )
    parser.add_argument(
        "--keep-other",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="judge records with the fallback label too (default: off)",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="judge recordings that the model was trained on, too (default: off, which refuses "
        "them)",
    )
    _add_intervals(parser)
    parser.add_argument(
        "--thresholds",
        type=threshold_rule,
        default="none",
        metavar="RULE",
        help="decision thresholds for several labels, chosen on the validation split: f1 "
        "(greatest F1), sensitivity=X (highest that reaches it), or none (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="calibrate the probabilities on the validation split: a temperature for one label "
        "per record, a sigmoid per class for several (default: off)",
    )
    parser.add_argument(
        "--challenge-weights",
        metavar="CSV",
        help="score as the PhysioNet/CinC Challenge 2021 with its weights.csv (default: none)",
    )
    _add_figure_format(parser)
    _add_running(parser)


def add_smoke(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `smoke`."""
    add_data(parser, required=False)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `compare`."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of runs, or names given to train --run"
    )


def add_compare_predictions(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `compare-predictions`."""
    for name in ("a", "b"):
        parser.add_argument(
            name, metavar=f"{name.upper()}.npz", help="predictions that evaluate wrote"
        )
    parser.add_argument(
        "--manifest",
        metavar="CSV",
        help="manifest.csv of the processed folder, for the patients (default: each record is "
        "its own)",
    )
    parser.add_argument(
        "--resamples",
        type=count,
        default=1000,
        metavar="N",
        help="bootstrap resamples of patients (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="S",
        help="seed of the resamples (default: %(default)s)",
    )


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="record files, folders (searched through), URLs of these, or globs",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint to use (default: artifacts/pretrained/superclass.pth, or "
        "artifacts/models/best.pth where that is missing)",
    )
    parser.add_argument("--out", required=True, metavar="CSV", help="gets a row per record")
    parser.add_argument(
        "--source-fs",
        type=float,
        metavar="HZ",
        help="sampling rate of files that do not say it (default: none)",
    )
    parser.add_argument(
        "--source-gain",
        type=float,
        metavar="ADU_PER_MV",
        help="gain of files that do not say it (default: none)",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="do not mark recordings that the model was trained on (default: off)",
    )
    parser.add_argument(
        "--saliency",
        metavar="DIR",
        help="gets a drawing (.png) and the numbers (.npz) of what the most probable class of "
        "each record rests on (default: none)",
    )
    parser.add_argument(
        "--saliency-method",
        choices=SALIENCY_METHODS,
        default=SALIENCY_METHODS[0],
        help="how that is found (default: %(default)s)",
    )
    _add_running(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="best.pth or latest.pth of a run"
    )
    parser.add_argument(
        "--format",
        choices=("onnx",),
        default="onnx",
        help="needs requirements-export.txt (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="NAME.onnx; NAME.json beside it tells the input",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="write NAME_int8.onnx as well, with weights of 8 bits (default: off)",
    )
    parser.add_argument(
        "--processed",
        metavar="DIR",
        help="compare the files with the checkpoint on records of this folder (default: none)",
    )
    parser.add_argument(
        "--split", default="val", choices=SPLIT_NAMES, help="which of them (default: %(default)s)"
    )


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `report`."""
    parser.add_argument(
        "--run",
        required=True,
        metavar="DIR",
        help="folder of the run, or the name given to train --run",
    )
    parser.add_argument(
        "--processed",
        metavar="DIR",
        help="folder that preprocess filled (default: processed/ in the run or "
        "artifacts/processed, where it holds the records judged)",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="the page (default: report.html in the run's folder)"
    )
    parser.add_argument(
        "--examples",
        type=count_or_none,
        default=6,
        metavar="N",
        help="records with their ECG: N of the worst mistakes and N typical ones (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--saliency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="shade what the answers for them rest on; takes seconds for each (default: on)",
    )


def add_export_dataset(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export-dataset`."""
    parser.add_argument(
        "--processed", required=True, metavar="DIR", help="folder that preprocess filled"
    )
    parser.add_argument(
        "--format",
        choices=("parquet",),
        default="parquet",
        help="it needs requirements-datasets.txt (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="gets a file per split")
    parser.add_argument(
        "--keep-other",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="write records with the fallback label too (default: off)",
    )


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    parser.add_argument(
        "--out",
        default="artifacts/notebook_executed.ipynb",
        metavar="FILE",
        help="the executed copy (default: %(default)s)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="JSON settings that come before the notebook's own (default: none)",
    )


def _add_figure_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--figure-format",
        choices=FIGURE_FORMATS,
        default="png",
        metavar="FORMAT",
        help="of the figures: png, or svg or pdf, which stay sharp at any size (default: "
        "%(default)s)",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=count,
        default=64,
        metavar="N",
        help="records per batch (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
