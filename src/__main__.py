"""The command line: the same calls as the notebook, no logic of its own. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import dataclasses
import io
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from src import __version__
from src.config import (
    Config,
    ExecutionConfig,
    LoaderConfig,
    ModelConfig,
    PreprocessConfig,
    SplitConfig,
    TrainConfig,
    load_config,
)
from src.options import (
    UsageError,
    add_data,
    add_settings,
    count,
    count_or_none,
    list_of,
    name_value,
    read_data,
    read_settings,
    threshold_rule,
)
from src.utils import project_paths, setup_logging

logger = logging.getLogger("src")

_KINDS = ("ptbxl", "challenge", "challenge2017", "cpsc2018", "sph", "csv")  # src.label_builders.BUILDERS, named here to import late
_SALIENCY_METHODS = ("integrated_gradients", "grad_cam", "occlusion")  # src.saliency.METHODS

_FIGURE_FORMATS = ("png", "svg", "pdf")  # src.report_figures.FIGURE_FORMATS, likewise


# Commands ------------------------------------------------------------------------------------------------------------


def sample_data(args: argparse.Namespace) -> int:
    """Write synthetic collections in several formats and rates, with their mapping."""
    from src.sample_data import write_sample_collections

    sample = write_sample_collections(Path(args.dest), n_records=args.records, seed=args.seed)
    roots = " ".join(f"--data {name}={root}" for name, root in sample.data.items())
    _say(f"wrote {args.records} records and {sample.mapping}")
    _say(f"next: python -m src preprocess --mapping {sample.mapping} {roots} --out artifacts/processed")
    return 0


def check(args: argparse.Namespace) -> int:
    """Look at collections without writing: formats, rates, leads, unmatched ids, an estimate of time and space."""
    from src.checks import check_datasets

    report = check_datasets(read_data(args), args.mapping, read_settings(args, PreprocessConfig, PreprocessConfig()), read_settings(args, ExecutionConfig, ExecutionConfig()), args.probe)
    _say(str(report))
    return 0


def labels(args: argparse.Namespace) -> int:
    """Build or extend the mapping for a known collection."""
    from src.label_builders import build_labels
    from src.labels import update_mapping

    frame = build_labels(
        args.kind,
        Path(args.root),
        dataset=args.dataset,
        task=args.task,
        classes=args.classes,
        rate=args.rate,
        min_likelihood=args.min_likelihood,
        unvalidated_weight=args.unvalidated_weight,
        columns=dict(args.columns),
        table=Path(args.table) if args.table else None,
        separator=args.separator,
    )
    update_mapping(args.out, frame)
    _say(f"{args.out}: {len(frame)} rows of {', '.join(sorted(set(frame['dataset'])))}")
    return 0


def preprocess(args: argparse.Namespace) -> int:
    """Turn recordings into record files with a manifest and splits; run again, it does only what is new or changed."""
    from src.preprocessing import run_preprocessing

    summary = run_preprocessing(
        read_data(args),
        args.out,
        mapping=args.mapping,
        config=read_settings(args, PreprocessConfig, PreprocessConfig()),
        splits=read_settings(args, SplitConfig, SplitConfig()),
        execution=read_settings(args, ExecutionConfig, ExecutionConfig()),
    )
    if args.figures:
        from src.report_figures import save_quality_figures

        save_quality_figures(summary.processed, args.figures, args.figure_format)
    _say(str(summary))
    if not summary.by_status.get("ok"):
        raise ValueError(f"{args.out}: not one record could be processed; python -m src check shows why")
    return 0


def train(args: argparse.Namespace) -> int:
    """Train a network on a processed folder."""
    from src.report_figures import save_history_figure
    from src.training import run_training

    config = _training_config(args)
    out = Path(args.out) if args.out else project_paths().artifacts / "runs" / args.run
    result = run_training(config, args.processed, out, resume=args.resume)
    save_history_figure(out, out / "figures", args.figure_format)
    _say(str(result))
    return 0


def _training_config(args: argparse.Namespace) -> Config:
    base = load_config(args.config) if args.config else Config()
    return dataclasses.replace(
        base,
        loader=read_settings(args, LoaderConfig, base.loader),
        model=read_settings(args, ModelConfig, base.model),
        train=read_settings(args, TrainConfig, base.train),
    )


def leave_one_out(args: argparse.Namespace) -> int:
    """Train on all datasets but one and judge on that one, for each in turn."""
    from src.leave_one_out import format_leave_one_out, run_leave_one_out

    rows = run_leave_one_out(_training_config(args), args.processed, args.out, datasets=args.datasets, intervals=args.intervals, resume=args.resume)
    _say(format_leave_one_out(rows))
    return 0


def cross_fit(args: argparse.Namespace) -> int:
    """Make soft targets for train: networks that each leave out a part of the training records answer for it."""
    from src.cross_fit import PREDICTIONS_FILE, run_cross_fit

    predictions = run_cross_fit(_training_config(args), args.processed, args.out, parts=args.parts, resume=args.resume)
    _say(f"{Path(args.out) / PREDICTIONS_FILE}: {len(predictions.keys)} records, {len(predictions.classes)} classes; learn from it with train --soft-targets")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Judge a checkpoint on a split: tables, predictions and figures."""
    from src.eval import evaluate as run
    from src.judging import JudgeOptions
    from src.report_figures import save_evaluation_figures
    from src.staging import local_copy
    from src.utils import device_info

    processed = local_copy(args.processed)
    evaluation = run(
        args.checkpoint,
        processed,
        split=args.split,
        out=args.out,
        batch_size=args.batch_size,
        device=device_info(args.device).device,
        keep_other=args.keep_other,
        options=JudgeOptions(args.intervals, args.thresholds, args.calibrate, args.challenge_weights),
        allow_overlap=args.allow_overlap,
    )
    save_evaluation_figures(evaluation, processed, Path(args.out) / "figures", args.figure_format)
    _say(str(evaluation))
    return 0


