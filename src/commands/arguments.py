"""The arguments and an example of each command."""

from __future__ import annotations

import argparse

from src.commands.options import (
    add_data,
    add_settings,
    at_least,
    count,
    count_or_none,
    file_to_write,
    folder_or_url_to_write,
    folder_to_write,
    lead_names,
    list_of,
    name_value,
    share,
    threshold_rule,
    without_name,
)
from src.config import (
    PRESETS,
    SPLIT_NAMES,
    ExecutionConfig,
    LoaderConfig,
    ModelConfig,
    PreprocessConfig,
    SplitConfig,
    TrainConfig,
)
from src.utils import project_paths

# Copies of names in modules that are too heavy to import for --help; a test compares them.
KINDS = (
    *("ptbxl", "challenge", "challenge2017", "cpsc2018", "sph", "code15", "chapman", "georgia"),
    *("ptb", "mimic-iv-ecg", "echonext", "chagas2025", "ludb", "mitbih", "afdb"),
    *("annotations", "csv"),
)
COLLECTIONS = ("mitdb", "afdb", "svdb", "ltafdb", "nsrdb", "incartdb", "cpsc2021", "icentia11k")
SALIENCY_METHODS = ("integrated_gradients", "grad_cam", "occlusion")
LONG_MODES = ("mean", "first", "max")
FIGURE_FORMATS = ("png", "svg", "pdf")
TABLE_FORMATS = ("csv", "json", "parquet")
TARGETS = ("auto", "single", "multi")
DISTURBANCES = (
    "none",
    "leads",
    "noise",
    "wander",
    "hum",
    "offset",
    "gain",
    "limb swap",
    "length",
    "rate",
)

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
    "networks": "--n-samples 1000",
    "train": "--processed artifacts/mine --run mine --epochs 20",
    "evaluate": (
        "--checkpoint artifacts/runs/mine/models/best.pth --processed artifacts/mine --split "
        "test --intervals 1000 --out artifacts/runs/mine"
    ),
    "predict": (
        "--checkpoint artifacts/runs/mine/models/best.pth --out predictions.csv --saliency maps "
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
    "cross-validate": (
        "--processed artifacts/mine --out artifacts/runs/folds --folds 5 --intervals 1000"
    ),
    "label-issues": (
        "--predictions artifacts/runs/folds/predictions_cross_validation.npz --processed "
        "artifacts/mine --out issues.csv --page issues.html"
    ),
    "relabel": "--decisions decisions.csv --mapping logs/mine.csv --out logs/mine_relabelled.csv",
    "recalibrate": (
        "--checkpoint artifacts/pretrained/superclass.pth --processed artifacts/mine --out mine.pth"
    ),
    "stress": (
        "--checkpoint artifacts/runs/mine/models/best.pth --processed artifacts/mine --out "
        "artifacts/runs/mine --kinds leads noise"
    ),
    "embed": (
        "--checkpoint artifacts/runs/mine/models/best.pth --processed artifacts/mine --out "
        "artifacts/runs/mine/features.npz"
    ),
    "probe": (
        "--features artifacts/runs/mine/features.npz --processed artifacts/mine --intervals 1000 "
        "--out artifacts/runs/probe"
    ),
    "report": "--run mine --processed artifacts/mine",
    "demo": "--out executed.ipynb",
}
"""Command -> example arguments, shown at the end of its help."""


class Help(argparse.HelpFormatter):
    """Help with room for long option names, and with examples on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap text, but not an example, so that it can be copied."""
        if text.startswith("example:"):
            return text
        return super()._fill_text(text, width, indent)


