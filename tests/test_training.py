from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from settings import QUICK

import src.training
from experiments.keep_classes import keep_classes
from src.commands.compare import compare_runs
from src.config import STANDARD_LEADS, Config, LoaderConfig, ModelConfig, TrainConfig
from src.dataloaders import build_dataloaders
from src.learning.checkpoints import load_checkpoint
from src.learning.optimization import TrainState, settle_epochs, start_training
from src.model import ResNet1d, load_model
from src.processed.targets import load_records
from src.training import DivergedError, check_finite, run_training
from src.utils import load_json

CONFIG = Config(
    train=TrainConfig(
        epochs=3, lr=2e-3, patience=0, device="cpu", ema_decay=0.9, crop_s=5.0, muon_lr=0.01
    ),
    model=ModelConfig(base_channels=8),
    loader=LoaderConfig(batch_size=8),
)


def with_train(**values: object) -> Config:
    return dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **values))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).weights


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_training_leaves_checkpoints_a_log_and_a_falling_loss(
    processed: Path, tmp_path: Path
) -> None:
    result = run_training(with_train(epochs=6, crop_s=0.0, ema_decay=0.0), processed, tmp_path)
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < losses[0]
    log = load_json(tmp_path / "training_log.json")
    assert [row["epoch"] for row in log["history"]] == [1, 2, 3, 4, 5, 6]
    assert (
        log["best_metric_name"] == "val_f1_macro"
        and log["loss"] == "cross-entropy"
        and log["environment"]["packages"]
    )
    card = load_checkpoint(tmp_path / "models" / "best.pth").card
    assert (
        card.classes == result.card.classes
        and card.preprocess.fs == 100
        and len(card.train_hashes) == log["n_train"]
    )
    assert log["best_metric"] == max(row["val_f1_macro"] for row in log["history"])
    assert load_checkpoint(tmp_path / "models" / "latest.pth").state["epoch"] == 6


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    processed: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_training(with_train(seed=seed, epochs=2), processed, tmp_path / name)
    a, b, c = (weights(tmp_path / name / "models" / "latest.pth") for name in "abc")
    assert same(a, b) and not same(a, c)


def test_resumed_equals_uninterrupted_bit_for_bit(processed: Path, tmp_path: Path) -> None:
    run_training(CONFIG, processed, tmp_path / "whole")

    class InterruptError(Exception):
        pass

    from src.dataloaders import build_dataloaders
    from src.model import build_model
    from src.processed.manifest import load_preprocess_config
    from src.training import build_card, fit
    from src.utils import seed_everything

    class Stop:
        def start(self, run: object) -> None: ...

        def epoch(self, row: dict[str, object]) -> None:
            if row["epoch"] == 2:
                raise InterruptError

        def end(self, result: object) -> None: ...

    seed_everything(CONFIG.train.seed)
    loaders = build_dataloaders(CONFIG, processed)
    card = build_card(CONFIG, loaders, load_preprocess_config(processed))
    with pytest.raises(InterruptError):
        fit(build_model(card), loaders, card, CONFIG.train, tmp_path / "broken", tracker=Stop())
    torch.rand(5)  # what happened in between must not matter
    result = run_training(CONFIG, processed, tmp_path / "broken", resume=True)
    whole, resumed = (
        load_checkpoint(tmp_path / name / "models" / "latest.pth") for name in ("whole", "broken")
    )
    assert same(whole.weights, resumed.weights) and same(
        whole.state["model"], resumed.state["model"]
    )
    assert [row["train_loss"] for row in result.history] == [
        row["train_loss"] for row in whole.state["history"]
    ]


EVERYTHING = dataclasses.replace(
    CONFIG,
    train=dataclasses.replace(
        CONFIG.train,
        epochs=3,
        target="multi",
        classes=("NORM", "AF"),
        auxiliary_weight=0.5,
        mixup=0.4,
        lead_dropout=0.5,
        label_smoothing=0.1,
    ),
    model=ModelConfig(base_channels=8, dropout=0.3, lead_mask=True),
    loader=LoaderConfig(batch_size=8, balanced_sampling=True),
)
"""All that draws random numbers or keeps a state of its own, at once."""


