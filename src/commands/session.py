"""The session behind the notebook: each cell is one call, which builds what is still missing."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from src.classifier.classifier import Classifier, Prediction
from src.commands.dry_run import CheckReport, check_datasets
from src.commands.predict_files import plot_prediction
from src.commands.smoke import SmokeReport, run_smoke
from src.config import (
    STANDARD_LEADS,
    Config,
    DataConfig,
    build_config,
    config_paths,
    list_changes,
    merge_sections,
    resolve_paths,
)
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import Evaluation, evaluate
from src.labels.mapping import load_mapping, update_mapping
from src.learning.checkpoints import ModelCard, NetworkSource, load_checkpoint
from src.learning.mistakes import find_typical
from src.learning.run_files import RunLog, load_metrics, load_training_log
from src.model import StageTable, build_model, list_stages
from src.preprocessing import RunSummary, run_preprocessing
from src.processed.datasets import ECGDataset, PackedDataset, show_whole
from src.processed.manifest import INTERRUPTED, load_manifest, load_preprocess_config
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.records.record import ECGRecord
from src.records.sample_collections import write_sample_collections
from src.training import TrainResult, adopt_network, build_card, run_training
from src.utils import (
    Rich,
    device_info,
    format_cell,
    html_facts,
    html_table,
    load_json,
    save_json,
    seed_everything,
    shown_path,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

logger = logging.getLogger(__name__)


CONFIG_VARIABLE = "ECG_CONFIG"
"""Environment variable with the path of a JSON settings file, which overrides the notebook's own.
"""


# Drawn of a batch: so many records of each class, and so many classes
_RECORDS_DRAWN, _CLASSES_DRAWN = 3, 12

_SUMMARY_METRICS = ("f1_macro", "auroc_macro", "accuracy")


@dataclass(frozen=True)
class SessionSummary(Rich):
    """The content of ``summary.json``.

    Attributes
    ----------
    records, splits
        Number of records by status, and by split.
    classes
        Those of the network.
    epochs
        Number of trained epochs.
    best
        The best epoch, and the score by which it was chosen.
    metrics
        Scores of each evaluated split, by the name of its file.
    outputs
        The written files, relative to the project folder.
    """

    records: dict[str, int]
    splits: dict[str, int]
    classes: list[str]
    epochs: int
    best: dict[str, object]
    metrics: dict[str, dict[str, float | None]]
    outputs: list[str]

    @property
    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {
            "records": _join_counts(self.records),
            "splits": _join_counts(self.splits),
            "classes": ", ".join(self.classes),
            "epochs": self.epochs,
        }
        facts |= {f"best {name}": value for name, value in self.best.items()}
        for file, scores in self.metrics.items():
            split = file.removeprefix("metrics_")
            facts |= {f"{split} {name}": value for name, value in scores.items()}
        return facts

    def __str__(self) -> str:
        facts = [f"{name}: {format_cell(value)}" for name, value in self._facts.items()]
        return "\n".join([*facts, "files:", *(f"  {path}" for path in self.outputs)])

    def _repr_html_(self) -> str:
        rows = _group_by_folder(self.outputs).items()
        return html_facts(self._facts) + html_table(["folder", "files"], rows)


def _join_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def _group_by_folder(paths: Sequence[str]) -> dict[str, str]:
    """Return folder -> names of its files."""
    names: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        names.setdefault(folder, []).append(name)
    return {folder: ", ".join(of_folder) for folder, of_folder in names.items()}


def open_session(settings: Mapping[str, object]) -> Session:
    """Return a session with the notebook's settings.

    Parameters
    ----------
    settings
        Nested dictionaries as for `src.config.build_config`. The settings of the file at
        `CONFIG_VARIABLE`, if set, override them one by one.

    Raises
    ------
    ValueError
        If the file is missing or no JSON object, and with all unknown names and wrong values at
        once.

    Notes
    -----
    Relative paths in the settings count from the project folder.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    overrides = _read_settings(Path(path)) if path else {}
    return Session(resolve_paths(build_config(merge_sections(settings, overrides))))


