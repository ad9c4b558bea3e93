"""The notebook's counterpart: each cell is one call here, and each call builds what it needs and is
not there yet.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.commands.dry_run import CheckReport, check_datasets
from src.commands.smoke import SmokeReport, run_smoke
from src.config import Config, DataConfig, build_config, config_paths, list_changes
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import Evaluation, evaluate
from src.labels.mapping import load_mapping, update_mapping
from src.learning.checkpoints import ModelCard, load_checkpoint
from src.model import ResNet1d, build_model
from src.preprocessing import RunSummary, run_preprocessing
from src.processed.manifest import INTERRUPTED, load_manifest, load_preprocess_config
from src.records.sample_collections import write_sample_collections
from src.training import TrainResult, build_card, run_training
from src.utils import (
    Rich,
    device_info,
    html_facts,
    html_table,
    load_json,
    save_json,
    seed_everything,
    shown_path,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


CONFIG_VARIABLE = "ECG_CONFIG"
"""Environment variable that names a JSON file of settings, which come before those of the notebook.
"""


def open_session(settings: dict[str, Any]) -> Session:
    """Return a session with the notebook's settings, or those of the file that `CONFIG_VARIABLE`
    names.

    Parameters
    ----------
    settings
        Nested dictionaries as for `src.config.build_config`; the file's settings replace them one
        by one.

    Raises
    ------
    ValueError
        If the file is not there or no JSON object, and with every unknown name and wrong value at
        once.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    values = _read_settings(Path(path)) if path else {}
    merged = dict(settings)
    for name, value in values.items():
        section = merged.get(name)
        merged[name] = (
            {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
        )
    return Session(build_config(merged))


def _read_settings(path: Path) -> dict[str, Any]:
    values = load_json(path) if path.is_file() else None
    if not isinstance(values, dict):
        raise ValueError(
            f"{CONFIG_VARIABLE} is {path}: expected a JSON file with an object of sections"
        )
    return values


class Session(Rich):
    """One configuration and what has been made with it so far.

    Parameters
    ----------
    config
        Settings; without data roots the synthetic collections are generated and used.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.paths = config_paths(self.config)
        self._data: DataConfig | None = None
        self._loaders: DataLoaders | None = None
        self._model: ResNet1d | None = None
        self._result: TrainResult | None = None

    def __str__(self) -> str:
        changes = "".join(
            f"\n  {name}: {value} (default {default})"
            for name, value, default in list_changes(self.config)
        )
        folders = (
            f"outputs go to {shown_path(self.paths.artifacts)} and {shown_path(self.paths.figures)}"
        )
        return f"{folders}; settings that are not the default:{changes or ' none'}"

    def _repr_html_(self) -> str:
        folders = {
            "tensors": self.paths.processed,
            "model and tables": self.paths.artifacts,
            "figures": self.paths.figures,
            "labels": self.paths.mapping,
        }
        changes = (
            html_table(["setting", "here", "default"], list_changes(self.config))
            if list_changes(self.config)
            else ""
        )
        return html_facts({name: shown_path(path) for name, path in folders.items()}) + changes

    @property
    def data(self) -> DataConfig:
        """The collections in use; generated on first use when the configuration names none."""
        if self._data is None:
            self._data = self.config.data if self.config.data.roots else self._generate_data()
        return self._data

    def _generate_data(self) -> DataConfig:
        """Write the synthetic collections, and put their labels beside those that the user's table
        already has.
        """
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
        """The label table, or None when there is no such file and every record gets the fallback
        label.
        """
        roots = self.data.roots  # generated collections bring their labels
        if self.config.data.mapping or self.paths.mapping.exists():
            return self.paths.mapping
        logger.warning(
            "%s: no label table, so the records of %s have no labels",
            self.paths.mapping,
            ", ".join(roots),
        )
        return None

    def check(self) -> CheckReport:
        """Look at the collections without writing record files."""
        return check_datasets(
            self.data, self.mapping, self.config.preprocess, self.config.execution
        )

    def smoke(self) -> SmokeReport:
        """Take 10 records through the whole pipeline in a temporary folder."""
        return run_smoke(self.config, self.data, self.mapping)

    def preprocess(self) -> RunSummary:
        """Process every record of the collections; what is done already is skipped. Saves a page on
        the quality of each.
        """
        from src.plots.saved import save_quality_figures

        self._loaders = self._model = self._result = None  # they may be of other records
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
        """The loaders; records are processed first where none are, or other ones."""
        if self._loaders is None:
            if not self._is_processed():
                self.preprocess()
            self._loaders = build_dataloaders(self.config, self.paths.processed)
        return self._loaders

    def _is_processed(self) -> bool:
        """Tell whether the processed records are of the collections in use, and made with the
        settings in use.
        """
        processed = self.paths.processed
        if (
            not (processed / "splits.json").exists()
            or load_preprocess_config(processed) != self.config.preprocess
        ):
            return False
        manifest = load_manifest(processed)
        return (
            set(manifest["dataset"]) == set(self.data.roots)
            and not (manifest["reason"] == INTERRUPTED).any()
        )

    @property
    def model(self) -> ResNet1d:
        """The network, untrained until `train` was called."""
        if self._model is None:
            seed_everything(self.config.train.seed, self.config.train.deterministic)
            self._model = build_model(self._card, len(self.loaders.task.outputs))
        return self._model

    @property
    def _card(self) -> ModelCard:
        return build_card(self.config, self.loaders, self.config.preprocess)

    def train(self, resume: bool = False) -> TrainResult:
        """Train a fresh network, or go on from ``latest.pth``."""
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
        """The best checkpoint; trains first where there is none of these classes and this
        network.
        """
        best = self.paths.artifacts / "models" / "best.pth"
        if self._result is None and not self._is_ours(best):
            self.train()
        return best

    def _is_ours(self, checkpoint: Path) -> bool:
        """Tell whether a checkpoint is of the classes, input and network in use."""
        if not checkpoint.exists():
            return False
        ours, found = (
            replace(card, config={}, train_hashes=(), thresholds=())
            for card in (self._card, load_checkpoint(checkpoint).card)
        )
        if ours != found:
            logger.warning("%s: is of other classes or settings: training anew", checkpoint)
        return ours == found

    def plot_history(self) -> Figure:
        """Draw the training history and save it as ``figures/training_history.png``."""
        from src.plots.saved import save_history_figure

        _ = self.checkpoint  # trains where nothing was trained yet
        return save_history_figure(self.paths.artifacts, self.paths.figures)

    def evaluate(self, split: str | None = None) -> Evaluation:
        """Judge the best checkpoint on the test split, or on validation where there is no test
        split; saves the figures.
        """
        checkpoint = self.checkpoint
        evaluation = evaluate(
            checkpoint,
            self.paths.processed,
            split=split or self._judged_split,
            out=self.paths.artifacts,
            batch_size=self.config.loader.batch_size,
            device=device_info(self.config.train.device).device,
            keep_other=self.config.train.keep_other,
        )
        from src.plots.saved import save_evaluation_figures

        save_evaluation_figures(evaluation, self.paths.processed, self.paths.figures)
        return evaluation

    def plot_record(self, key: str | None = None) -> Figure:
        """Draw one processed record on ECG paper, by default the first of the split that `evaluate`
        judges.
        """
        from src.plots.saved import plot_record

        return plot_record(
            self.paths.processed, key or self.loaders.records[self._judged_split].keys[0]
        )

    @property
    def _judged_split(self) -> str:
        return next(name for name in ("test", "val", "train") if len(self.loaders.records[name]))

    def summary(self) -> dict[str, Any]:
        """Return what the run came to, and save it as ``artifacts/summary.json``."""
        manifest = load_manifest(self.paths.processed)
        log_path = self.paths.artifacts / "training_log.json"
        log = load_json(log_path) if log_path.exists() else {}
        metrics = {
            path.stem: load_json(path)
            for path in sorted(self.paths.artifacts.glob("metrics_*.json"))
        }
        value = {
            "records": {
                str(status): int(n) for status, n in manifest["status"].value_counts().items()
            },
            "splits": {
                str(split): int(n) for split, n in manifest["split"].value_counts().items() if split
            },
            "classes": log.get("classes", []),
            "epochs": len(log.get("history", [])),
            "best": {log["best_metric_name"]: log["best_metric"], "epoch": log["best_epoch"]}
            if log
            else {},
            "metrics": {
                name: {key: m[key] for key in ("f1_macro", "auroc_macro", "accuracy")}
                for name, m in metrics.items()
            },
            "outputs": sorted(str(p.relative_to(self.paths.root)) for p in self._outputs()),
        }
        save_json(value, self.paths.artifacts / "summary.json")
        return value

    def _outputs(self) -> list[Path]:
        patterns = ("*.json", "*.npz", "models/*.pth", "processed/*.csv", "processed/*.json")
        files = [path for pattern in patterns for path in self.paths.artifacts.glob(pattern)]
        return [*files, *self.paths.figures.glob("*.png")]
