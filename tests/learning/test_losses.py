from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from settings import QUICK

from src.config import Config, TrainConfig
from src.learning import losses
from src.learning.distributed import Processes
from src.learning.losses import choose_loss, make_loss, prepare_loss, try_loss, with_auxiliary
from src.training import run_training
from src.utils import load_json

NAN = float("nan")


def test_cross_entropy_leaves_out_classes_that_were_not_looked_for() -> None:
    loss = make_loss(single_label=True)
    logits, nan = torch.tensor([[1.0, 2.0, 99.0]]), float("nan")
    assert float(loss(logits, torch.tensor([[1.0, 0.0, nan]]))) == pytest.approx(
        math.log(1 + math.e), abs=1e-5
    )


def test_rare_classes_weigh_more_in_the_balanced_loss() -> None:
    loss = make_loss(single_label=True, function=choose_loss("balanced", single_label=True))
    target = torch.eye(2)[[0, 0, 0, 1]]
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    usual, rare = 0.75**-0.3, 0.25**-0.3
    expected = (3 * usual * right + rare * wrong) / (3 * usual + rare)
    assert float(loss(logits, target)) == pytest.approx(expected, rel=1e-5)
    even = torch.eye(2)[[0, 1, 0, 1]]
    plain = torch.nn.CrossEntropyLoss()(logits, even)
    assert float(loss(logits, even)) == pytest.approx(float(plain), rel=1e-5)
    unknown = torch.tensor([[1.0, NAN], [1.0, NAN]])
    assert float(loss(logits[:2], unknown)) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="loss is balanced, but records carry several labels"):
        choose_loss("balanced", single_label=False)


def test_binary_loss_is_the_mean_over_known_targets() -> None:
    loss = make_loss(single_label=False)
    logits = torch.tensor([[0.0, 50.0], [2.0, -1.0]])
    target = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    assert float(loss(logits, target)) == pytest.approx(
        (math.log(2) + math.log(1 + math.exp(2))) / 2, abs=1e-5
    )
    assert float(loss(logits, torch.full((2, 2), float("nan")))) == 0


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


# Named losses -------------------------------------------------------------------------------------


def test_auto_follows_the_number_of_labels() -> None:
    assert choose_loss("auto", True) is choose_loss("cross-entropy", True)
    assert choose_loss("auto", False) is choose_loss("bce", False)
    assert choose_loss("bce", True) is losses.binary_cross_entropy


def test_the_focal_loss_is_that_of_the_paper() -> None:
    """Lin et al. 2017: -(1 - p_t)^2 log p_t, with p_t = p where present and 1 - p elsewhere."""
    logits, target = torch.tensor([[0.7, -1.2]]), torch.tensor([[1.0, 0.0]])
    found = losses.focal_loss(logits, target, target > 0)
    for column, p_t in enumerate((1 / (1 + math.exp(-0.7)), 1 - 1 / (1 + math.exp(1.2)))):
        assert float(found[0, column]) == pytest.approx(-((1 - p_t) ** 2) * math.log(p_t))


def test_the_asymmetric_loss_is_that_of_the_paper() -> None:
    """Ridnik et al. 2021: gammas 1 and 4, and probabilities of absent classes less 0.05."""
    logits = torch.tensor([[0.7, 1.2, -4.0]])
    found = losses.asymmetric_loss(logits, torch.tensor([[1.0, 0.0, 0.0]]), logits > 0)
    p, q = 1 / (1 + math.exp(-0.7)), 1 / (1 + math.exp(-1.2))
    assert float(found[0, 0]) == pytest.approx(-(1 - p) * math.log(p), rel=1e-5)
    assert float(found[0, 1]) == pytest.approx(
        -((q - 0.05) ** 4) * math.log(1 - (q - 0.05)), rel=1e-5
    )
    assert float(found[0, 2]) == 0  # its probability of 0.018 is below 0.05


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_losses_and_gradients_are_finite_and_skip_unknown_entries(name: str) -> None:
    loss = make_loss(False, function=choose_loss(name, False))
    logits = torch.tensor([[80.0, -80.0, 0.3], [-80.0, 80.0, 0.0]], requires_grad=True)
    target = torch.tensor([[0.0, 1.0, 0.4], [1.0, NAN, NAN]])
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()
    assert gradient[1, 1] == gradient[1, 2] == 0
    other = logits.detach().clone()
    other[1, 1:] = -3
    assert float(loss(other, target)) == float(value.detach())


