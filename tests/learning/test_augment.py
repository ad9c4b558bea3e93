from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from settings import QUICK

from src.config import TrainConfig
from src.learning.augment import (
    Augmentation,
    SignalFacts,
    Transform,
    build_augmentation,
    cut_lengths,
    drop_leads,
    mix_records,
    shift_in_time,
)
from src.learning.checkpoints import load_checkpoint
from src.learning.optimization import TrainState
from src.training import run_training


def test_some_leads_of_some_records_are_zeroed_never_all() -> None:
    torch.manual_seed(0)
    signal = torch.ones(400, 12, 5)
    dropped = drop_leads(signal, 0.5)
    alive = (dropped != 0).all(dim=2)
    assert ((dropped == 0).all(dim=2) | alive).all()
    n_alive = alive.sum(dim=1)
    assert n_alive.min() >= 1 and 120 < int((n_alive < 12).sum()) < 280
    assert drop_leads(signal, 0.0) is signal and drop_leads(signal[:, :1], 1.0).all()


def test_records_are_blended_with_their_targets() -> None:
    torch.manual_seed(1)
    signal = torch.tensor([0.0, 1.0]).reshape(2, 1, 1).expand(2, 3, 4)
    target = torch.tensor([[0.0], [1.0]])
    for _ in range(5):
        mixed, blended = mix_records(signal, target, 0.4)
        torch.testing.assert_close(mixed[:, 0, 0], blended[:, 0])
        assert blended.min() >= 0 and blended.max() <= 1
    same, _ = mix_records(signal, target, 0.0)
    assert same is signal
    assert mix_records(signal, torch.tensor([[float("nan")], [1.0]]), 0.4)[1].isnan().any()


# Named transforms ---------------------------------------------------------------------------------


LEADS = ("I", "II", "III", "V2")
EVERY = (
    "crop=0.5,limb-swap=0.5,gain=0.2,lead-gain=0.1,shift=0.3,wander=0.3,noise=0.05,hum=0.05,"
    "offset=0.1,lead-subset=0.3,lead-dropout=0.3,mixup=0.3"
)


def settings(augment: str, **values: Any) -> TrainConfig:
    return TrainConfig(augment=tuple(augment.split(",")), leads=LEADS, **values)


def build(augment: str, transform: Transform | None = None, **values: Any) -> Augmentation:
    return build_augmentation(settings(augment, **values), transform, fs=200.0)


@pytest.fixture
def signal() -> torch.Tensor:
    """64 records of 200 samples: some are padded after 150, and some lack lead III.

    The padding is not quite 0, as the packed cache restores it.
    """
    torch.manual_seed(0)
    records = torch.randn(64, 4, 200)
    records[:32, :, 150:] = 1e-5
    records[::2, 2] = 0
    return records


