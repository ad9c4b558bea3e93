from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from settings import QUICK, compute_fingerprint

from src.learning.checkpoints import load_checkpoint
from src.learning.leaks import (
    TrainingRecordings,
    drop_copies,
    refuse_overlap,
    refuse_predicted_overlap,
    refuse_teachers,
    refuse_trained_on,
    warn_trained_on,
)
from src.learning.predictions import Predictions
from src.processed.targets import LabelledRecords, load_records


@pytest.fixture(scope="module")
def prints() -> list[str]:
    """Return the fingerprints of five recordings of noise."""
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(5, 12, 5000)).astype(np.float32)
    return [compute_fingerprint(signal, 500.0) for signal in signals]


def test_training_recordings_are_found(prints: list[str]) -> None:
    training = TrainingRecordings(prints[:3])
    assert training.contains(prints[2:]).tolist() == [True, False, False]
    assert training.count(prints) == 3 and training.count([]) == 0
    assert training.are_known and not TrainingRecordings(()).are_known
    assert not TrainingRecordings(()).contains(prints).any()


def test_evaluation_on_training_recordings_is_refused(
    prints: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    refuse_overlap(prints[:3], ["d", "e"], prints[3:], "test")
    assert not caplog.text
    refuse_overlap((), ["a"], prints[:1], "test")
    assert "the checkpoint does not say which recordings the model was trained on" in caplog.text
    with pytest.raises(
        ValueError,
        match=r"1 of 3 records of split test are recordings that the model was trained on: c; "
        r".*--allow-overlap",
    ):
        refuse_overlap(prints[:3], ["c", "d", "e"], prints[2:], "test")
    refuse_overlap(prints, ["c"], prints[2:3], "train")
    assert "1 of 1 records of split train" in caplog.text


def test_only_some_of_many_keys_are_listed(prints: list[str]) -> None:
    keys = [f"r{i:02d}" for i in range(11)]
    with pytest.raises(ValueError, match=r"11 of 11 .*: r00, .*, r09 \.\.\.; evaluate"):
        refuse_overlap(prints[:1], keys, prints[:1] * 11, "test")


def test_validation_on_recordings_that_the_start_knows_is_warned_of(
    processed: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records, checkpoint = load_records(processed), load_checkpoint(trained / "models" / "best.pth")
    warn_trained_on(checkpoint, records["val"].signal_hashes)
    assert not caplog.text
    warn_trained_on(checkpoint, records["train"].signal_hashes)
    n_train = len(records["train"])
    assert f"was trained on {n_train} of the {n_train} recordings of val" in caplog.text


def test_a_start_that_knows_held_out_recordings_is_refused(processed: Path, trained: Path) -> None:
    records, start = load_records(processed), trained / "models" / "best.pth"
    config = replace(QUICK, train=replace(QUICK.train, init_from=str(start)))
    held_out = [
        (records[name].signal_hashes, f"the recordings of {name}") for name in ("test", "train")
    ]
    refuse_trained_on(QUICK, held_out)
    refuse_trained_on(config, held_out[:1])
    with pytest.raises(ValueError, match=r"best\.pth: was trained on \d+ of the recordings of tr"):
        refuse_trained_on(config, held_out)


def test_copies_of_held_out_recordings_are_dropped(processed: Path) -> None:
    splits = load_records(processed)
    train, test = splits["train"], splits["test"]
    copies = replace(train, signal_hashes=(test.signal_hashes[0], *train.signal_hashes[1:]))
    assert drop_copies(copies, test).keys == train.keys[1:]
    assert drop_copies(train, test) == train


def records_of(keys: str, hashes: list[str]) -> LabelledRecords:
    empty = ("",) * len(keys)
    return LabelledRecords(
        Path("p"), tuple(keys), (), (), empty, empty, tuple(hashes), (1.0,) * len(keys)
    )


def predictions_of(keys: str, **hashes: tuple[str, ...]) -> Predictions:
    ones = np.ones((len(keys), 1))
    return Predictions(tuple(keys), ones, ones, ("A",), **hashes)


def test_soft_targets_of_networks_that_know_held_out_records_are_refused(
    prints: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    held_out = {"val": records_of("d", prints[3:4]), "test": records_of("xe", prints[2:4])}
    soft = predictions_of("abc", train_hashes=tuple(prints[:2]))
    refuse_teachers(soft, "soft.npz", held_out)
    assert not caplog.records
    # By the recording, not by its key
    soft = predictions_of("abc", train_hashes=tuple(prints[:3]))
    with pytest.raises(
        ValueError, match=r"soft\.npz: .* were trained on 1 of the 2 records of split test; make"
    ):
        refuse_teachers(soft, "soft.npz", held_out)
    # An older file does not say so: it is refused by its keys
    refuse_teachers(predictions_of("abc"), "old.npz", held_out)
    assert "old.npz: does not say which recordings" in caplog.text
    with pytest.raises(ValueError, match="may have been trained on 1 of the 1 records of"):
        refuse_teachers(predictions_of("abcd"), "old.npz", held_out)


def test_predictions_of_training_recordings_are_not_compared(
    prints: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    known = {"train_hashes": tuple(prints[:2])}
    refuse_predicted_overlap(predictions_of("ab", signal_hashes=tuple(prints[2:4]), **known), "p")
    assert not caplog.records
    with pytest.raises(ValueError, match=r"p\.npz: 1 of the 2 records .*--allow-overlap"):
        refuse_predicted_overlap(
            predictions_of("ab", signal_hashes=tuple(prints[1:3]), **known), "p.npz"
        )
    refuse_predicted_overlap(predictions_of("ab"), "old.npz")
    assert "old.npz: does not say" in caplog.text
