"""The notebook's counterpart: each cell is one call here, and each call builds what it needs and is not there yet."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.checks import CheckReport, check_datasets
from src.config import Config, DataConfig, config_paths
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import Evaluation, evaluate
from src.labels import load_mapping, update_mapping
from src.model import ResNet1d
from src.preprocessing import RunSummary, run_preprocessing
from src.sample_data import write_sample_collections
from src.smoke import SmokeReport, run_smoke
from src.store import load_manifest
from src.training import TrainResult, run_training
from src.utils import load_json, save_json, seed_everything

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


class Session:
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

    @property
    def data(self) -> DataConfig:
        """The collections in use; generated on first use when the configuration names none."""
        if self._data is None:
            self._data = self.config.data if self.config.data.roots else self._generate_data()
        return self._data

    def _generate_data(self) -> DataConfig:
        """Write the synthetic collections, and put their labels beside those that the user's table already has."""
        sample = write_sample_collections(self.paths.data / "synthetic", n_records=self.config.data.n_sample_records)
        update_mapping(self.paths.mapping, load_mapping(sample.mapping))
        logger.info("no data roots are set: using %d generated recordings", self.config.data.n_sample_records)
        return DataConfig(roots={name: str(root) for name, root in sample.data.items()})

    @property
    def mapping(self) -> Path | None:
        """The label table, or None when there is no such file and every record gets the fallback label."""
        roots = self.data.roots  # generated collections bring their labels
        if self.config.data.mapping or self.paths.mapping.exists():
            return self.paths.mapping
        logger.warning("%s: no label table, so the records of %s have no labels", self.paths.mapping, ", ".join(roots))
        return None

    def check(self) -> CheckReport:
        """Look at the collections without writing record files."""
        return check_datasets(self.data, self.mapping, self.config.preprocess, self.config.execution)

    def smoke(self) -> SmokeReport:
        """Take 10 records through the whole pipeline in a temporary folder."""
        return run_smoke(self.config, self.data, self.mapping)

    def preprocess(self) -> RunSummary:
        """Process every record of the collections; what is done already is skipped."""
        self._loaders = self._model = None  # they may be of other records
        return run_preprocessing(
            self.data,
            self.paths.processed,
            mapping=self.mapping,
            config=self.config.preprocess,
            splits=self.config.splits,
            execution=self.config.execution,
            extend=False,
        )

    @property
    def loaders(self) -> DataLoaders:
        """The loaders; records are processed first where none are."""
        if self._loaders is None:
            if not (self.paths.processed / "splits.json").exists():
                self.preprocess()
            self._loaders = build_dataloaders(self.config, self.paths.processed)
        return self._loaders

    @property
    def model(self) -> ResNet1d:
        """The network, untrained until `train` was called."""
        if self._model is None:
            seed_everything(self.config.train.seed, self.config.train.deterministic)
            width = self.config.model
            self._model = ResNet1d(12, len(self.loaders.classes), width.base_channels, width.dropout)
        return self._model

    def train(self, resume: bool = False) -> TrainResult:
        """Train a fresh network, or go on from ``latest.pth``."""
        self._model = None
        self._result = run_training(
            self.config, self.paths.processed, self.paths.artifacts, loaders=self.loaders, model=self.model, resume=resume
        )
        return self._result

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint; trains first where there is none for these classes."""
        best = self.paths.artifacts / "models" / "best.pth"
        if self._result is None and not best.exists():
            self.train()
        return best

    def plot_history(self) -> Figure:
        """Draw the training history and save it as ``figures/training_history.png``."""
        from src.report_figures import save_history_figure

        _ = self.checkpoint  # trains where nothing was trained yet
        return save_history_figure(self.paths.artifacts, self.paths.figures)

    def evaluate(self, split: str | None = None) -> Evaluation:
        """Judge the best checkpoint on the test split, or on validation where there is no test split; saves the figures."""
        checkpoint = self.checkpoint
        there = [name for name in ("test", "val", "train") if len(self.loaders.records[name])]
        evaluation = evaluate(
            checkpoint,
            self.paths.processed,
            split=split or there[0],
            out=self.paths.artifacts,
            batch_size=self.config.loader.batch_size,
            keep_other=self.config.train.keep_other,
        )
        from src.report_figures import save_evaluation_figures

        save_evaluation_figures(evaluation, self.paths.processed, self.paths.figures)
        return evaluation

    def plot_record(self, key: str | None = None) -> Figure:
        """Draw one processed record on ECG paper, by default the first."""
        from src.report_figures import plot_record

        return plot_record(self.paths.processed, key or self.loaders.records["train"].keys[0])

    def summary(self) -> dict[str, Any]:
        """Return what the run came to, and save it as ``artifacts/summary.json``."""
        manifest = load_manifest(self.paths.processed)
        log_path = self.paths.artifacts / "training_log.json"
        log = load_json(log_path) if log_path.exists() else {}
        metrics = {path.stem: load_json(path) for path in sorted(self.paths.artifacts.glob("metrics_*.json"))}
        value = {
            "records": {str(status): int(n) for status, n in manifest["status"].value_counts().items()},
            "splits": {str(split): int(n) for split, n in manifest["split"].value_counts().items() if split},
            "classes": log.get("classes", []),
            "epochs": len(log.get("history", [])),
            "best": {log["best_metric_name"]: log["best_metric"], "epoch": log["best_epoch"]} if log else {},
            "metrics": {name: {key: m[key] for key in ("f1_macro", "auroc_macro", "accuracy")} for name, m in metrics.items()},
            "outputs": sorted(str(p.relative_to(self.paths.root)) for p in self._outputs()),
        }
        save_json(value, self.paths.artifacts / "summary.json")
        return value

    def _outputs(self) -> list[Path]:
        patterns = ("*.json", "*.npz", "models/*.pth", "processed/*.csv", "processed/*.json")
        files = [path for pattern in patterns for path in self.paths.artifacts.glob(pattern)]
        return [*files, *self.paths.figures.glob("*.png")]