def run(augment: Augmentation, signal: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return augment(signal, torch.zeros(len(signal), 2), torch.arange(len(signal)))[0]


ADDED = ("wander=0.3", "noise=0.05", "hum=0.05", "offset=0.1")


@pytest.mark.parametrize("text", ["gain=0.2", "lead-gain=0.2", "shift=0.2", "limb-swap=1", *ADDED])
def test_padding_and_absent_leads_stay_as_they_are(text: str, signal: torch.Tensor) -> None:
    found = run(build(text), signal)
    assert found.shape == signal.shape
    assert (found[::2, 2] == 0).all() and (
        (found != 0).any(dim=2) == (signal != 0).any(dim=2)
    ).all()
    torch.testing.assert_close(found[:32, :, 150:], signal[:32, :, 150:], atol=3e-5, rtol=0)
    changed = (found != signal).flatten(1).any(dim=1)
    assert changed[1::2].float().mean() > 0.9  # a shift may be of 0


def test_a_record_of_zeros_stays_one() -> None:
    assert not run(build(EVERY), torch.zeros(4, 4, 200)).any()


@pytest.mark.parametrize("text", [EVERY, *EVERY.split(",")])
def test_the_random_numbers_are_those_of_torch(text: str, signal: torch.Tensor) -> None:
    augment = build(text)
    first, again, other = (run(augment, signal, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert torch.isfinite(first).all()


def test_every_step_stays_on_the_device_of_the_batch() -> None:
    """On torch's device without memory, which refuses tensors of another one."""
    augment = build_augmentation(settings(EVERY), fs=200.0, per_mv=torch.ones(8), device="meta")
    signal, target = torch.zeros(8, 4, 100, device="meta"), torch.zeros(8, 2, device="meta")
    found, mixed = augment(signal, target, torch.arange(8))
    assert found.is_meta and mixed.is_meta and found.dtype == torch.float32


def test_strengths_are_in_mv_by_the_scale_of_each_record() -> None:
    """Of two collections, one has 4 units per mV: its offset is four times as large."""
    augment = build_augmentation(settings("offset=0.5"), fs=100.0, per_mv=torch.tensor([4.0, 1.0]))
    signal = torch.ones(400, 4, 10)
    row = torch.arange(400) % 2
    torch.manual_seed(0)
    found, _ = augment(signal, torch.zeros(400, 1), row)
    largest = [float((found - 1)[row == n].abs().max()) for n in (0, 1)]
    assert largest == pytest.approx([2.0, 0.5], rel=0.02)


def test_gains_are_of_records_and_of_leads() -> None:
    ones = torch.ones(300, 4, 5)
    by_record, by_lead = (run(build(f"{name}=0.2"), ones) for name in ("gain", "lead-gain"))
    for found in (by_record, by_lead):
        assert 0.8 <= found.min() < 0.81 and 1.19 < found.max() <= 1.2
        assert (found == found[:, :, :1]).all()
    assert (by_record == by_record[:, :1]).all() and not (by_lead == by_lead[:, :1]).all()


def test_a_shift_moves_the_valid_samples_around() -> None:
    signal = torch.zeros(100, 1, 12)
    signal[:, 0, :10] = torch.arange(1, 11)
    found = shift_in_time(signal, 3)
    first = found[:, 0, 0]
    assert set(first.tolist()) == {1, 2, 3, 4, 8, 9, 10}
    for record, start in zip(found[:, 0], first.long().tolist(), strict=True):
        assert record.tolist() == [*range(start, 11), *range(1, start), 0, 0]


def test_lengths_differ_by_batch_and_places_by_record() -> None:
    signal = torch.arange(1.0, 201).expand(50, 2, -1).clone()
    signal[:, :, 120:] = 0
    torch.manual_seed(0)
    lengths = set()
    for _ in range(40):
        found = cut_lengths(signal, 60)
        lengths.add(found.shape[2])
        is_padded = found.shape[2] > 120
        assert ((found[:, 0, -1] == 0) == is_padded).all()
        assert len(found[:, 0, 0].unique()) > 1 or found.shape[2] >= 120
    assert lengths == {60, 80, 100, 120, 140, 160, 180, 200}
    assert cut_lengths(signal, 0) is signal and cut_lengths(signal, 200) is signal


def test_swaps_change_complete_records_only(signal: torch.Tensor) -> None:
    complete = run(build("limb-swap=0.5"), signal)[1::2]
    before = signal[1::2]
    is_swapped = (complete != before).flatten(1).any(dim=1)
    assert 5 < int(is_swapped.sum()) < 27
    torch.testing.assert_close(complete[:, 3], before[:, 3])
    for found, record in zip(complete[is_swapped], before[is_swapped], strict=True):
        candidates = [(-1, 0), (1, 1), (-1, 2)]  # lead I becomes -I, II or -III
        assert any(torch.equal(found[0], sign * record[row]) for sign, row in candidates)


def test_sets_of_leads_are_kept(signal: torch.Tensor) -> None:
    found = run(build("lead-subset=1"), signal.abs() + 1)
    present = {tuple(row) for row in (found != 0).all(dim=2).tolist()}
    expected = {"I II V2", "I II III", "I II", "II", "I"}
    assert present == {tuple(lead in names.split() for lead in LEADS) for names in expected}
    only_third = torch.zeros(20, 4, 5)
    only_third[:, 2] = 1
    kept = run(build("lead-subset=1"), only_third)
    assert (kept[:, 2] == 1).all()


def test_named_and_older_settings_are_one(signal: torch.Tensor) -> None:
    target = torch.rand(64, 2)
    found = []
    for augment in (
        build("lead-dropout=0.4,mixup=0.3"),
        build_augmentation(TrainConfig(lead_dropout=0.4, mixup=0.3)),
    ):
        torch.manual_seed(3)
        found.append(augment(signal, target, torch.arange(64)))
    torch.manual_seed(3)
    found.append(mix_records(drop_leads(signal, 0.4), target, 0.3))
    assert all(torch.equal(a, b) for pair in found[1:] for a, b in zip(found[0], pair, strict=True))
    assert run(Augmentation(), signal) is signal


@pytest.mark.parametrize(
    ("augment", "problem"),
    [
        ("gain", "augment is 'gain': expected NAME=STRENGTH with a name of crop, limb-swap"),
        ("loud=1", "augment is 'loud=1': expected NAME=STRENGTH"),
        ("gain=2", r"augment is 'gain=2': expected a strength \(share\) of 0 to 1"),
        ("noise=-1", r"expected a strength \(mV\) of 0 or more"),
        ("noise=much", "augment is 'noise=much'"),
        ("noise=nan", "augment is 'noise=nan'"),
        ("noise=inf", "augment is 'noise=inf'"),
        ("gain=0.1,gain=0.2", "expected gain only once"),
        ("a:b,a:b", "expected each function once"),
    ],
)
def test_a_wrong_setting_is_named(augment: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        settings(augment)


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no mixup, which has a setting of its own that is 0\.2"):
        settings("mixup=0.1", mixup=0.2)
    with pytest.raises(ValueError, match="no crop beside whole_epochs"):
        settings("crop=1", whole_epochs=1)
    with pytest.raises(ValueError, match="signals of 100 Hz hold none of 50 or 60 Hz"):
        build_augmentation(settings("hum=0.1"), fs=100.0)
    with pytest.raises(ValueError, match="the network has the leads V1: expected I and II"):
        build_augmentation(TrainConfig(augment=("limb-swap=0.1",), leads=("V1",)), fs=100.0)


# A transform of one's own -------------------------------------------------------------------------


def brighten(
    signal: torch.Tensor, target: torch.Tensor, facts: SignalFacts
) -> tuple[torch.Tensor, torch.Tensor]:
    return signal + facts.per_mv * torch.rand(len(signal), 1, 1), target


def test_a_transform_of_ones_own_leaves_padding_too(signal: torch.Tensor) -> None:
    found = run(build("mixup=0", brighten), signal)
    assert (found[::2, 2] == 0).all() and torch.equal(found[:32, :, 150:], signal[:32, :, 150:])
    assert (found[32:, 0] != signal[32:, 0]).all()


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        (lambda signal, target: signal, "failed with TypeError"),
        (lambda signal, target, facts: signal, "returned a Tensor;"),
        (lambda signal, target, facts: (signal, 1), "returned a int as target"),
        (lambda signal, target, facts: (signal[:1], target), r"a signal of shape \(1, 4, 250\)"),
        (lambda signal, target, facts: (signal.double(), target), "and type float64"),
        (lambda signal, target, facts: (signal / 0, target), "a signal that is not finite"),
    ],
)
def test_what_is_no_transform_is_one_line(transform: Transform, problem: str) -> None:
    augment = build_augmentation(TrainConfig(leads=LEADS), transform, fs=100.0)
    with pytest.raises(ValueError, match=problem) as raised:
        augment.try_transforms(250, 3)
    assert "\n" not in str(raised.value)
    assert "to return a signal (2, 4, 250) and a target (2, 3)" in str(raised.value)


def test_the_trial_draws_no_random_number_of_the_run() -> None:
    before = torch.get_rng_state()
    build_augmentation(TrainConfig(leads=LEADS), brighten).try_transforms(250, 3)
    assert torch.equal(before, torch.get_rng_state())


# Training with them -------------------------------------------------------------------------------


class StoppedError(Exception):
    """Ends a run in the middle."""


def test_a_run_with_every_transform_is_resumed_bit_for_bit(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = tuple(item for item in EVERY.split(",") if item[:3] not in ("hum", "cro"))
    train = dataclasses.replace(
        QUICK.train, epochs=3, augment=(*every, "crop=5"), normalization="global"
    )
    config = dataclasses.replace(QUICK, train=train)
    whole = run_training(config, processed, tmp_path / "whole", transform=brighten)
    step, left = TrainState.step, [4]

    def counted(self: TrainState, *args: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError
        step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(TrainState, "step", counted)
        run_training(config, processed, tmp_path / "broken", transform=brighten)
    torch.rand(5)
    result = run_training(config, processed, tmp_path / "broken", transform=brighten, resume=True)
    assert [row["train_loss"] for row in result.history] == [
        row["train_loss"] for row in whole.history
    ]
    weights = [
        load_checkpoint(tmp_path / run / "models" / "latest.pth").weights
        for run in ("whole", "broken")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert result.card.config["train"]["augment"][-1] == f"{__name__}:brighten"


def test_crops_that_are_too_short_for_the_network_are_refused(
    processed: Path, tmp_path: Path
) -> None:
    train = dataclasses.replace(QUICK.train, augment=("crop=1",))
    with pytest.raises(ValueError, match=r"augment has crop=1: expected 2\.5 s and more"):
        run_training(dataclasses.replace(QUICK, train=train), processed, tmp_path)
