from __future__ import annotations

import pytest
import torch
from torch import nn

from src.config import TrainConfig
from src.learning.optimization import (
    HistoryRow,
    TrainState,
    WeightAverage,
    compile_network,
    cosine_with_warmup,
    list_weight_stages,
    make_optimizers,
    rate_weights,
    start_training,
)
from src.model import ResNet1d


def test_the_schedule_rises_and_falls() -> None:
    factors = [cosine_with_warmup(step, 100, 10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5) and factors[100] == pytest.approx(0)


def test_decay_spares_biases_and_norms() -> None:
    (optimizer,) = make_optimizers(
        torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3)), 1e-3, 0.1
    )
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3]


def test_without_a_compiler_training_goes_on_in_eager_mode(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(network: torch.nn.Module) -> torch.nn.Module:
        def run(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler")

        return run  # type: ignore[return-value]

    monkeypatch.setattr(torch, "compile", fail)
    model = ResNet1d(2, 2, base_channels=4)
    assert (
        compile_network(model, torch.zeros(2, 2, 250)) is model and "no C++ compiler" in caplog.text
    )


def test_muon_takes_the_kernels_behind_the_stem() -> None:
    model = ResNet1d(2, 2, base_channels=4)
    adamw, muon = make_optimizers(model, 1e-3, 0.1, muon_lr=0.02)
    n_kernels = sum(p.ndim == 3 for p in model.parameters())
    assert len(muon.param_groups[0]["params"]) == n_kernels - 1
    assert sum(len(group["params"]) for group in adamw.param_groups) + n_kernels - 1 == len(
        list(model.parameters())
    )


@pytest.mark.parametrize("clip_norm", [1.0, 0.0])
def test_an_overflow_is_skipped_by_every_optimizer(clip_norm: float) -> None:
    """Gradients of half precision run over now and then; clipping then spoils those of the others
    too.
    """
    state = start_training(
        ResNet1d(2, 2, base_channels=4),
        1,
        TrainConfig(muon_lr=0.02, device="cpu"),
        amp=torch.float16,
    )
    state.step(state.model(torch.randn(4, 2, 250)).sum(), clip_norm)
    before = [p.detach().clone() for p in state.model.parameters()]
    state.model.stem[0].weight.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[union-attr]
    state.step(state.model(torch.randn(4, 2, 250)).sum(), clip_norm)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_a_network_without_batch_norms_is_averaged() -> None:
    """It has no counters, so one of the two kinds of tensors is missing."""
    model = torch.nn.Linear(2, 1)
    average = WeightAverage(model, decay=0.5)
    for _ in range(2):
        average.update_parameters(model)
        with torch.no_grad():
            model.weight += 1
    # The first step copies; in the second the decay is at most 2 / 11.
    torch.testing.assert_close(average.module.weight, model.weight - 1 - 2 / 11)


OUTPUTS = frozenset({"head.1.weight", "head.1.bias"})


def rates_of(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[str, float]:
    """Return name -> learning rate of each weight that an optimizer trains."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: group["lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_layerwise_rates_fall_from_the_head_to_the_stem() -> None:
    """Of seven stages (stem, five blocks, head) the stem is six steps away from the head."""
    model = ResNet1d(2, 2, base_channels=4)
    rates = rate_weights(model, "layerwise=0.5", OUTPUTS)
    (adamw,) = make_optimizers(model, 0.64, 0.1, rates=rates)
    found = rates_of(adamw, model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, rate in found.items():
        depth = 0
        if name.startswith("stages."):
            depth = 7 - int(name.split(".")[1])  # blocks 2 to 6
        elif name.startswith("stem."):
            depth = 6
        assert rate == pytest.approx(0.64 * 0.5**depth), name
    # The first rate is the one that logs show.
    assert adamw.param_groups[0]["lr"] == 0.64
    decays = {group["weight_decay"] for group in adamw.param_groups if group["params"]}
    assert decays == {0.0, 0.1}

    adamw, muon = make_optimizers(model, 0.64, 0.1, muon_lr=0.02, rates=rates)
    of_muon = rates_of(muon, model)
    assert of_muon["stages.6.body.0.0.weight"] == pytest.approx(0.01)
    assert of_muon["stages.2.body.0.0.weight"] == pytest.approx(0.02 * 0.5**5)
    assert set(of_muon) | set(rates_of(adamw, model)) == set(found)
    assert {group["weight_decay"] for group in muon.param_groups} == {0.1}


def test_the_head_alone_is_trained() -> None:
    model = ResNet1d(2, 2, base_channels=4)
    rates = rate_weights(model, "head", OUTPUTS)
    for muon_lr in (0.0, 0.02):
        (adamw,) = make_optimizers(model, 0.1, 0.1, muon_lr=muon_lr, rates=rates)
        assert rates_of(adamw, model) == dict.fromkeys(OUTPUTS, 0.1)
    with pytest.raises(ValueError, match="no weights of its outputs alone"):
        rate_weights(model, "head", frozenset())


def test_all_weights_keep_their_two_groups() -> None:
    model = ResNet1d(2, 2, base_channels=4)
    assert rate_weights(model, "all", OUTPUTS) == {}
    (adamw,) = make_optimizers(model, 0.1, 0.1)
    assert len(adamw.param_groups) == 2 and set(rates_of(adamw, model).values()) == {0.1}


class Odd(torch.nn.Module):
    """Defines its head first, has a weight of its own, and uses one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.out = torch.nn.Linear(3, 2)
        self.first = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1), torch.nn.BatchNorm1d(3))
        self.second = torch.nn.Linear(3, 3)
        self.again = self.second
        self.nothing = torch.nn.ReLU()


def test_stages_of_any_network() -> None:
    model = Odd()
    stages = list_weight_stages(model)
    assert [stage[0] for stage in stages] == ["scale", "first.0.weight", "second.weight"]
    assert sum(map(len, stages)) == len(list(model.parameters()))
    rates = rate_weights(model, "layerwise=0.1", frozenset({"out.weight", "out.bias"}))
    # The stage of the outputs counts as the last.
    assert rates["out.weight"] == 1.0
    assert rates["second.weight"] == pytest.approx(0.1)
    assert rates["first.1.bias"] == pytest.approx(0.01)
    assert list_weight_stages(torch.nn.ReLU()) == [[]]


def test_of_epochs_with_one_metric_the_lowest_loss_is_the_best() -> None:
    """Few validation records give the same F1 in many epochs in which the network learns."""
    state = TrainState(
        nn.Identity(), nn.Identity(), [], [], torch.amp.GradScaler(enabled=False), None
    )
    best = []
    for epoch, (f1, loss) in enumerate(
        [(0.4, 0.9), (0.4, 0.7), (0.4, 0.8), (0.3, 0.1), (0.4, None), (0.5, 2.0), (0.5, 2.0)], 1
    ):
        row: HistoryRow = {
            "epoch": epoch,
            "train_loss": 1.0,
            "val_loss": loss,
            "val_f1_macro": f1,
            "val_auroc_macro": 0.5,
            "lr": 0.1,
            "seconds": 1.0,
        }
        state.end_epoch(row, "val_f1_macro", has_validation=True)
        best.append(state.best_epoch)
    assert best == [1, 2, 2, 2, 2, 6, 6]
