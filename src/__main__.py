"""The command line: the same calls as the notebook, without logic of its own.

Heavy imports wait until a command needs them. The docstring of a command is its help text.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from src import __version__
from src.commands import arguments
from src.commands.options import read_data, read_mapping, read_settings, require_other_output
from src.config import (
    PRESETS,
    Config,
    ExecutionConfig,
    LoaderConfig,
    ModelConfig,
    PreprocessConfig,
    SplitConfig,
    TrainConfig,
    build_config,
    load_config,
)
from src.utils import UsageError, printable, printable_lines, project_paths, setup_logging

if TYPE_CHECKING:
    from src.learning.checkpoints import Checkpoint

logger = logging.getLogger(__name__)


# Commands -----------------------------------------------------------------------------------------


def sample_data(args: argparse.Namespace) -> int:
    """Write synthetic collections in several formats and rates, with their label mapping.

    A further one, of long annotated records, has no rows in it: labels annotations makes them.
    """
    from src.records.sample_annotated import write_annotated_collection
    from src.records.sample_collections import write_sample_collections

    sample = write_sample_collections(Path(args.dest), n_records=args.records, seed=args.seed)
    roots = " ".join(f"--data {name}={root}" for name, root in sample.data.items())
    annotated = write_annotated_collection(Path(args.dest), seed=args.seed)
    _say(f"wrote {args.records} records and {sample.mapping}")
    _say(f"wrote long annotated records to {annotated} (see docs/annotations.md)")
    _say(
        f"next: python -m src preprocess --mapping {sample.mapping} {roots} --out "
        "artifacts/processed"
    )
    return 0


def check(args: argparse.Namespace) -> int:
    """Check collections without writing: formats, rates, leads, unmatched ids, time and space."""
    from src.commands.dry_run import check_datasets

    config = read_settings(args, PreprocessConfig, PreprocessConfig())
    report = check_datasets(
        read_data(args),
        read_mapping(args, config),
        config,
        read_settings(args, ExecutionConfig, ExecutionConfig()),
        args.probe,
    )
    _say(str(report))
    for dataset in report.datasets:
        if not dataset.n_records:
            raise ValueError(
                f"{dataset.root}: no recording was found; docs/formats.md lists what is read"
            )
    return 0


def labels(args: argparse.Namespace) -> int:
    """Build or extend the label mapping for a known collection."""
    from dataclasses import fields

    from src.labels.builders import build_labels
    from src.labels.collections.rows import LabelOptions
    from src.labels.mapping import update_mapping

    options = {option.name: getattr(args, option.name) for option in fields(LabelOptions)}
    options["columns"] = dict(args.columns)
    frame = build_labels(
        args.kind,
        Path(args.root),
        dataset=args.dataset,
        task=args.task,
        classes=args.classes,
        **options,
    )
    update_mapping(args.out, frame)
    _say(f"{args.out}: {len(frame)} rows of {', '.join(sorted(set(frame['dataset'])))}")
    return 0


def preprocess(args: argparse.Namespace) -> int:
    """Convert recordings to record files; a rerun converts only new or changed ones."""
    from src.preprocessing import run_preprocessing

    config = read_settings(args, PreprocessConfig, PreprocessConfig())
    summary = run_preprocessing(
        read_data(args),
        args.out,
        mapping=read_mapping(args, config),
        config=config,
        splits=read_settings(args, SplitConfig, SplitConfig()),
        execution=read_settings(args, ExecutionConfig, ExecutionConfig()),
    )
    if args.figures:
        from src.plots.saved import save_quality_figures

        save_quality_figures(summary.processed, args.figures, args.figure_format)
    _say(str(summary))
    if not summary.by_status.get("ok"):
        raise ValueError(
            f"{args.out}: not one record could be processed; python -m src check shows why"
        )
    return 0


def train(args: argparse.Namespace) -> int:
    """Train a network on a processed folder."""
    from src.plots.saved import save_history_figure
    from src.training import run_training

    config = _training_config(args)
    out = Path(args.out) if args.out else project_paths().artifacts / "runs" / args.run
    result = run_training(config, args.processed, out, resume=args.resume)
    save_history_figure(out, out / "figures", args.figure_format)
    _say(str(result))
    return 0


def _training_config(args: argparse.Namespace) -> Config:
    base = load_config(args.config) if args.config else build_config(PRESETS[args.preset])
    return dataclasses.replace(
        base,
        loader=read_settings(args, LoaderConfig, base.loader),
        model=read_settings(args, ModelConfig, base.model),
        train=read_settings(args, TrainConfig, base.train),
    )


def networks(args: argparse.Namespace) -> int:
    """List the networks that train takes, with their size and their speed on this machine."""
    from src.commands.networks import format_networks, measure_networks

    rows = measure_networks(
        n_samples=args.n_samples, batch_size=args.batch_size, device=args.device
    )
    _say(format_networks(rows))
    return 0


def leave_one_out(args: argparse.Namespace) -> int:
    """Train on all datasets but one and evaluate on that one, for each in turn."""
    from src.commands.leave_one_out import format_leave_one_out, run_leave_one_out

    rows = run_leave_one_out(
        _training_config(args),
        args.processed,
        args.out,
        datasets=args.datasets,
        intervals=args.intervals,
        resume=args.resume,
    )
    _say(format_leave_one_out(rows))
    return 0


def cross_fit(args: argparse.Namespace) -> int:
    """Make soft targets: train one network per fold and predict the fold it did not see."""
    from src.commands.cross_fit import PREDICTIONS_FILE, run_cross_fit

    predictions = run_cross_fit(
        _training_config(args), args.processed, args.out, parts=args.parts, resume=args.resume
    )
    _say(
        f"{Path(args.out) / PREDICTIONS_FILE}: {len(predictions.keys)} records, "
        f"{len(predictions.classes)} classes; train on them with train --soft-targets"
    )
    return 0


def cross_validate(args: argparse.Namespace) -> int:
    """Cross-validate by patient: train a network per fold and evaluate it on that fold."""
    from src.commands.cross_validate import format_cross_validation, run_cross_validation
    from src.learning.text import format_evaluation

    result = run_cross_validation(
        _training_config(args),
        args.processed,
        args.out,
        folds=args.folds,
        intervals=args.intervals,
        resume=args.resume,
    )
    _say(format_cross_validation(result))
    _say(f"pooled\n{format_evaluation(result['pooled'])}")
    _say(f"predict with all networks by --checkpoint {args.out}")
    return 0


def label_issues(args: argparse.Namespace) -> int:
    """Rank the labels that out-of-fold predictions contradict, with a page to decide on them."""
    from src.commands.label_issues import describe_next_step, run_label_issues

    report = run_label_issues(
        args.predictions,
        args.processed,
        args.out,
        target=args.target,
        page=args.page,
        n_examples=args.examples,
    )
    _say(f"{report}\n{args.out}\n{describe_next_step(args.page, report.issues)}")
    return 0


def relabel(args: argparse.Namespace) -> int:
    """Write a label mapping with the decisions that were made on the page of label-issues."""
    from src.labels.decisions import apply_decisions

    counts = apply_decisions(args.mapping, args.decisions, args.out)
    shown = ", ".join(f"{kind} {n}" for kind, n in counts.items())
    _say(f"{args.out}: {shown or 'no decisions'}; run preprocess with --mapping {args.out}")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate a checkpoint, or predictions from any program, on a split, with figures."""
    from src.eval import EvaluationOptions, evaluate_predictions
    from src.eval import evaluate as run
    from src.learning.checkpoints import load_checkpoint
    from src.plots.saved import save_evaluation_figures
    from src.processed.mirror import local_copy
    from src.utils import device_info

    processed = local_copy(args.processed)
    options = EvaluationOptions(
        args.intervals,
        args.thresholds,
        args.calibrate,
        args.challenge_weights,
        args.coverage,
    )
    if args.predictions:
        if args.save or args.unlike:
            raise UsageError(
                "--save and --unlike go with --checkpoint: predictions are of no checkpoint here"
            )
        evaluation = evaluate_predictions(
            args.predictions,
            processed,
            split=args.split,
            out=args.out,
            target=args.target,
            keep_negative=args.keep_negative,
            keep_other=args.keep_other,
            options=options,
            allow_missing=args.allow_missing,
            allow_overlap=args.allow_overlap,
        )
    else:
        if args.target != "auto" or args.keep_negative or args.allow_missing:
            raise UsageError(
                "--target, --keep-negative and --allow-missing go with --predictions: a checkpoint "
                "knows its task and predicts every record"
            )
        evaluation = run(
            load_checkpoint(args.checkpoint, network=args.network),
            processed,
            split=args.split,
            out=args.out,
            batch_size=args.batch_size,
            device=device_info(args.device).device,
            keep_other=args.keep_other,
            options=options,
            allow_overlap=args.allow_overlap,
            save=args.save,
            unlike=args.unlike,
        )
    save_evaluation_figures(evaluation, processed, Path(args.out) / "figures", args.figure_format)
    _say(str(evaluation))
    if args.save and options.needs_validation:
        _say(f"{args.save}: predicts with what was chosen on the validation split")
    if args.unlike:
        _say(f"{args.save}: tells how unlike the training recordings others are")
    return 0