def _read_settings(path: Path) -> Mapping[str, object]:
    values = load_json(path) if path.is_file() else None
    if not isinstance(values, dict):
        raise ValueError(
            f"{CONFIG_VARIABLE} is {path}: expected a JSON file with an object of sections"
        )
    return values


class Session(Rich):
    """A configuration and the objects built with it so far.

    Parameters
    ----------
    config
        Settings; without data roots, synthetic collections are generated and used.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = adopt_network(config or Config())
        self.paths = config_paths(self.config)
        self._data: DataConfig | None = None
        self._loaders: DataLoaders | None = None
        self._model: nn.Module | None = None
        self._result: TrainResult | None = None
        self._evaluation: Evaluation | None = None

    def __str__(self) -> str:
        changes = [
            f"\n  {name}: {value} (default {default})"
            for name, value, default in list_changes(self.config)
        ]
        folders = (
            f"outputs go to {shown_path(self.paths.artifacts)} and {shown_path(self.paths.figures)}"
        )
        return f"{folders}; settings that are not the default:{''.join(changes) or ' none'}"

    def _repr_html_(self) -> str:
        facts = html_facts(
            {
                "tensors": shown_path(self.paths.processed),
                "model and tables": shown_path(self.paths.artifacts),
                "figures": shown_path(self.paths.figures),
                "labels": shown_path(self.paths.mapping),
            }
        )
        changes = list_changes(self.config)
        if not changes:
            return facts
        return facts + html_table(["setting", "here", "default"], changes)

    @property
    def data(self) -> DataConfig:
        """The collections; synthetic ones are generated if the configuration names none."""
        if self._data is None:
            self._data = self.config.data if self.config.data.roots else self._generate_data()
        return self._data

    def _generate_data(self) -> DataConfig:
        """Write the synthetic collections, and add their labels to the label mapping."""
        sample = write_sample_collections(
            self.paths.data / "synthetic", n_records=self.config.data.n_sample_records
        )
        update_mapping(self.paths.mapping, load_mapping(sample.mapping))
        logger.info(
            "no data roots are set: using %d generated recordings",
            self.config.data.n_sample_records,
        )
        return DataConfig(roots={name: str(root) for name, root in sample.data.items()})

    @property
    def mapping(self) -> Path | None:
        """The path of the label mapping, or None if there is none."""
        # First, because generated collections write their labels.
        roots = self.data.roots
        if self.config.data.mapping or self.paths.mapping.exists():
            return self.paths.mapping
        logger.warning(
            "%s: no label mapping, so the records of %s have no labels",
            self.paths.mapping,
            ", ".join(roots),
        )
        return None

    def check(self) -> CheckReport:
        """Check the collections without writing record files."""
        return check_datasets(
            self.data, self.mapping, self.config.preprocess, self.config.execution
        )

    def smoke(self) -> SmokeReport:
        """Take 10 records through the whole pipeline in a temporary folder."""
        return run_smoke(self.config, self.data, self.mapping)

    def preprocess(self) -> RunSummary:
        """Process every new or changed record, and save a page on each collection's quality."""
        from src.plots.saved import save_quality_figures

        # They may be of other records.
        self._loaders = None
        self._model = None
        self._result = None
        self._evaluation = None
        summary = run_preprocessing(
            self.data,
            self.paths.processed,
            mapping=self.mapping,
            config=self.config.preprocess,
            splits=self.config.splits,
            execution=self.config.execution,
            extend=False,
        )
        save_quality_figures(self.paths.processed, self.paths.figures)
        return summary

    @property
    def loaders(self) -> DataLoaders:
        """The data loaders; records are processed first if they are missing or outdated."""
        if self._loaders is None:
            if not self._is_processed():
                self.preprocess()
            self._loaders = build_dataloaders(self.config, self.paths.processed)
        return self._loaders

    def _is_processed(self) -> bool:
        """Return whether the processed records match the collections and the settings."""
        processed = self.paths.processed
        if not (processed / "splits.json").exists():
            return False
        if load_preprocess_config(processed) != self.config.preprocess:
            return False
        manifest = load_manifest(processed)
        is_same_data = set(manifest["dataset"]) == set(self.data.roots)
        is_interrupted = (manifest["reason"] == INTERRUPTED).any()
        return is_same_data and not is_interrupted

    def plot_batch(self) -> Figure:
        """Draw training records of each class as the network sees them, without crops."""
        from src.plots.tensors import plot_batch

        loader, records = self.loaders.train, self.loaders.records["train"]
        rows_of: dict[str, list[int]] = {name: [] for name in self.loaders.classes}
        for row, labels in enumerate(records.labels):
            for name in labels:
                if len(rows_of.get(name, range(_RECORDS_DRAWN))) < _RECORDS_DRAWN:
                    rows_of[name].append(row)
        # The most frequent classes, in the order of the targets
        counts = Counter(label for labels in records.labels for label in labels)
        most = sorted(rows_of, key=lambda name: -counts[name])[:_CLASSES_DRAWN]
        shown = {name: rows for name, rows in rows_of.items() if name in most}

        leads = self.loaders.view.leads
        lead = "II" if "II" in leads else leads[0]
        dataset = cast("ECGDataset | PackedDataset", loader.dataset)
        whole = show_whole(dataset)
        signals = [
            [whole[row].signal[leads.index(lead)].numpy(force=True) for row in rows]
            for rows in shown.values()
        ]
        return plot_batch(signals, list(shown), self.config.preprocess.fs, lead=lead)

    @property
    def model(self) -> nn.Module:
        """The network; untrained until `train` is called."""
        if self._model is None:
            seed_everything(self.config.train.seed, self.config.train.deterministic)
            self._model = build_model(self._card, len(self.loaders.task.outputs))
        return self._model

    @property
    def _card(self) -> ModelCard:
        return build_card(self.config, self.loaders, self.config.preprocess)

    def train(self, resume: bool = False) -> TrainResult:
        """Train a new network, or resume from ``latest.pth``."""
        self._evaluation = None
        self._result = run_training(
            self.config,
            self.paths.processed,
            self.paths.artifacts,
            loaders=self.loaders,
            resume=resume,
        )
        self._model = self._result.model
        return self._result

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint; a network is trained first if none matches the settings."""
        best = self.paths.artifacts / "models" / "best.pth"
        if self._result is None and not self._matches_settings(best):
            self.train()
        return best

    def _matches_settings(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint has the classes, input and network of this session."""
        if not checkpoint.exists():
            return False
        expected = _drop_run_facts(self._card)
        if _drop_run_facts(load_checkpoint(checkpoint).card) == expected:
            return True
        logger.warning("%s: has other classes or settings: training again", checkpoint)
        return False

    def plot_history(self) -> Figure:
        """Draw the training history and save it as ``figures/training_history.png``."""
        from src.plots.saved import save_history_figure

        # Trains first if there is no checkpoint.
        _ = self.checkpoint
        return save_history_figure(self.paths.artifacts, self.paths.figures)

    def list_stages(self) -> StageTable:
        """Return the stages of the network, with the shape that a record has after each."""
        shape = (len(self.loaders.view.leads), self.config.preprocess.n_samples)
        return list_stages(self.model, *shape)

    def evaluate(self, split: str | None = None) -> Evaluation:
        """Evaluate the best checkpoint, and save the figures.

        Parameters
        ----------
        split
            By default the first with records among test, val and train.
        """
        checkpoint = self.checkpoint
        evaluation = evaluate(
            load_checkpoint(checkpoint, network=self.config.model.network),
            self.paths.processed,
            split=split or self._evaluated_split,
            out=self.paths.artifacts,
            batch_size=self.config.loader.batch_size,
            device=device_info(self.config.train.device).device,
            keep_other=self.config.train.keep_other,
        )
        from src.plots.saved import save_evaluation_figures

        save_evaluation_figures(evaluation, self.paths.processed, self.paths.figures)
        self._evaluation = evaluation
        return evaluation

    def plot_evaluation(self, evaluation: Evaluation) -> tuple[Figure, ...]:
        """Draw ROC curves, the confusion matrix of single labels, and the two worst mistakes."""
        from src.plots.saved import plot_mistakes, plot_scores

        predictions = evaluation.predictions
        scores = plot_scores(evaluation.metrics, predictions, "confusion_matrix", "roc")
        return *scores, plot_mistakes(predictions, self.paths.processed, 2)

    def predict(self, key: str | None = None) -> Prediction:
        """Predict one processed record with the best checkpoint, and explain the answer.

        Parameters
        ----------
        key
            By default the one of those that `evaluate` uses that is predicted most clearly.
        """
        key = key or self._clearest_key
        arrays = load_record_file(record_path(self.paths.processed, key))
        millivolts = to_millivolts(arrays)  # (12, n_valid)
        millivolts[~arrays["lead_present"]] = np.nan
        record = ECGRecord(key, millivolts, float(arrays["fs"]), STANDARD_LEADS)
        device = device_info(self.config.train.device).device
        return Classifier.load(
            self.checkpoint, device=device, network=self.config.model.network
        ).predict(record, saliency="integrated_gradients", predict_unfit=True)

    @property
    def _clearest_key(self) -> str:
        """The evaluated record that is right with the highest probability, else the first."""
        evaluation = self._evaluation or self.evaluate()
        right = find_typical(evaluation.predictions, len(self.loaders.classes))
        if not right:
            return evaluation.predictions.keys[0]
        return max(right, key=lambda record: max(record.scores.values())).key

    def plot_prediction(self, prediction: Prediction) -> Figure:
        """Draw a prediction of `predict` with its saliency map and the record's labels."""
        path = record_path(self.paths.processed, prediction.record_id)
        labels = " + ".join(load_record_file(path, "label")["label"].tolist())
        return plot_prediction(prediction, f"label: {labels or 'none'}")

    @property
    def _evaluated_split(self) -> str:
        return next(name for name in ("test", "val", "train") if len(self.loaders.records[name]))

    def summary(self) -> SessionSummary:
        """Return the results of the session, and save them as ``artifacts/summary.json``."""
        manifest = load_manifest(self.paths.processed)
        log_path = self.paths.artifacts / "training_log.json"
        log: RunLog = load_training_log(log_path) if log_path.exists() else {}
        best: dict[str, object] = {}
        if log:
            name = log.get("best_metric_name", "best_metric")
            best = {name: log.get("best_metric"), "epoch": log["best_epoch"]}
        metrics: dict[str, dict[str, float | None]] = {}
        for path in sorted(self.paths.artifacts.glob("metrics_*.json")):
            values: Mapping[str, Any] = load_metrics(path)
            metrics[path.stem] = {name: values.get(name) for name in _SUMMARY_METRICS}
        splits = _count_values(manifest["split"])
        splits.pop("", None)
        summary = SessionSummary(
            records=_count_values(manifest["status"]),
            splits=splits,
            classes=list(log.get("classes", [])),
            epochs=len(log.get("history", [])),
            best=best,
            metrics=metrics,
            outputs=self._list_outputs(),
        )
        save_json(summary, self.paths.artifacts / "summary.json")
        return summary

    def _list_outputs(self) -> list[str]:
        """Return the paths of the output files, relative to the root folder."""
        patterns = ("*.json", "*.npz", "models/*.pth", "processed/*.csv", "processed/*.json")
        files = [path for pattern in patterns for path in self.paths.artifacts.glob(pattern)]
        files += self.paths.figures.glob("*.png")
        return sorted(str(path.relative_to(self.paths.root)) for path in files)


def _drop_run_facts(card: ModelCard) -> ModelCard:
    """Return a card without the facts that differ between runs with the same settings."""
    return replace(
        card,
        config={},
        train_hashes=(),
        thresholds=(),
        calibration=None,
        thresholds_on=None,
        calibration_on=None,
        coverage=None,
        coverage_on=None,
        source=NetworkSource(),
    )


def _count_values(column: pd.Series) -> dict[str, int]:
    """Return value -> count, the most frequent first."""
    return {str(value): int(n) for value, n in column.value_counts().items()}
