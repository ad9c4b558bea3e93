from __future__ import annotations

import math

import pytest
import torch

from src.config import TrainConfig
from src.learning.distributed import Processes
from src.learning.optimization import (
    compile_network,
    cosine_with_warmup,
    make_loss,
    make_optimizers,
    start_training,
    with_auxiliary,
)
from src.model import ResNet1d


def test_cross_entropy_leaves_out_classes_that_were_not_looked_for() -> None:
    loss = make_loss(single_label=True)
    logits, nan = torch.tensor([[1.0, 2.0, 99.0]]), float("nan")
    assert float(loss(logits, torch.tensor([[1.0, 0.0, nan]]))) == pytest.approx(
        math.log(1 + math.e), abs=1e-5
    )


def test_binary_loss_is_the_mean_over_known_targets() -> None:
    loss = make_loss(single_label=False)
    logits = torch.tensor([[0.0, 50.0], [2.0, -1.0]])
    target = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    assert float(loss(logits, target)) == pytest.approx(
        (math.log(2) + math.log(1 + math.exp(2))) / 2, abs=1e-5
    )
    assert float(loss(logits, torch.full((2, 2), float("nan")))) == 0


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


def test_label_smoothing_shares_among_the_known_classes() -> None:
    loss = make_loss(single_label=True, label_smoothing=0.2)
    logits, target = torch.tensor([[1.0, 2.0, 99.0]]), torch.tensor([[1.0, 0.0, float("nan")]])
    log_z = math.log(math.e + math.e**2)
    assert float(loss(logits, target)) == pytest.approx(
        0.9 * (log_z - 1) + 0.1 * (log_z - 2), abs=1e-5
    )
    plain = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(logits, torch.tensor([0]))
    assert float(loss(logits, torch.tensor([[1.0, 0.0, 0.0]]))) == pytest.approx(
        float(plain), rel=1e-5
    )


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


def test_an_auxiliary_loss_is_added_with_its_weight() -> None:
    main = make_loss(single_label=True)
    loss = with_auxiliary(main, 2, 0.5)
    logits, target = (
        torch.tensor([[1.0, 2.0, 0.0, 0.0]]),
        torch.tensor([[0.0, 1.0, 1.0, float("nan")]]),
    )
    assert float(loss(logits, target)) == pytest.approx(
        float(main(logits[:, :2], target[:, :2])) + 0.5 * math.log(2), rel=1e-6
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


def test_processes_share_the_number_of_known_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with 1 and 3 known entries: together the mean over 4, as in one process."""
    nan = float("nan")
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.1]])
    targets = torch.tensor([[1.0, nan], [0.0, 1.0]])
    extra = torch.tensor([[1.0, nan], [nan, nan]])
    alone = make_loss(single_label=False)(torch.cat([logits, logits]), torch.cat([targets, extra]))
    monkeypatch.setattr(
        "src.learning.distributed.dist.all_reduce", lambda count: count.fill_(3 + 1)
    )
    shared = make_loss(single_label=False, processes=Processes(0, 2))
    losses = [float(shared(logits, target)) for target in (targets, extra)]
    assert sum(losses) / 2 == pytest.approx(float(alone))
    # No known entry anywhere divides by 1, in one process and in two
    monkeypatch.setattr("src.learning.distributed.dist.all_reduce", lambda count: count.fill_(0))
    assert float(shared(logits, torch.full((2, 2), nan))) == 0