def recalibrate(args: argparse.Namespace) -> int:
    """Fit calibration and thresholds on records of your own, and write a new checkpoint."""
    from src.commands.recalibrate import describe_decisions
    from src.commands.recalibrate import recalibrate as run
    from src.learning.checkpoints import load_checkpoint
    from src.utils import device_info

    card = run(
        load_checkpoint(args.checkpoint, network=args.network),
        args.processed,
        args.out,
        split=args.split,
        thresholds=args.thresholds,
        coverage=args.coverage,
        batch_size=args.batch_size,
        device=device_info(args.device).device,
    )
    _say(f"{args.out}\n{describe_decisions(card)}")
    return 0


def stress(args: argparse.Namespace) -> int:
    """Evaluate a checkpoint on disturbed recordings: few leads, noise, offsets, short ones."""
    from src.processed.runs.heartbeat import Heartbeat

    with Heartbeat("stress", "loading the libraries"):
        from src.commands.stress import format_stress, run_stress
        from src.learning.checkpoints import load_checkpoint
        from src.plots.canvas import save_figure
        from src.plots.stress import plot_stress
        from src.utils import device_info

    table = run_stress(
        load_checkpoint(args.checkpoint, network=args.network),
        args.processed,
        split=args.split,
        out=args.out,
        kinds=args.kinds,
        max_records=args.max_records,
        seed=args.seed,
        batch_size=args.batch_size,
        device=device_info(args.device).device,
        allow_overlap=args.allow_overlap,
    )
    name = f"stress_{args.split}.{args.figure_format}"
    save_figure(plot_stress(table["rows"]), Path(args.out) / "figures" / name)
    _say(format_stress(table))
    return 0