def add_sample_data(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sample-data`."""
    parser.add_argument("dest", type=folder_to_write, metavar="DEST", help="folder to write to")
    parser.add_argument(
        "--records",
        type=at_least(3),
        default=180,
        metavar="N",
        help="number of records in all collections (default: %(default)s)",
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
        help="records to read from each collection (default: %(default)s)",
    )
    unused = ("on_error", "chunk_size", "max_failed", "shard_above")
    add_settings(parser, (PreprocessConfig, ExecutionConfig), skip=unused)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `labels`."""
    parser.add_argument(
        "kind",
        choices=KINDS,
        metavar="KIND",
        help="ptbxl; challenge (PhysioNet/CinC 2020, 2021, 2024 and 2025); challenge2017; "
        "cpsc2018; sph (Shandong Provincial Hospital); code15; chapman (and Ningbo); georgia; ptb; "
        "mimic-iv-ecg; echonext; chagas2025; ludb; mitbih; afdb; annotations (WFDB annotation "
        "files of any collection); or csv, for any table of records; see docs/collections.md",
    )
    parser.add_argument(
        "--root",
        required=True,
        metavar="DIR",
        help="folder of the recordings; the collection's own table is searched there, for most "
        "kinds also one folder below and up to two above",
    )
    parser.add_argument(
        "--out",
        type=file_to_write,
        required=True,
        metavar="CSV",
        help="label mapping to create or extend; rows of this dataset are replaced, those of "
        "others are kept",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="name of the dataset in the mapping, as in --data NAME=DIR (default: KIND)",
    )
    parser.add_argument(
        "--task",
        metavar="T",
        help="label set of the collection: ptbxl superclass, subclass, diagnostic, form, rhythm "
        "or all, or several as superclass+all; challenge scored or all; challenge2017 "
        "rhythm; cpsc2018 nine; sph all; code15 findings or normal; chapman, georgia and ptb "
        "scored or all; mimic-iv-ecg statements; echonext disease or findings; chagas2025 chagas; "
        "ludb rhythm, axis, conduction or all; annotations, mitbih and afdb own; csv labels "
        "(default: the first)",
    )
    parser.add_argument(
        "--classes",
        metavar="SET",
        help="label set shared by several collections, instead of a task: ptbxl_superclass, "
        "challenge2021 (its 26 scored classes), crosswalk (every class), aami (beats by "
        "ANSI/AAMI EC57: N, S, V, F, Q), or your own CSV "
        "with the columns class and codes; see docs/crosswalk.md (default: none)",
    )
    parser.add_argument(
        "--rate",
        type=int,
        choices=(100, 500),
        help="ptbxl: sampling rate of the files to label, in Hz (default: the one present, 500 "
        "if both are)",
    )
    parser.add_argument(
        "--min-likelihood",
        type=float,
        default=0.0,
        metavar="P",
        help="ptbxl: smallest likelihood of a statement that counts, 0 to 100; 0 counts all, as "
        "the published benchmarks do, since likelihood 0 means ungraded (default: "
        "%(default)g)",
    )
    parser.add_argument(
        "--unvalidated-weight",
        type=float,
        default=1.0,
        metavar="W",
        help="ptbxl: training weight, 0 to 1, of records without human validation (a third of "
        "folds 1 to 8, none of folds 9 and 10) (default: %(default)g)",
    )
    parser.add_argument(
        "--columns",
        type=name_value,
        nargs="+",
        action="extend",
        default=[],
        metavar="OURS=THEIRS",
        help="csv: columns for our record_id, mapped_label, patient_id, fold, path, age, sex, "
        "annotated or weight; several columns of labels, or one-hot columns of True and False or "
        "1 and 0 for a class each, as mapped_label=A,B,C or mapped_label=report_* (default: those "
        "of the same names; without one of labels, every column of True and False or 1 and 0)",
    )
    parser.add_argument(
        "--table",
        metavar="CSV",
        help="csv: path of the table, or its name in DIR (default: the only .csv or .tsv in DIR); "
        "mimic-iv-ecg: table of phrases with the columns phrase and class (default: "
        "src/labels/tables/mimic_phrases.csv)",
    )
    parser.add_argument(
        "--separator",
        default=";",
        metavar="TEXT",
        help="csv: text between several labels of a record, \\n for a line and \\t for a tab "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--annotator",
        default="atr",
        metavar="NAME",
        help="annotations: suffix of the annotation files, such as atr or qrs (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--what",
        choices=("rhythm", "beats"),
        default="",
        help="annotations: rhythm, a row from each change to the next, or beats, a row for each "
        "(default: none, it must be given)",
    )
    parser.add_argument(
        "--collection",
        choices=COLLECTIONS,
        default="",
        help="annotations: known collection, whose settings are used (default: the one that "
        "--dataset names, if any)",
    )


def add_preprocess(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `preprocess`."""
    add_data(parser, required=True)
    parser.add_argument(
        "--out",
        type=folder_or_url_to_write,
        required=True,
        metavar="DIR",
        help="folder or URL for records/, manifest.csv and splits.json",
    )
    parser.add_argument(
        "--figures",
        type=folder_to_write,
        metavar="DIR",
        help="write a page on the signal quality of each collection to DIR (default: none)",
    )
    _add_figure_format(parser)
    add_settings(parser, (PreprocessConfig, SplitConfig, ExecutionConfig))


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `networks`."""
    parser.add_argument(
        "--n-samples",
        type=count,
        default=250,
        metavar="N",
        help="samples of the records that the speed is measured on (default: %(default)s)",
    )
    _add_running(parser)


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    _add_processed(parser, is_required=False)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--out",
        type=folder_to_write,
        metavar="RUN",
        help="folder of the run, for models/, training_log.json and figures/",
    )
    where.add_argument(
        "--run",
        metavar="NAME",
        help="name of the run, which is then written to artifacts/runs/NAME",
    )
    _add_figure_format(parser)
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_mutually_exclusive_group()
    recipe.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="standard",
        help="whole recipe that the options change: quick = a first answer, standard = the "
        "defaults, long = most epochs (default: %(default)s)",
    )
    recipe.add_argument(
        "--config",
        metavar="FILE",
        help="JSON settings file; command-line options override it (default: none)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume from models/latest.pth if it exists (default: off)",
    )
    parser.add_argument(
        "--tensorboard",
        action=_Replaced,
        nargs=0,
        const="--track tensorboard",
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    add_settings(parser, (TrainConfig, ModelConfig, LoaderConfig))


class _Replaced(argparse.Action):
    """An option that another one has replaced, which `const` names."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
        parser.error(f"{self.option_strings[0]} is no option any more: use {self.const}")


def add_leave_one_out(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `leave-one-out`."""
    _add_processed(parser, is_required=False)
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="DIR",
        help="folder for leave_one_out.json and a run per dataset",
    )
    parser.add_argument(
        "--datasets",
        type=list_of(str),
        default=(),
        metavar="A,B,...",
        help="datasets to leave out, one at a time (default: all in turn)",
    )
    _add_intervals(parser)
    _add_training(parser)


def add_cross_fit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cross-fit`."""
    _add_processed(parser, is_required=False)
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="DIR",
        help="folder for predictions_cross_fit.npz and a run per part",
    )
    parser.add_argument(
        "--parts",
        type=count,
        default=4,
        metavar="N",
        help="number of parts of the training records; each is predicted by a network trained "
        "on the others (default: %(default)s)",
    )
    _add_training(parser)


def add_cross_validate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cross-validate`."""
    _add_processed(parser, is_required=False)
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="DIR",
        help="folder for metrics, predictions and a run per fold; given as a checkpoint, it is all "
        "networks as one",
    )
    parser.add_argument(
        "--folds",
        type=count,
        default=5,
        metavar="N",
        help="number of folds of the train and val records, by patient (default: %(default)s)",
    )
    _add_intervals(parser)
    _add_training(parser)