def test_smoothing_comes_before_the_function() -> None:
    seen: list[torch.Tensor] = []

    def look(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        seen.extend((target, known))
        return logits

    make_loss(False, 0.2, function=look)(torch.zeros(1, 2), torch.tensor([[1.0, NAN]]))
    assert seen[0][0, 0] == pytest.approx(0.9) and not seen[0].isnan().any()
    assert seen[1].tolist() == [[True, False]]
    make_loss(True, 0.2, function=look)(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, NAN]]))
    torch.testing.assert_close(seen[2], torch.tensor([[0.9, 0.1, 0.0]]))


# A function of one's own --------------------------------------------------------------------------


def squared(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return (logits.sigmoid() - target) ** 2


def squared_mean(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return squared(logits, target, known)[known].mean()


def test_losses_of_entries_are_averaged_over_known_ones_and_one_number_is_kept() -> None:
    logits, target = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[1.0, NAN], [0.0, 0.0]])
    by_entry = make_loss(False, function=squared)(logits, target)
    p = 1 / (1 + math.exp(-1))
    assert float(by_entry) == pytest.approx((0.25 + p * p + 0.25) / 3)
    assert float(make_loss(False, function=squared_mean)(logits, target)) == pytest.approx(
        float(by_entry)
    )


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (
            lambda logits, target: logits,
            "loss mine: failed with TypeError: .*3 were given; expected",
        ),
        (lambda logits, target, known: 1.0, "returned a float"),
        (lambda logits, target, known: logits.mean(dim=1), r"returned the shape \(2,\)"),
        (lambda logits, target, known: target, "without a gradient"),
        (lambda logits, target, known: logits / 0, "not finite"),
        (lambda logits, target, known: (logits * 0).sqrt(), "has no finite gradient"),
    ],
)
def test_what_is_no_loss_is_one_line(function: Callable[..., object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        try_loss(function, "mine", 3, "cpu")  # type: ignore[arg-type]
    assert "\n" not in str(raised.value) and "(2, 3)" in str(raised.value)


def test_the_trial_draws_no_random_number_of_the_run() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    try_loss(lambda z, y, known: z * torch.rand_like(z), "mine", 3, "cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_several_labels_have_no_cross_entropy() -> None:
    with pytest.raises(ValueError, match="several labels: expected bce, focal, asymmetric or auto"):
        prepare_loss("cross-entropy", False, 3, "cpu")
    with pytest.raises(ValueError, match="loss is 'cross-entropy': expected bce"):
        TrainConfig(loss="cross-entropy", target="multi")
    with pytest.raises(
        ValueError, match=r"loss is 'huber': expected one of auto, bce, .*:function"
    ):
        TrainConfig(loss="huber")


# Training with them -------------------------------------------------------------------------------


def with_loss(loss: str, **train: object) -> Config:
    values = {"epochs": 2, "label_smoothing": 0.1, "mixup": 0.3, **train}
    return dataclasses.replace(QUICK, train=dataclasses.replace(QUICK.train, loss=loss, **values))


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_named_losses_train(processed: Path, tmp_path: Path, name: str) -> None:
    config = with_loss(name, target="multi", classes=("NORM", "AF"), auxiliary_weight=0.5)
    history = run_training(config, processed, tmp_path).history
    assert history[1]["train_loss"] < history[0]["train_loss"]
    named = load_json(tmp_path / "training_log.json")["loss"]
    assert named == {"bce": "binary cross-entropy"}.get(name, name)


def test_a_function_trains_by_its_path_as_in_python_and_is_named_in_the_run(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_losses.py").write_text(
        "def squared(logits, target, known):\n    return (logits.sigmoid() - target) ** 2\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    by_path = run_training(with_loss("own_losses:squared"), processed, tmp_path / "path")
    given = run_training(with_loss("auto"), processed, tmp_path / "given", loss=squared)
    assert [row["train_loss"] for row in by_path.history] == [
        row["train_loss"] for row in given.history
    ]
    assert by_path.card.config["train"]["loss"] == "own_losses:squared"
    log = load_json(tmp_path / "given" / "training_log.json")
    assert log["loss"] == log["config"]["train"]["loss"] == f"{__name__}:squared"


def test_a_wrong_function_ends_before_the_first_epoch(processed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loss math:isfinite: failed with TypeError"):
        run_training(with_loss("math:isfinite"), processed, tmp_path)
    assert not (tmp_path / "models").exists()