def predict(args: argparse.Namespace) -> int:
    """Predict class probabilities of recordings: a line per record, or a table with --out."""
    from src.processed.runs.heartbeat import Heartbeat

    with Heartbeat("predict", "loading the libraries"):
        from src.commands.predict_files import predict_to_table, save_saliency
        from src.learning.checkpoints import default_checkpoint, load_checkpoint
        from src.utils import device_info

    checkpoint = load_checkpoint(args.checkpoint or default_checkpoint(), network=args.network)
    if args.out or not args.timeline:
        summary = predict_to_table(
            checkpoint,
            args.paths,
            args.out,
            table_format=args.format,
            say=None if args.out else _say,
            source_fs=args.source_fs,
            source_gain_per_mv=args.source_gain,
            leads=args.leads,
            batch_size=args.batch_size,
            device=device_info(args.device).device,
            allow_overlap=args.allow_overlap,
            long=args.long,
            predict_unfit=args.predict_unfit,
        )
        if args.out:
            _say(f"{args.out}: {summary}")
        else:
            logger.info("predict: %s", summary)
    if args.timeline:
        _save_timelines(args, checkpoint)
    if args.saliency:
        saved = save_saliency(
            checkpoint,
            args.paths,
            args.saliency,
            method=args.saliency_method,
            source_fs=args.source_fs,
            source_gain_per_mv=args.source_gain,
            leads=args.leads,
            device=args.device,
            long=args.long,
            predict_unfit=args.predict_unfit,
        )
        _say(saved)
    return 0