def add_label_issues(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `label-issues`."""
    parser.add_argument(
        "--predictions",
        required=True,
        metavar="FILE",
        help="out-of-fold predictions of cross-fit or cross-validate; or a file as for evaluate "
        "--predictions, of a model that was not trained on its records",
    )
    _add_processed(parser)
    parser.add_argument(
        "--out", type=file_to_write, required=True, metavar="CSV", help="ranked table to write"
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="one label per record or several, as for evaluate --predictions; auto = as the "
        "predictions say (default: %(default)s)",
    )
    parser.add_argument(
        "--page",
        type=file_to_write,
        metavar="FILE",
        help="also write an HTML file with the ECGs, to decide on them by keys (default: none)",
    )
    parser.add_argument(
        "--examples",
        type=count,
        default=50,
        metavar="N",
        help="records on the page, the most suspicious first (default: %(default)s)",
    )


def add_relabel(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `relabel`."""
    parser.add_argument(
        "--decisions",
        required=True,
        metavar="CSV",
        help="table that the page of label-issues saved",
    )
    parser.add_argument(
        "--mapping",
        required=True,
        metavar="CSV",
        help="label mapping that the records were preprocessed with; it stays as it is",
    )
    parser.add_argument(
        "--out",
        type=file_to_write,
        required=True,
        metavar="CSV",
        help="label mapping to write, with the changed labels and without the dropped records",
    )


def _add_processed(parser: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    text = "folder written by preprocess"
    parser.add_argument(
        "--processed",
        required=is_required,
        default=None if is_required else str(project_paths().processed),
        metavar="DIR",
        help=text if is_required else f"{text} (default: artifacts/processed)",
    )


def _add_intervals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--intervals",
        type=count_or_none,
        default=0,
        metavar="N",
        help="confidence intervals from N bootstrap resamples of patients, such as 1000; 0 = "
        "none (default: %(default)s)",
    )


_CHECKPOINT_HELP = (
    "best.pth or latest.pth of a run, or its folder; of several, each given by this option, the "
    "mean logits count"
)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", action="append", required=True, metavar="FILE", help=_CHECKPOINT_HELP
    )
    _add_network(parser)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        metavar="MODULE:FACTORY",
        help="network of the checkpoint, if it is not one of this program's; its code is imported "
        "only when it is named here (default: none)",
    )


