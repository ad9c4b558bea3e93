from __future__ import annotations

import random
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.config import ModelConfig, PreprocessConfig
from src.learning.checkpoints import ModelCard, load_checkpoint, save_checkpoint
from src.model import build_model, load_model
from src.processed.normalization import Normalization
from src.utils import restore_rng_state, rng_state

CARD = ModelCard(
    ("A", "B"),
    True,
    ModelConfig(base_channels=8),
    PreprocessConfig(fs=100.0, n_samples=1000),
    thresholds=(0.1, 0.2),
    config={"a": [1]},
    train_hashes=("x",),
)


def test_a_disk_that_takes_no_more_is_named(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk, at every place in the file."""
    card, weights = ModelCard(("A",), True), {"a": torch.zeros(20_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 100, 5_000, 70_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(OSError, match=r"File too large: '.*latest\.pth'"):
                save_checkpoint(tmp_path / "latest.pth", card, weights)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_enough_on_its_own(tmp_path: Path) -> None:
    model = build_model(CARD).eval()
    save_checkpoint(tmp_path / "m" / "best.pth", CARD, model.state_dict(), {"epoch": 3})
    loaded = load_checkpoint(tmp_path / "m" / "best.pth")
    assert loaded.card == CARD and loaded.state == {"epoch": 3}
    signal = torch.randn(2, 12, 1000)
    assert torch.equal(load_model(loaded)(signal), model(signal))


def test_random_generators_go_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", CARD, {}, {"rng": rng_state()})
    drawn = random.random(), np.random.rand(), torch.rand(3).tolist()
    restore_rng_state(load_checkpoint(tmp_path / "c.pth").state["rng"])
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == drawn


def test_other_files_are_refused_with_their_name(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    with pytest.raises(ValueError, match=r"c\.pth: no such checkpoint; train one"):
        load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"c\.pth: not a checkpoint of this program"):
        load_checkpoint(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(ValueError, match="expected format, card, weights and state"):
        load_checkpoint(path)
    torch.save({"format": 99, "card": {}, "weights": {}, "state": {}}, path)
    with pytest.raises(ValueError, match="checkpoint format 99, this version reads 1"):
        load_checkpoint(path)
    torch.save(
        {
            "format": 1,
            "card": {"classes": ["A"], "single_label": 1, "extra": 2},
            "weights": {},
            "state": {},
        },
        path,
    )
    with pytest.raises(ValueError, match="unknown setting extra"):
        load_checkpoint(path)


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"format": 1, "card": {}, "weights": Evil(), "state": {}}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    other = build_model(ModelCard(("A", "B", "C"), True, ModelConfig(base_channels=8)))
    save_checkpoint(tmp_path / "c.pth", CARD, other.state_dict())
    with pytest.raises(ValueError, match=r"c\.pth: weights do not fit the model it describes"):
        load_model(load_checkpoint(tmp_path / "c.pth"))


def test_records_shorter_than_those_of_training_lose_their_padding() -> None:
    card = ModelCard(("A", "B"), True, preprocess=PreprocessConfig(fs=100.0, n_samples=1000))
    assert card.unpadded_below == 1000
    assert replace(card, min_samples=600).unpadded_below == 600
    assert replace(card, crop_samples=300).unpadded_below == 0
    with pytest.raises(ValueError, match="min_leads is -1 and min_samples 0"):
        replace(card, min_leads=-1)


def test_the_collections_mean_of_older_checkpoints_is_dropped(tmp_path: Path) -> None:
    card = ModelCard(("A", "B"), True, normalization=Normalization("global", {"": 0.2}))
    save_checkpoint(tmp_path / "c.pth", card, {})
    content = torch.load(tmp_path / "c.pth", weights_only=True)
    content["card"]["normalization"]["mean_mv"] = {"": 0.01}
    for name in ("min_leads", "min_samples"):
        del content["card"][name]
    torch.save(content, tmp_path / "old.pth")
    assert load_checkpoint(tmp_path / "old.pth").card == card