def _save_timelines(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Save the timelines of `predict`."""
    from src.commands.predict_timelines import save_timelines

    saved = save_timelines(
        checkpoint,
        args.paths,
        args.timeline,
        say=_say,
        source_fs=args.source_fs,
        source_gain_per_mv=args.source_gain,
        leads=args.leads,
        batch_size=args.batch_size,
        device=args.device,
        allow_overlap=args.allow_overlap,
        predict_unfit=args.predict_unfit,
    )
    _say(saved)


def export(args: argparse.Namespace) -> int:
    """Export a checkpoint to ONNX, with a JSON file that describes its input."""
    from src.processed.runs.heartbeat import Heartbeat

    with Heartbeat("export", "loading the libraries"):
        from src.classifier.onnx_export import compare_onnx, export_onnx
        from src.learning.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(args.checkpoint, network=args.network)
    files = export_onnx(checkpoint, args.out, int8=args.int8)
    _say(f"wrote {', '.join(map(str, files))}")
    if args.processed:
        for path in files:
            if path.suffix == ".onnx":
                comparison = compare_onnx(
                    checkpoint,
                    path,
                    args.processed,
                    split=args.split,
                    allow_overlap=args.allow_overlap,
                )
                _say(str(comparison))
    return 0


def embed(args: argparse.Namespace) -> int:
    """Write what a network computes of each record before its head, with keys and splits."""
    from src.commands.embed import describe_features
    from src.commands.embed import embed as run
    from src.learning.checkpoints import load_checkpoint
    from src.utils import device_info

    features = run(
        load_checkpoint(args.checkpoint, network=args.network),
        args.processed,
        out=args.out,
        seed=args.seed,
        batch_size=args.batch_size,
        device=device_info(args.device).device,
    )
    _say(describe_features(features, args.out))
    return 0


def probe(args: argparse.Namespace) -> int:
    """Fit a logistic regression on features, and on those of the same network untrained."""
    from src.commands.probe import run_probe
    from src.eval import EvaluationOptions

    result = run_probe(
        args.features,
        args.processed,
        args.out,
        split=args.split,
        target=args.target,
        classes=args.classes,
        strength=args.strength,
        options=EvaluationOptions(args.intervals),
        allow_overlap=args.allow_overlap,
    )
    _say(str(result))
    return 0


def export_dataset(args: argparse.Namespace) -> int:
    """Export a processed folder to Parquet files (Hugging Face datasets)."""
    from src.processed.export import export_dataset as run

    _say(str(run(args.processed, args.out, kind=args.format, keep_other=args.keep_other)))
    return 0


def smoke(args: argparse.Namespace) -> int:
    """Test the pipeline on 10 records: read, preprocess, batch, forward, train, evaluate."""
    from src.commands.smoke import run_smoke

    if args.mapping and not args.data:
        raise UsageError("--mapping is given without --data: add the collections that it labels")
    _say(str(run_smoke(Config(), read_data(args), args.mapping)))
    return 0


def compare(args: argparse.Namespace) -> int:
    """Compare training runs side by side in a table."""
    import pandas as pd

    from src.commands.compare import compare_runs

    runs = compare_runs([_run_folder(run) for run in args.runs])
    _say(pd.DataFrame(runs).set_index("run").T.to_string())
    return 0


def _run_folder(run: str) -> Path:
    """Return the folder of a run, given by its path or by the name of train --run."""
    return Path(run) if Path(run).exists() else project_paths().artifacts / "runs" / run


def report(args: argparse.Namespace) -> int:
    """Write a report of a run as one HTML page: data, training, results, mistakes, settings."""
    from src.processed.runs.heartbeat import Heartbeat

    with Heartbeat("report", "loading the libraries"):
        from src.plots.report.writer import write_report

    page = write_report(
        _run_folder(args.run),
        args.processed,
        args.out,
        n_examples=args.examples,
        with_saliency=args.saliency,
        network=args.network,
    )
    _say(f"{page}: open it in a browser")
    return 0


def compare_predictions(args: argparse.Namespace) -> int:
    """Test whether two sets of predictions for the same records differ."""
    from src.learning.comparison import compare_prediction_files
    from src.learning.text import format_comparison

    comparison = compare_prediction_files(
        args.a,
        args.b,
        args.manifest,
        n_resamples=args.resamples,
        seed=args.seed,
        allow_overlap=args.allow_overlap,
    )
    _say(format_comparison(comparison))
    return 0


def demo(args: argparse.Namespace) -> int:
    """Run the notebook from top to bottom, by default on generated recordings."""
    from src.commands.demo import run_notebook

    executed = run_notebook(out=args.out, config=args.config)
    _say(f"every cell ran; the notebook with its outputs is {executed}")
    return 0


# Parser -------------------------------------------------------------------------------------------


COMMANDS = {
    "sample-data": (sample_data, arguments.add_sample_data),
    "check": (check, arguments.add_check),
    "labels": (labels, arguments.add_labels),
    "preprocess": (preprocess, arguments.add_preprocess),
    "networks": (networks, arguments.add_networks),
    "train": (train, arguments.add_train),
    "evaluate": (evaluate, arguments.add_evaluate),
    "recalibrate": (recalibrate, arguments.add_recalibrate),
    "stress": (stress, arguments.add_stress),
    "predict": (predict, arguments.add_predict),
    "export": (export, arguments.add_export),
    "embed": (embed, arguments.add_embed),
    "probe": (probe, arguments.add_probe),
    "export-dataset": (export_dataset, arguments.add_export_dataset),
    "smoke": (smoke, arguments.add_smoke),
    "compare": (compare, arguments.add_compare),
    "compare-predictions": (compare_predictions, arguments.add_compare_predictions),
    "leave-one-out": (leave_one_out, arguments.add_leave_one_out),
    "cross-fit": (cross_fit, arguments.add_cross_fit),
    "cross-validate": (cross_validate, arguments.add_cross_validate),
    "label-issues": (label_issues, arguments.add_label_issues),
    "relabel": (relabel, arguments.add_relabel),
    "report": (report, arguments.add_report),
    "demo": (demo, arguments.add_demo),
}
"""Name -> the function that runs the command, and the one that adds its arguments."""


class _Parser(argparse.ArgumentParser):
    """A parser, also of each command, whose errors do not repeat marks that steer a terminal."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, None))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    # As it was typed: pip installs the command ecg
    program = "ecg" if Path(sys.argv[0]).stem == "ecg" else "python -m src"
    parser = _Parser(
        prog=program,
        description="ECG recordings to tensors, a trained classifier and its figures.",
        epilog=f"try it: {program} smoke",
        formatter_class=arguments.Help,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--quiet", action="store_true", help="log warnings only (default: off)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, (run, add_arguments) in COMMANDS.items():
        text = (run.__doc__ or "").strip()
        example = f"example: {program} {name} {arguments.EXAMPLES[name]}"
        command = commands.add_parser(
            name, help=text, description=text, epilog=example, formatter_class=arguments.Help
        )
        command.set_defaults(run_command=run)
        add_arguments(command)
    return parser


def _say(text: str) -> None:
    """Write a result to standard output; the log goes to standard error."""
    sys.stdout.write(printable_lines(text.rstrip()) + "\n")


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which schedulers send before SIGKILL."""


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    Returns
    -------
    int
        0 done, 1 failed with one line on standard error, 2 wrong usage, 130 interrupted,
        143 terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show must not end a run.
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    setup_logging(logging.WARNING if args.quiet else logging.INFO)
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        require_other_output(args)
        status: int = args.run_command(args)
        return status
    except KeyboardInterrupt as error:
        return _report_interrupt(args, isinstance(error, _TerminatedError))
    except (ValueError, OSError, RuntimeError) as error:
        return _report_error(error)


def _report_interrupt(args: argparse.Namespace, terminated: bool) -> int:
    """Write how to resume an interrupted command, and return its exit status."""
    how = ""
    if "resume" in args:
        how = " with --resume"
    elif args.command == "preprocess":
        how = " to resume"
    event = "terminated" if terminated else "interrupted"
    sys.stderr.write(f"{event}; run the same command again{how}\n")
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def _report_error(error: Exception) -> int:
    """Write an error as one line after its details, and return the exit status."""
    logger.debug("full traceback", exc_info=True)
    first, *details = str(error).split("\n") if str(error) else [type(error).__name__]
    for line in details:
        logger.error("%s", line.strip())
    sys.stderr.write(f"error: {printable(first, None)}\n")
    return 2 if isinstance(error, UsageError) else 1


if __name__ == "__main__":
    sys.exit(main())