def _add_evaluated(
    parser: argparse.ArgumentParser, split: str, *, or_predictions: bool = False
) -> None:
    """Add the arguments that name a checkpoint, or predictions, and the split to evaluate on."""
    if or_predictions:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument(
            "--checkpoint",
            action="append",
            metavar="FILE",
            help=f"{_CHECKPOINT_HELP} (default: none)",
        )
        source.add_argument(
            "--predictions",
            metavar="FILE",
            help="instead of a checkpoint, probabilities from any program: .npz, CSV or Parquet "
            "with record keys and a column for each class (default: none)",
        )
        _add_network(parser)
    else:
        _add_checkpoint(parser)
    _add_processed(parser)
    parser.add_argument(
        "--split",
        default=split,
        choices=SPLIT_NAMES,
        help="split to evaluate (default: %(default)s)",
    )


def _add_allow_overlap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="also evaluate recordings that the model was trained on (default: off, they are "
        "refused)",
    )


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    _add_evaluated(parser, "test", or_predictions=True)
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="RUN",
        help="folder for metrics, predictions and figures/",
    )
    parser.add_argument(
        "--keep-other",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also evaluate records with the fallback label (default: off)",
    )
    _add_allow_overlap(parser)
    _add_intervals(parser)
    parser.add_argument(
        "--thresholds",
        type=threshold_rule,
        default="none",
        metavar="RULE",
        help="decision thresholds for several labels, chosen on the validation split: f1 "
        "(highest F1), sensitivity=X (highest that reaches it), or none (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="calibrate the probabilities on the validation split: a temperature for one label "
        "per record, a sigmoid per class for several (default: off)",
    )
    _add_coverage(parser)
    parser.add_argument(
        "--save",
        type=file_to_write,
        metavar="FILE",
        help="also write the checkpoint to FILE with the thresholds, the calibration and the "
        "limits of coverage in it, which predict then uses; FILE may be the checkpoint itself "
        "(default: none)",
    )
    parser.add_argument(
        "--unlike",
        action="store_true",
        help="also save the training recordings of the processed folder in short, by which predict "
        "says how unlike them a recording is; goes with --save (default: off)",
    )
    parser.add_argument(
        "--challenge-weights",
        metavar="CSV",
        help="weights.csv of the PhysioNet/CinC Challenge 2021, to compute its score (default: "
        "none)",
    )
    _add_predictions(parser)
    _add_figure_format(parser)
    _add_running(parser)


