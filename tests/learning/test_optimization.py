from __future__ import annotations

import pytest
import torch

from src.config import TrainConfig
from src.learning.optimization import (
    WeightAverage,
    compile_network,
    cosine_with_warmup,
    make_optimizers,
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