def predict(args: argparse.Namespace) -> int:
    """Write a row of class probabilities per record file."""
    from src.checkpoints import default_checkpoint
    from src.file_predictions import predict_to_csv
    from src.utils import device_info

    summary = predict_to_csv(
        args.checkpoint or default_checkpoint(),
        args.paths,
        args.out,
        source_fs=args.source_fs,
        source_gain_per_mv=args.source_gain,
        batch_size=args.batch_size,
        device=device_info(args.device).device,
        allow_overlap=args.allow_overlap,
    )
    _say(f"{args.out}: {summary}")
    if args.saliency:
        _say(_save_saliency(args))
    return 0


def _save_saliency(args: argparse.Namespace) -> str:
    from src.checkpoints import default_checkpoint
    from src.file_predictions import save_saliency

    return save_saliency(
        args.checkpoint or default_checkpoint(),
        args.paths,
        args.saliency,
        method=args.saliency_method,
        source_fs=args.source_fs,
        source_gain_per_mv=args.source_gain,
        device=args.device,
    )


def export(args: argparse.Namespace) -> int:
    """Write a checkpoint in a format that other programs run, with a JSON file that says what it expects."""
    from src.checkpoints import load_checkpoint
    from src.onnx_export import compare_onnx, export_onnx

    checkpoint = load_checkpoint(args.checkpoint)
    files = export_onnx(checkpoint, args.out, int8=args.int8)
    _say(f"wrote {', '.join(map(str, files))}")
    for path in files if args.processed else ():
        if path.suffix == ".onnx":
            _say(str(compare_onnx(checkpoint, path, args.processed, split=args.split)))
    return 0


def export_dataset(args: argparse.Namespace) -> int:
    """Write the records of a processed folder for another library: Parquet (Hugging Face datasets) or braindecode."""
    from src.dataset_export import export_dataset as run

    _say(str(run(args.processed, args.out, kind=args.format, keep_other=args.keep_other)))
    return 0


def smoke(args: argparse.Namespace) -> int:
    """Take 10 records through everything: read, preprocess, batch, forward, train, evaluate."""
    from src.smoke import run_smoke

    if args.mapping and not args.data:
        raise UsageError("--mapping is given without --data: expected the collections that it labels")
    _say(str(run_smoke(Config(), read_data(args), args.mapping)))
    return 0


def compare(args: argparse.Namespace) -> int:
    """Tabulate training runs side by side."""
    import pandas as pd

    from src.training import compare_runs

    runs = compare_runs([_run_folder(run) for run in args.runs])
    _say(pd.DataFrame(runs).set_index("run").T.to_string())
    return 0


