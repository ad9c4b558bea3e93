from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from settings import QUICK

from src.commands.session import Session, open_session
from src.config import (
    Config,
    DataConfig,
    ExecutionConfig,
    SplitConfig,
    TrainConfig,
)
from src.labels.mapping import load_mapping
from src.learning.checkpoints import load_checkpoint
from src.processed.manifest import load_manifest
from src.records.sample_collections import SampleData
from src.utils import load_json, save_json

ONE_EPOCH = dataclasses.replace(QUICK.train, epochs=1)


def settings(root: Path, **changes: object) -> Config:
    base = dataclasses.replace(
        QUICK,
        root=str(root),
        data=DataConfig(n_sample_records=27),
        execution=ExecutionConfig(workers=1),
        train=ONE_EPOCH,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder in which the first thing asked for was the evaluation."""
    root = tmp_path_factory.mktemp("project")
    Session(settings(root)).evaluate()
    return root


@pytest.fixture(autouse=True)
def _no_figures(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures once, in the project that the tests share: they take most of the time."""
    for name in ("save_evaluation_figures", "save_quality_figures"):
        monkeypatch.setattr(f"src.plots.saved.{name}", lambda *_args, **_named: [])


def best(root: Path) -> Path:
    return root / "artifacts" / "models" / "best.pth"


# Out of order -------------------------------------------------------------------------------------


def test_an_evaluation_builds_what_it_needs(project: Path) -> None:
    assert set(load_manifest(project / "artifacts" / "processed")["status"]) == {"ok"}
    assert (
        best(project).exists()
        and load_json(project / "artifacts" / "metrics_test.json")["split"] == "test"
    )
    assert (project / "figures" / "test_f1_scores.png").exists()
    assert list((project / "figures").glob("quality_*.png"))


def test_nothing_is_made_twice(project: Path) -> None:
    trained = best(project).stat().st_mtime_ns
    session = Session(settings(project))
    assert session.preprocess().n_skipped == 27
    session.plot_history()
    assert len(session.plot_evaluation(session.evaluate())) == 3
    assert session.predict().saliency is not None
    assert best(project).stat().st_mtime_ns == trained


def test_a_summary_of_nothing_is_empty(tmp_path: Path) -> None:
    summary = Session(settings(tmp_path)).summary()
    assert summary.records == {} and summary.epochs == 0 and summary.outputs == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["summary.json"]


def test_a_summary_names_the_outputs(project: Path) -> None:
    summary = Session(settings(project)).summary()
    assert summary.records == {"ok": 27} and sum(summary.splits.values()) == 27
    assert set(summary.best) == {"val_f1_macro", "epoch"}
    assert "artifacts/models/best.pth" in summary.outputs
    assert load_json(project / "artifacts" / "summary.json") == dataclasses.asdict(summary)
    assert '<td style="text-align:left">artifacts/models</td>' in summary._repr_html_()
    assert "records: 27 ok" in str(summary)


def test_training_resumes(tmp_path: Path) -> None:
    Session(settings(tmp_path)).train()
    longer = Session(settings(tmp_path, train=dataclasses.replace(QUICK.train, epochs=2)))
    assert [row["epoch"] for row in longer.train(resume=True).history] == [1, 2]


# With other settings ------------------------------------------------------------------------------


def test_other_preprocessing_rebuilds_records_and_model(tmp_path: Path) -> None:
    Session(settings(tmp_path)).train()
    shorter = dataclasses.replace(QUICK.preprocess, n_samples=800)
    session = Session(settings(tmp_path, preprocess=shorter))
    assert next(iter(session.loaders.train)).signal.shape[2] == 800
    assert session.evaluate().metrics["n_records"] == len(session.loaders.records["test"])
    assert load_checkpoint(best(tmp_path)).card.preprocess == shorter


def test_another_network_or_lead_set_is_trained_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Session(settings(tmp_path)).train()
    three = Session(
        settings(tmp_path, train=dataclasses.replace(ONE_EPOCH, leads=("I", "II", "V2")))
    )
    assert three.model.n_leads == 3
    three.evaluate()
    assert load_checkpoint(best(tmp_path)).card.leads == ("I", "II", "V2")
    assert "has other classes or settings: training again" in caplog.text


def test_without_a_test_split_validation_is_evaluated(tmp_path: Path) -> None:
    session = Session(settings(tmp_path, splits=SplitConfig(val_fraction=0.3, test_fraction=0.0)))
    assert session.evaluate().split == "val"
    with pytest.raises(ValueError, match="split test has no records; splits with records: train"):
        session.evaluate("test")


def test_without_validation_the_last_epoch_is_kept_and_no_score_made_up(tmp_path: Path) -> None:
    splits = SplitConfig(val_fraction=0.0, test_fraction=0.3)
    session = Session(
        settings(tmp_path, splits=splits, train=dataclasses.replace(QUICK.train, epochs=2))
    )
    assert "best epoch 2 of 2: val_f1_macro undefined" in str(session.train())
    session.plot_history()
    assert session.summary().best == {"val_f1_macro": None, "epoch": 2}


# The user's own data ------------------------------------------------------------------------------


def test_the_users_labels_stay(tmp_path: Path) -> None:
    mapping = tmp_path / "logs" / "unified_label_mapping.csv"
    mapping.parent.mkdir()
    mapping.write_text("dataset,record_id,mapped_label,fold\nclinic,r1,AF,3\n")
    Session(settings(tmp_path)).check()
    rows = load_mapping(mapping)
    assert rows.loc[
        rows["dataset"] == "clinic", ["record_id", "mapped_label", "fold"]
    ].to_numpy().tolist() == [["r1", "AF", "3"]]
    assert len(rows) == 28


def test_collections_without_labels_say_so(
    sample: SampleData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataConfig({"mine": str(sample.data["synthetic_wfdb"])})
    session = Session(settings(tmp_path, data=data))
    assert session.check().ok and session.smoke().steps
    assert "so the records of mine have no labels" in caplog.text
    with pytest.raises(ValueError, match="no training record has a label"):
        _ = session.loaders
    kept = dataclasses.replace(ONE_EPOCH, keep_other=True, target="multi")
    assert Session(settings(tmp_path, data=data, train=kept)).loaders.classes == ("OTHER",)


# What cells show ----------------------------------------------------------------------------------


def test_a_batch_has_a_row_for_each_class(project: Path) -> None:
    session = Session(settings(project))
    figure = session.plot_batch()
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert names == list(session.loaders.classes)


def test_the_record_that_is_explained_is_drawn_with_its_label(project: Path) -> None:
    session = Session(settings(project))
    key = session.loaders.records["test"].keys[0]
    prediction = session.predict(key)
    assert prediction.record_id == key
    [label] = session.loaders.records["test"].labels[0]
    texts = [text.get_text() for text in session.plot_prediction(prediction).axes[0].texts]
    title = " ".join(text for text in texts if key in text).replace("\n", " ")
    assert title.endswith(f"; label: {label}")


# Settings of the notebook -------------------------------------------------------------------------


def test_a_file_of_settings_comes_before_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = {
        "root": str(tmp_path),
        "train": {"epochs": 12, "lr": 0.003},
        "data": {"roots": {"a": "/a"}},
    }
    monkeypatch.delenv("ECG_CONFIG", raising=False)
    assert open_session(notebook).config.train == TrainConfig(epochs=12, lr=0.003)
    save_json(
        {"train": {"epochs": 2}, "data": {"roots": {}}, "model": {"base_channels": 8}},
        tmp_path / "c.json",
    )
    monkeypatch.setenv("ECG_CONFIG", str(tmp_path / "c.json"))
    config = open_session(notebook).config
    assert (
        config.train == TrainConfig(epochs=2, lr=0.003)
        and config.model.base_channels == 8
        and config.data.roots == {}
    )
    assert notebook["train"] == {"epochs": 12, "lr": 0.003}


def test_relative_paths_count_from_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("ECG_CONFIG", raising=False)
    roots = {"mine": "data/mine", "there": "/there", "remote": "s3://bucket/data"}
    session = open_session(
        {"root": str(tmp_path), "data": {"roots": roots, "mapping": "logs/m.csv"}}
    )
    assert session.data.roots == {**roots, "mine": str(tmp_path / "data" / "mine")}
    assert session.paths.mapping == tmp_path / "logs" / "m.csv"
    one = open_session({"root": str(tmp_path), "data": {"roots": {"mine": "data/mine"}}})
    with pytest.raises(ValueError, match=f"{tmp_path}/data/mine: no such folder"):
        one.check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected a JSON file with an object of sections"),
        ("{", "not valid JSON"),
        (
            '{"train": {"epoch": 1}, "fs": 2}',
            r"unknown setting fs .*; unknown setting train\.epoch ",
        ),
        (None, "expected a JSON file with an object of sections"),
    ],
)
def test_a_wrong_settings_file_is_reported(
    text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECG_CONFIG", str(tmp_path / "c.json"))
    if text is not None:
        (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_session({"root": str(tmp_path)})


def test_a_session_shows_where_outputs_go_and_what_was_changed(tmp_path: Path) -> None:
    session = Session(dataclasses.replace(Config(root=str(tmp_path)), train=TrainConfig(epochs=3)))
    assert str(session).endswith(
        "settings that are not the default:\n  train.epochs: 3 (default 0)"
    )
    shown = session._repr_html_()
    assert f"<b>{tmp_path / 'artifacts' / 'processed'}</b>" in shown and "train.epochs" in shown
    assert "<table>" not in Session()._repr_html_()