class StoppedError(Exception):
    """Ends a run in the middle, as a kill would."""


@pytest.mark.parametrize(
    ("n_steps", "loader_workers"),
    [
        (4, 0),
        (4, 1),
        pytest.param(1, 0, marks=pytest.mark.slow),
        pytest.param(7, 0, marks=pytest.mark.slow),
    ],
)
def test_everything_at_once_is_resumed_bit_for_bit(
    processed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_steps: int,
    loader_workers: int,
) -> None:
    """Stopped in the first epoch, and in the middle of a later one, after which other random
    numbers are drawn.
    """
    everything = dataclasses.replace(
        EVERYTHING, loader=dataclasses.replace(EVERYTHING.loader, loader_workers=loader_workers)
    )
    run_training(everything, processed, tmp_path / "whole")
    step, left = TrainState.step, [n_steps]

    def counted(self: TrainState, *args: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError
        step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(TrainState, "step", counted)
        run_training(everything, processed, tmp_path / "broken")
    torch.rand(5)
    run_training(everything, processed, tmp_path / "broken", resume=True)
    for name in ("latest.pth", "best.pth"):
        whole, resumed = (
            load_checkpoint(tmp_path / run / "models" / name) for run in ("whole", "broken")
        )
        assert same(whole.weights, resumed.weights)
    run_training(
        dataclasses.replace(everything, train=dataclasses.replace(everything.train, seed=1)),
        processed,
        tmp_path / "other",
    )
    assert not same(whole.weights, weights(tmp_path / "other" / "models" / "best.pth"))


def test_a_run_that_replaces_another_says_so(
    processed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert "replaces the earlier run" not in caplog.text
        run_training(with_train(epochs=1), processed, tmp_path)
    assert f"{tmp_path}: replaces the earlier run in this folder" in caplog.text


def test_the_log_tells_data_from_other_data(processed: Path, tmp_path: Path) -> None:
    splits = load_records(processed)
    turned = {
        **splits,
        "train": dataclasses.replace(splits["train"], labels=splits["train"].labels[::-1]),
    }
    hashes = []
    for i, records in enumerate((splits, splits, turned)):
        config = dataclasses.replace(
            with_train(epochs=1), loader=LoaderConfig(batch_size=8, cache="off")
        )
        run_training(
            config,
            processed,
            tmp_path / str(i),
            loaders=build_dataloaders(config, processed, splits=records),
        )
        hashes.append(load_json(tmp_path / str(i) / "training_log.json")["data_hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_several_labels_train_with_binary_cross_entropy(processed: Path, tmp_path: Path) -> None:
    result = run_training(with_train(target="multi", epochs=2), processed, tmp_path)
    assert result.metric_name == "val_auroc_macro" and not result.card.single_label


def test_early_stopping_and_other_tasks_on_resume(processed: Path, tmp_path: Path) -> None:
    result = run_training(
        with_train(epochs=50, lr=1e-9, patience=2, ema_decay=0.0), processed, tmp_path
    )
    assert (
        len(result.history) < 50 and load_json(tmp_path / "training_log.json")["stopped"] == "early"
    )
    with pytest.raises(ValueError, match="was trained on classes"):
        run_training(with_train(classes=("NORM", "AF")), processed, tmp_path, resume=True)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("has_validation", [True, False])
def test_diverging_training_ends_with_advice_and_no_unusable_file(
    processed: Path, tmp_path: Path, amp: str, has_validation: bool
) -> None:
    config = with_train(lr=1e9, clip_norm=0.0, warmup_fraction=0.0, amp=amp, epochs=2)
    splits = load_records(processed)
    if not has_validation:
        splits["val"] = splits["val"].subset([])
    loaders = build_dataloaders(config, processed, splits=splits)
    with pytest.raises(
        ValueError, match=r"training diverged in epoch \d: .*smaller --lr \(now 1e\+09"
    ):
        run_training(config, processed, tmp_path, loaders=loaders)
    for path in (tmp_path / "models").glob("*.pth"):
        load_model(load_checkpoint(path))


def test_a_network_that_overflows_only_in_use_has_diverged() -> None:
    model = ResNet1d(12, 2, base_channels=4)
    state = start_training(model, 1, TrainConfig(epochs=1, ema_decay=0.0))
    check_finite(0.5, state, (12, 250))
    with torch.no_grad():
        model.stem[1].running_var.fill_(math.inf)
    with pytest.raises(DivergedError, match=r"weights of the network are not finite .*0\.5"):
        check_finite(0.5, state, (12, 250))
    with torch.no_grad():
        model.stem[1].running_var.fill_(1.0)
        model.head[1].weight.fill_(3e38)
    with pytest.raises(DivergedError, match="returns numbers that are not finite"):
        check_finite(0.5, state, (12, 250))
    with pytest.raises(DivergedError, match="the training loss is nan"):
        check_finite(math.nan, state, (12, 250))


def test_runs_are_compared(processed: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_training(with_train(epochs=1), processed, tmp_path / name)
    rows = compare_runs([tmp_path / "one", tmp_path / "two"])
    assert [row["run"] for row in rows] == ["one", "two"] and "val_f1_macro" in rows[0]
    with pytest.raises(ValueError, match=r"no training_log\.json here"):
        compare_runs([tmp_path])


def test_auxiliary_labels_teach_and_leave_no_trace(processed: Path, tmp_path: Path) -> None:
    config = with_train(
        epochs=2, classes=("NORM", "LBBB", "RBBB"), target="single", auxiliary_weight=1.0
    )
    result = run_training(config, processed, tmp_path)
    kept = load_checkpoint(result.best_path)
    assert kept.card.classes == ("NORM", "LBBB", "RBBB") and result.model.n_classes == 3
    assert kept.weights["head.1.weight"].shape[0] == 3 and same(
        kept.weights, result.model.state_dict()
    )
    alone = run_training(
        with_train(epochs=2, classes=("NORM", "LBBB", "RBBB"), target="single"),
        processed,
        tmp_path / "alone",
    )
    assert not same(kept.weights, weights(alone.best_path))
    with pytest.raises(ValueError, match="all labels are classes otherwise"):
        with_train(auxiliary_weight=1.0)


def test_fine_tuning_starts_from_the_weights_of_a_checkpoint(
    processed: Path, tmp_path: Path
) -> None:
    first = run_training(with_train(epochs=1), processed, tmp_path / "first")
    still = {
        "epochs": 1,
        "lr": 1e-12,
        "muon_lr": 0.0,
        "ema_decay": 0.0,
        "freeze_norm": True,
        "init_from": str(first.best_path),
    }
    same_classes = run_training(with_train(**still), processed, tmp_path / "again")
    a, b = weights(first.best_path), weights(same_classes.best_path)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    other = run_training(
        with_train(**still, classes=("NORM", "LBBB"), target="single"),
        processed,
        tmp_path / "other",
    )
    c = weights(other.best_path)
    assert (
        torch.allclose(a["stem.0.weight"], c["stem.0.weight"], atol=1e-6)
        and c["head.1.weight"].shape[0] == 2
    )
    kept = [
        first.card.classes.index(name) for name in ("NORM", "LBBB")
    ]  # outputs go by their names
    assert torch.allclose(a["head.1.weight"][kept], c["head.1.weight"], atol=1e-6)
    learned = [
        set(load_checkpoint(path).card.train_hashes) for path in (first.best_path, other.best_path)
    ]
    assert learned[0] == learned[1]  # what the first was trained on, the other has seen too
    with pytest.raises(ValueError, match="cannot start from it: it has leads"):
        run_training(with_train(**still, leads=("I", "II")), processed, tmp_path / "leads")


@pytest.fixture(scope="module")
def start(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("start")
    return str(run_training(with_train(epochs=1), processed, out).best_path)


@pytest.mark.parametrize("muon_lr", [0.0, 0.01])
def test_tuning_the_head_leaves_all_else_as_it_was(
    processed: Path, start: str, tmp_path: Path, muon_lr: float
) -> None:
    """The weights before the outputs, and the statistics of the batch norms."""
    tuned = run_training(
        with_train(epochs=1, init_from=start, tune="head", muon_lr=muon_lr), processed, tmp_path
    )
    before, after = weights(Path(start)), weights(tuned.best_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.1.weight", "head.1.bias"}
    assert all(parameter.requires_grad for parameter in tuned.model.parameters())


def test_tuning_by_layers_changes_the_head_most(
    processed: Path, start: str, tmp_path: Path
) -> None:
    tuned = run_training(
        with_train(epochs=1, init_from=start, tune="layerwise=0.01", weight_decay=0.0),
        processed,
        tmp_path,
    )
    before, after = weights(Path(start)), weights(tuned.best_path)

    def change(name: str) -> float:
        return float((after[name] - before[name]).norm() / before[name].norm())

    assert change("head.1.weight") > 1e-3 and change("stem.0.weight") < 1e-7
    assert tuned.history[0]["lr"] > 0


@pytest.mark.parametrize(
    ("tune", "muon_lr"),
    [
        ("head", 0.0),
        ("layerwise=0.5", 0.01),
        pytest.param("head", 0.01, marks=pytest.mark.slow),
        pytest.param("layerwise=0.5", 0.0, marks=pytest.mark.slow),
    ],
)
def test_a_tuned_run_is_resumed_bit_for_bit(
    processed: Path,
    start: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tune: str,
    muon_lr: float,
) -> None:
    settings: dict[str, object] = {"init_from": start, "tune": tune, "muon_lr": muon_lr}
    whole = run_training(with_train(**settings), processed, tmp_path / "whole")
    step, n_left = TrainState.step, [6]

    def counted(self: TrainState, *args: object) -> None:
        n_left[0] -= 1
        if n_left[0] < 0:
            raise StoppedError
        step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(TrainState, "step", counted)
        run_training(with_train(**settings), processed, tmp_path / "halves")
    halves = run_training(with_train(**settings), processed, tmp_path / "halves", resume=True)
    assert same(weights(whole.best_path), weights(halves.best_path))
    one, other = (
        load_checkpoint(tmp_path / name / "models" / "latest.pth").state["model"]
        for name in ("whole", "halves")
    )
    assert same(one, other)
    with pytest.raises(ValueError, match=f"it has tune {tune} where this run has all"):
        run_training(
            with_train(**settings | {"tune": "all"}), processed, tmp_path / "halves", resume=True
        )


@pytest.mark.parametrize(
    "tune", ["heads", "layerwise", "layerwise=0", "layerwise=2", "layerwise=x"]
)
def test_what_is_no_way_of_tuning_is_refused(tune: str) -> None:
    with pytest.raises(ValueError, match=r"tune is .*expected all, head, or layerwise=F"):
        TrainConfig(tune=tune, init_from="best.pth")


def test_tuning_needs_a_checkpoint_to_start_from() -> None:
    with pytest.raises(ValueError, match=r"^tune is 'head': expected all, or a checkpoint"):
        TrainConfig(tune="head")


def test_the_last_epochs_may_see_whole_records(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[set[int]] = []
    fitting = src.training.train_epoch

    def watched(state: Any, batches: Any, *rest: Any, **options: Any) -> float:
        lengths.append({batch.signal.shape[2] for batch in batches})
        return fitting(state, batches, *rest, **options)

    monkeypatch.setattr(src.training, "train_epoch", watched)
    result = run_training(with_train(epochs=3, crop_s=4.0, whole_epochs=1), processed, tmp_path)
    assert lengths == [{400}, {400}, {1000}]
    assert result.card.crop_samples == 0  # what the last epochs saw is what is predicted from
    with pytest.raises(ValueError, match="whole_epochs is 4"):
        with_train(epochs=3, whole_epochs=4)


def test_auxiliary_outputs_may_be_kept_and_dropped_later(processed: Path, tmp_path: Path) -> None:
    given = {"epochs": 1, "classes": ("NORM", "AF"), "target": "multi", "auxiliary_weight": 1.0}
    dropped = run_training(with_train(**given), processed, tmp_path / "dropped")
    kept = run_training(with_train(**given, keep_auxiliary=True), processed, tmp_path / "kept")
    assert (
        dropped.card.classes == ("NORM", "AF") == kept.card.classes[:2]
        and "LBBB" in kept.card.classes
    )
    keep_classes(str(kept.best_path), str(tmp_path / "two.pth"), ["NORM", "AF"])
    assert same(weights(tmp_path / "two.pth"), weights(dropped.best_path))
    with pytest.raises(ValueError, match="has no class FLU"):
        keep_classes(str(kept.best_path), str(tmp_path / "x.pth"), ["FLU"])


def test_early_stopping_waits_for_the_epochs_on_whole_records(
    processed: Path, tmp_path: Path
) -> None:
    result = run_training(
        with_train(epochs=6, lr=1e-9, patience=1, ema_decay=0.0, whole_epochs=1),
        processed,
        tmp_path,
    )
    assert len(result.history) == 6


def test_another_input_is_not_gone_on_with(processed: Path, tmp_path: Path) -> None:
    run_training(CONFIG, processed, tmp_path)
    for values, message in (
        ({"leads": ("I", "II", *STANDARD_LEADS[6:], "III", "aVR", "aVL", "aVF")}, "leads"),
        ({"normalization": "none"}, "normalization"),
        ({"crop_s": 4.0}, "crop_samples"),
        ({"ema_decay": 0.0}, "does not fit these settings"),
    ):
        with pytest.raises(
            ValueError, match=f"latest.pth: .*{message}.*start again without --resume"
        ):
            run_training(with_train(**values), processed, tmp_path, resume=True)


def test_short_crops_are_refused_and_long_ones_are_whole_records(
    processed: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"needs 250 samples or more, and inputs have 100: raise"):
        run_training(with_train(crop_s=1.0), processed, tmp_path)
    result = run_training(with_train(crop_s=20.0, epochs=1), processed, tmp_path)
    assert load_checkpoint(result.best_path).card.crop_samples == 0


@pytest.mark.parametrize(
    ("n_batches", "epochs"), [(1, 60), (53, 60), (54, 60), (100, 32), (136, 24), (6250, 8)]
)
def test_epochs_follow_the_number_of_records(n_batches: int, epochs: int) -> None:
    """As many as make 3,200 batches, at least 8 and at most 60."""
    assert settle_epochs(TrainConfig(), n_batches).epochs == epochs
    assert settle_epochs(TrainConfig(epochs=3), n_batches).epochs == 3


def test_a_run_without_epochs_of_its_own_says_how_many_it_had(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.learning.optimization.MIN_EPOCHS", 2)
    monkeypatch.setattr("src.learning.optimization.MAX_EPOCHS", 2)
    result = run_training(with_train(epochs=0), processed, tmp_path)
    assert len(result.history) == 2
    assert load_checkpoint(result.best_path).card.config["train"]["epochs"] == 2


def test_other_rates_are_not_gone_on_with(processed: Path, tmp_path: Path) -> None:
    run_training(with_train(epochs=1), processed, tmp_path)
    with pytest.raises(ValueError, match=r"it has lr 0\.002 where this run has 1e-05"):
        run_training(with_train(epochs=2, lr=1e-5), processed, tmp_path, resume=True)


def test_a_start_that_knows_validation_is_asked_about(
    processed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        src.training, "warn_trained_on", lambda source, hashes: asked.append(tuple(hashes))
    )
    start = trained / "models" / "best.pth"
    config = dataclasses.replace(
        QUICK, train=dataclasses.replace(QUICK.train, epochs=1, init_from=str(start))
    )
    run_training(config, processed, tmp_path)
    assert asked == [tuple(load_records(processed)["val"].signal_hashes)]


def test_fine_tuning_takes_the_network_of_the_checkpoint(processed: Path, tmp_path: Path) -> None:
    model = ModelConfig(base_channels=8, lead_mask=True)
    config = dataclasses.replace(with_train(epochs=1), model=model)
    first = run_training(config, processed, tmp_path / "first")
    tuned = with_train(epochs=1, init_from=str(first.best_path))
    unset = dataclasses.replace(tuned, model=ModelConfig())
    assert run_training(unset, processed, tmp_path / "tuned").card.model == model
    with pytest.raises(ValueError, match="lead_mask True where this run has False"):
        run_training(tuned, processed, tmp_path / "other")