def _run_folder(run: str) -> Path:
    """Return the folder of a run, given by its path or by the name that train --run had."""
    return Path(run) if Path(run).exists() else project_paths().artifacts / "runs" / run


def report(args: argparse.Namespace) -> int:
    """Write a run as one HTML page: data, training, results, mistakes with their ECGs, settings."""
    from src.report import write_report

    page = write_report(_run_folder(args.run), args.processed, args.out, n_examples=args.examples, with_saliency=args.saliency)
    _say(f"{page}: open it in a browser")
    return 0


def compare_predictions(args: argparse.Namespace) -> int:
    """Test whether two sets of predictions for the same records differ."""
    from src.intervals import format_comparison
    from src.judging import compare_prediction_files

    _say(format_comparison(compare_prediction_files(args.a, args.b, args.manifest, n_resamples=args.resamples, seed=args.seed)))
    return 0


def demo(args: argparse.Namespace) -> int:
    """Run the notebook from top to bottom, on generated recordings unless its configuration names others."""
    from src.notebook import run_notebook

    executed = run_notebook(out=args.out, config=args.config)
    _say(f"every cell ran; the notebook with its outputs is {executed}")
    return 0


# Parser --------------------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m src", description="ECG recordings to tensors, a trained classifier and its figures.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--quiet", action="store_true", help="log warnings only (default: off)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").strip()
        command = commands.add_parser(name, help=text, description=text, formatter_class=_Help)
        command.set_defaults(run_command=run)
        return command

    _add_sample_data(add("sample-data", sample_data))
    _add_check(add("check", check))
    _add_labels(add("labels", labels))
    _add_preprocess(add("preprocess", preprocess))
    _add_train(add("train", train))
    _add_evaluate(add("evaluate", evaluate))
    _add_predict(add("predict", predict))
    _add_export(add("export", export))
    _add_export_dataset(add("export-dataset", export_dataset))
    add_data(add("smoke", smoke), required=False)
    add("compare", compare).add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or names given to train --run")
    _add_compare_predictions(add("compare-predictions", compare_predictions))
    _add_leave_one_out(add("leave-one-out", leave_one_out))
    _add_cross_fit(add("cross-fit", cross_fit))
    _add_report(add("report", report))
    _add_demo(add("demo", demo))
    return parser