def _add_coverage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--coverage",
        type=share,
        metavar="X",
        help="fit limits on the validation split, by class and patient, with which the true answer "
        "is not excluded in this share of the records, such as 0.9; predict then names the classes "
        "that are not sure (default: none)",
    )


def _add_predictions(parser: argparse.ArgumentParser) -> None:
    """Add the options that go with --predictions alone; a checkpoint knows its task."""
    group = parser.add_argument_group("with --predictions")
    group.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="single = one label per record, the most probable; multi = several, each from its "
        "threshold on; auto = single if every record of the folder carries exactly one of the "
        "classes (default: %(default)s)",
    )
    group.add_argument(
        "--keep-negative",
        action="store_true",
        help="with several labels, also evaluate records without any class (default: off, but on "
        "for a single class)",
    )
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="evaluate the other records where some of the split have no prediction (default: "
        "off, they are refused)",
    )


def add_recalibrate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `recalibrate`."""
    _add_checkpoint(parser)
    _add_processed(parser)
    parser.add_argument(
        "--split",
        default="val",
        choices=SPLIT_NAMES,
        help="split to fit on; test is refused (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=file_to_write, required=True, metavar="FILE", help="checkpoint to write"
    )
    parser.add_argument(
        "--thresholds",
        type=threshold_rule,
        metavar="RULE",
        help="decision thresholds for several labels: f1 (highest F1), sensitivity=X (highest that "
        "reaches it), or none (default: f1; none with one label per record)",
    )
    _add_coverage(parser)
    _add_running(parser)


def add_stress(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `stress`."""
    _add_evaluated(parser, "val")
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="RUN",
        help="folder for stress_<split>.json, .csv, figures/",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=DISTURBANCES,
        choices=DISTURBANCES,
        metavar="KIND",
        help=f"kinds of disturbance, of {', '.join(DISTURBANCES)} (default: all)",
    )
    parser.add_argument(
        "--max-records",
        type=count_or_none,
        default=0,
        metavar="N",
        help="evaluate this many records, drawn at random; 0 takes all (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="S",
        help="seed of the disturbances (default: %(default)s)",
    )
    _add_allow_overlap(parser)
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
        help="manifest.csv of the processed folder, to resample by patient (default: each "
        "record is its own patient)",
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
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="also compare recordings that a model was trained on (default: off, they are refused)",
    )


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="record files, folders (searched recursively), URLs of these, or globs",
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        metavar="FILE",
        help="checkpoint to use; of several, each given by this option, the mean logits count "
        "(default: artifacts/pretrained/superclass.pth, or artifacts/models/best.pth if that is "
        "missing)",
    )
    _add_network(parser)
    parser.add_argument(
        "--out",
        type=file_to_write,
        metavar="FILE",
        help="table with a row per record (default: none, a line per record is printed)",
    )
    parser.add_argument(
        "--format",
        choices=TABLE_FORMATS,
        help="format of the table; parquet needs the extra datasets (default: as the suffix of "
        "--out says, else csv)",
    )
    parser.add_argument(
        "--source-fs",
        type=without_name(float),
        metavar="HZ",
        help="sampling rate of files that do not state it (default: none)",
    )
    parser.add_argument(
        "--source-gain",
        type=without_name(float),
        metavar="ADU_PER_MV",
        help="gain of files that do not state it (default: none)",
    )
    parser.add_argument(
        "--leads",
        type=without_name(lead_names),
        default=(),
        metavar="LEADS",
        help="leads of files that do not name them, by place (II,V5; - for a channel not to be "
        "used) or by name (ECG1:II,ECG2:V5) (default: none)",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="do not mark recordings that the model was trained on (default: off)",
    )
    parser.add_argument(
        "--long",
        choices=LONG_MODES,
        default=LONG_MODES[0],
        help="recordings longer than the network's input: mean or max (highest) probability over "
        "their windows, or first = their beginning alone (default: %(default)s)",
    )
    parser.add_argument(
        "--predict-unfit",
        action="store_true",
        help="also write probabilities of recordings with status unfit: too few usable leads, or "
        "a flag that voids the prediction (default: off)",
    )
    parser.add_argument(
        "--timeline",
        type=folder_to_write,
        metavar="DIR",
        help="write to DIR, for each record, the probabilities of its windows in time (.csv), a "
        "figure (.png) and WFDB annotations (.pred); without --out nothing else is predicted "
        "(default: none)",
    )
    parser.add_argument(
        "--saliency",
        type=folder_to_write,
        metavar="DIR",
        help="write a saliency map of the top class (.png, .npz) for each record to DIR "
        "(default: none)",
    )
    parser.add_argument(
        "--saliency-method",
        choices=SALIENCY_METHODS,
        default=SALIENCY_METHODS[0],
        help="method of the saliency maps (default: %(default)s)",
    )
    _add_running(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    _add_checkpoint(parser)
    parser.add_argument(
        "--format",
        choices=("onnx",),
        default="onnx",
        help="file format; needs requirements-export.txt (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=file_to_write,
        required=True,
        metavar="FILE",
        help="NAME.onnx; NAME.json beside it describes the input",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also write NAME_int8.onnx with 8-bit weights (default: off)",
    )
    parser.add_argument(
        "--processed",
        metavar="DIR",
        help="compare the exported files with the checkpoint on records of this folder "
        "(default: none)",
    )
    parser.add_argument(
        "--split",
        default="val",
        choices=SPLIT_NAMES,
        help="split to compare them on (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="also compare recordings that the model was trained on (default: off, they are "
        "refused)",
    )


def add_embed(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `embed`."""
    _add_checkpoint(parser)
    _add_processed(parser)
    parser.add_argument(
        "--out",
        type=file_to_write,
        required=True,
        metavar="FILE",
        help="NAME.npz, or NAME.parquet, which needs requirements-datasets.txt",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="S",
        help="seed of the untrained network (default: %(default)s)",
    )
    _add_running(parser)


def add_probe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `probe`."""
    parser.add_argument("--features", required=True, metavar="FILE", help=".npz that embed wrote")
    _add_processed(parser)
    parser.add_argument(
        "--split",
        default="test",
        choices=("val", "test"),
        help="split to evaluate (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="RUN",
        help="folder for metrics and predictions; random/ in it gets those of the untrained "
        "network",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="single = one label per record, multi = several, auto = single if every training "
        "record carries exactly one (default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        type=list_of(str),
        default=(),
        metavar="A,B,...",
        help="classes to predict (default: all labels of the training records)",
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=0.1,
        metavar="C",
        help="inverse of the L2 penalty, as C of scikit-learn, on standardized features (default: "
        "%(default)s)",
    )
    _add_allow_overlap(parser)
    _add_intervals(parser)


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
        help="folder written by preprocess (default: processed/ in the run or "
        "artifacts/processed, if it holds the evaluated records)",
    )
    parser.add_argument(
        "--out",
        type=file_to_write,
        metavar="FILE",
        help="HTML file to write (default: report.html in the run's folder)",
    )
    parser.add_argument(
        "--examples",
        type=count_or_none,
        default=6,
        metavar="N",
        help="records to show with their ECG: N of the worst mistakes and N typical ones "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--saliency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="shade the samples that the predictions of these records rest on; takes seconds "
        "for each (default: on)",
    )
    _add_network(parser)


def add_export_dataset(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export-dataset`."""
    _add_processed(parser)
    parser.add_argument(
        "--format",
        choices=("parquet",),
        default="parquet",
        help="file format; it needs requirements-datasets.txt (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="DIR",
        help="folder for a file per split",
    )
    parser.add_argument(
        "--keep-other",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also export records with the fallback label (default: off)",
    )


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    parser.add_argument(
        "--out",
        type=file_to_write,
        default="artifacts/notebook_executed.ipynb",
        metavar="FILE",
        help="executed copy to write (default: %(default)s)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="JSON settings file that overrides the notebook's settings (default: none)",
    )


def _add_figure_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--figure-format",
        choices=FIGURE_FORMATS,
        default="png",
        metavar="FORMAT",
        help="file format of the figures: png, or svg or pdf, which stay sharp at any size "
        "(default: %(default)s)",
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