class _Help(argparse.HelpFormatter):
    """Leaves room for long option names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def _add_sample_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dest", metavar="DEST", help="folder to write into")
    parser.add_argument("--records", type=int, default=180, metavar="N", help="records over all collections (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the generator (default: %(default)s)")


def _add_check(parser: argparse.ArgumentParser) -> None:
    add_data(parser, required=True)
    parser.add_argument("--probe", type=count, default=20, metavar="N", help="records of each collection to read (default: %(default)s)")
    add_settings(parser, PreprocessConfig)
    add_settings(parser, ExecutionConfig, skip=("on_error", "chunk_size", "max_failed", "shard_above"))


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=_KINDS, metavar="KIND", help="ptbxl; challenge (PhysioNet/CinC 2020 and 2021); challenge2017; cpsc2018; sph (Shandong Provincial Hospital); or csv, any table with a row per record")
    parser.add_argument("--root", required=True, metavar="DIR", help="folder of the recordings; the collection's table is looked for there, right below and up to two folders above")
    parser.add_argument("--out", required=True, metavar="CSV", help="label table to make or extend; the dataset's own rows are replaced, those of others stay")
    parser.add_argument("--dataset", metavar="NAME", help="name of the dataset in the table, as in --data NAME=DIR (default: KIND)")
    parser.add_argument("--task", metavar="T", help="the collection's own labels: ptbxl superclass, subclass, diagnostic, form, rhythm or all, or several as superclass+all; challenge scored or all; challenge2017 rhythm; cpsc2018 nine; sph all; csv labels (default: the first)")
    parser.add_argument("--classes", metavar="SET", help="instead of a task, a label set that collections share: ptbxl_superclass, challenge2021 (its 26 scored classes), crosswalk (every class), or a CSV of your own with the columns class and codes; docs/crosswalk.md explains them (default: none)")
    parser.add_argument("--rate", type=int, choices=(100, 500), help="ptbxl: which of its two rates to label, in Hz (default: the one that is there, 500 where both are)")
    parser.add_argument("--min-likelihood", type=float, default=0.0, metavar="P", help="ptbxl: smallest likelihood, 0 to 100, of a statement that counts; 0 counts all, as the published benchmarks do, since likelihood 0 means ungraded (default: %(default)g)")
    parser.add_argument("--unvalidated-weight", type=float, default=1.0, metavar="W", help="ptbxl: weight in training, 0 to 1, of the records whose statements no human validated, a third of folds 1 to 8 and none of 9 and 10 (default: %(default)g)")
    parser.add_argument("--columns", type=name_value, nargs="+", action="extend", default=[], metavar="OURS=THEIRS", help="csv: which of its columns is our record_id, mapped_label, patient_id, fold, path, age, sex, annotated or weight (default: those of the same names)")
    parser.add_argument("--table", metavar="CSV", help="csv: the table, by its path or its name in DIR (default: the only .csv or .tsv in DIR)")
    parser.add_argument("--separator", default=";", metavar="TEXT", help="csv: what stands between the labels of one record (default: %(default)s)")


def _add_preprocess(parser: argparse.ArgumentParser) -> None:
    add_data(parser, required=True)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder or URL that gets records/, manifest.csv and splits.json")
    parser.add_argument("--figures", metavar="DIR", help="gets a page on the quality of each collection (default: none)")
    _add_figure_format(parser)
    for kind in (PreprocessConfig, SplitConfig, ExecutionConfig):
        add_settings(parser, kind)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processed", default=str(project_paths().processed), metavar="DIR", help="folder that preprocess filled (default: artifacts/processed)")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="RUN", help="folder of the run: gets models/, training_log.json and figures/")
    where.add_argument("--run", metavar="NAME", help="name of the run, kept in artifacts/runs/NAME")
    _add_figure_format(parser)
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="JSON settings; options given here come before it (default: none)")
    parser.add_argument("--resume", action="store_true", help="go on from models/latest.pth where there is one (default: off)")
    for kind in (TrainConfig, ModelConfig, LoaderConfig):
        add_settings(parser, kind)


def _add_leave_one_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processed", default=str(project_paths().processed), metavar="DIR", help="folder that preprocess filled (default: artifacts/processed)")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets leave_one_out.json and a run per dataset")
    parser.add_argument("--datasets", type=list_of(str), default=(), metavar="A,B,...", help="datasets to leave out, one at a time (default: each in turn)")
    _add_intervals(parser)
    _add_training(parser)


def _add_cross_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processed", default=str(project_paths().processed), metavar="DIR", help="folder that preprocess filled (default: artifacts/processed)")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets predictions_cross_fit.npz and a run per part")
    parser.add_argument("--parts", type=count, default=4, metavar="N", help="parts of the training records, each answered for by a network that learned the others (default: %(default)s)")
    _add_training(parser)


def _add_intervals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--intervals", type=int, default=0, metavar="N", help="confidence intervals from N bootstrap resamples of patients, such as 1000; 0 gives none (default: %(default)s)")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best.pth or latest.pth of a run")
    parser.add_argument("--processed", required=True, metavar="DIR", help="folder that preprocess filled")
    parser.add_argument("--split", default="test", help="train, val or test (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="RUN", help="gets metrics, predictions and figures/")
    parser.add_argument("--keep-other", action=argparse.BooleanOptionalAction, default=False, help="judge records with the fallback label too (default: off)")
    parser.add_argument("--allow-overlap", action="store_true", help="judge recordings that the model was trained on, too (default: off, which refuses them)")
    _add_intervals(parser)
    parser.add_argument("--thresholds", type=threshold_rule, default="none", metavar="RULE", help="decision thresholds for several labels, chosen on the validation split: f1 (greatest F1), sensitivity=X (highest that reaches it), or none (default: %(default)s)")
    parser.add_argument("--calibrate", action="store_true", help="calibrate the probabilities on the validation split: a temperature for one label per record, a sigmoid per class for several (default: off)")
    parser.add_argument("--challenge-weights", metavar="CSV", help="score as the PhysioNet/CinC Challenge 2021 with its weights.csv (default: none)")
    _add_figure_format(parser)
    _add_running(parser)


def _add_compare_predictions(parser: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        parser.add_argument(name, metavar=f"{name.upper()}.npz", help="predictions that evaluate wrote")
    parser.add_argument("--manifest", metavar="CSV", help="manifest.csv of the processed folder, for the patients (default: each record is its own)")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="bootstrap resamples of patients (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the resamples (default: %(default)s)")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="record files, folders (searched through), URLs of these, or globs")
    parser.add_argument("--checkpoint", metavar="FILE", help="checkpoint to use (default: artifacts/pretrained/superclass.pth, or artifacts/models/best.pth where that is missing)")
    parser.add_argument("--out", required=True, metavar="CSV", help="gets a row per record")
    parser.add_argument("--source-fs", type=float, metavar="HZ", help="sampling rate of files that do not say it (default: none)")
    parser.add_argument("--source-gain", type=float, metavar="ADU_PER_MV", help="gain of files that do not say it (default: none)")
    parser.add_argument("--allow-overlap", action="store_true", help="do not mark recordings that the model was trained on (default: off)")
    parser.add_argument("--saliency", metavar="DIR", help="gets a drawing (.png) and the numbers (.npz) of what the most probable class of each record rests on (default: none)")
    parser.add_argument("--saliency-method", choices=_SALIENCY_METHODS, default=_SALIENCY_METHODS[0], help="how that is found (default: %(default)s)")
    _add_running(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best.pth or latest.pth of a run")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="needs requirements-export.txt (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="FILE", help="NAME.onnx; NAME.json beside it tells the input")
    parser.add_argument("--int8", action="store_true", help="write NAME_int8.onnx as well, with weights of 8 bits (default: off)")
    parser.add_argument("--processed", metavar="DIR", help="compare the files with the checkpoint on records of this folder (default: none)")
    parser.add_argument("--split", default="val", help="which of them: train, val or test (default: %(default)s)")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="DIR", help="folder of the run, or the name given to train --run")
    parser.add_argument("--processed", metavar="DIR", help="folder that preprocess filled (default: processed/ in the run or artifacts/processed, where it holds the records judged)")
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in the run's folder)")
    parser.add_argument("--examples", type=count_or_none, default=6, metavar="N", help="records with their ECG: N of the worst mistakes and N typical ones (default: %(default)s)")
    parser.add_argument("--saliency", action=argparse.BooleanOptionalAction, default=True, help="shade what the answers for them rest on; takes seconds for each (default: on)")


def _add_export_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processed", required=True, metavar="DIR", help="folder that preprocess filled")
    parser.add_argument("--format", choices=("parquet", "braindecode"), default="parquet", help="parquet needs requirements-datasets.txt, braindecode itself (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets a file or folder per split")
    parser.add_argument("--keep-other", action=argparse.BooleanOptionalAction, default=False, help="write records with the fallback label too (default: off)")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="artifacts/notebook_executed.ipynb", metavar="FILE", help="the executed copy (default: %(default)s)")
    parser.add_argument("--config", metavar="FILE", help="JSON settings that come before the notebook's own (default: none)")


def _add_figure_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--figure-format", choices=_FIGURE_FORMATS, default="png", metavar="FORMAT", help="of the figures: png, or svg or pdf, which stay sharp at any size (default: %(default)s)")


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=count, default=64, metavar="N", help="records per batch (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")


def _say(text: str) -> None:
    """Answer on standard output; the log goes to standard error."""
    sys.stdout.write(text.rstrip() + "\n")


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which schedulers send before they kill."""


def _stop(signum: int, frame: Any) -> None:
    raise _TerminatedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 interrupted, 143 terminated."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no run
    args = build_parser().parse_args(argv)
    setup_logging(logging.WARNING if args.quiet else logging.INFO)
    signal.signal(signal.SIGTERM, _stop)
    try:
        result: int = args.run_command(args)
        return result
    except KeyboardInterrupt as error:
        terminated = isinstance(error, _TerminatedError)
        again = "with --resume " if "resume" in args else ""
        sys.stderr.write(f"{'terminated' if terminated else 'interrupted'}; run the same command again {again}to go on\n")
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    except (ValueError, OSError, RuntimeError) as error:
        logger.debug("the error in full", exc_info=True)
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1


if __name__ == "__main__":
    sys.exit(main())
