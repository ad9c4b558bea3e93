from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from settings import QUICK, SMALL

from src.config import (
    Config,
    DataConfig,
    ExecutionConfig,
    LoaderConfig,
    TrainConfig,
)
from src.dataloaders import build_dataloaders, make_loader, sample_weights
from src.learning.distributed import Processes
from src.preprocessing import run_preprocessing
from src.processed.datasets import ECGDataset
from src.processed.manifest import load_manifest, save_manifest
from src.processed.normalization import Normalization
from src.processed.record_files import load_signal, record_path
from src.processed.targets import (
    encode_targets,
    find_classes,
    load_records,
)


def test_weights_draw_rare_classes_as_often_as_common_ones() -> None:
    targets = np.array([[1, 0]] * 9 + [[0, 1]], np.float32)
    weights = sample_weights(targets)
    assert weights[:9].sum() == pytest.approx(weights[9]) and weights.mean() == pytest.approx(1)
    assert sample_weights(np.array([[0, 0], [1, 0]], np.float32)).tolist() == [1, 1]


def test_batches_are_the_record_files(processed: Path) -> None:
    split = load_records(processed)["train"]
    targets = encode_targets(split, find_classes(split))
    dataset = ECGDataset(split.paths, targets)
    loader = make_loader(dataset, LoaderConfig(batch_size=5), train=True)
    seen = []
    for batch in loader:
        assert batch.signal.shape[1:] == (12, 1000) and batch.signal.dtype == torch.float32
        for signal, target, row in zip(batch.signal, batch.target, batch.row.tolist(), strict=True):
            np.testing.assert_array_equal(
                signal.numpy(), load_signal(record_path(processed, split.keys[row]))
            )
            np.testing.assert_array_equal(target.numpy(), targets[row])
            seen.append(row)
    assert sorted(seen) == list(range(len(split)))
    assert torch.equal(dataset[3].signal, dataset.__getitems__([3]).signal[0])


def test_the_order_follows_the_seed(processed: Path) -> None:
    config = Config(train=TrainConfig(seed=4), loader=LoaderConfig(batch_size=8))

    def rows(config: Config) -> list[int]:
        return [
            row
            for batch in build_dataloaders(config, processed).train
            for row in batch.row.tolist()
        ]

    assert rows(config) == rows(config)
    assert rows(config) != rows(dataclasses.replace(config, train=TrainConfig(seed=5)))


def test_loader_processes_read_the_same(processed: Path) -> None:
    split = load_records(processed)["val"]
    dataset = ECGDataset(split.paths, encode_targets(split, find_classes(split)))
    alone, helped = (
        make_loader(dataset, LoaderConfig(batch_size=2, loader_workers=n)) for n in (0, 1)
    )
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.signal, b.signal) and torch.equal(a.target, b.target)


@pytest.mark.parametrize(("balanced", "expected"), [(True, 0.5), (False, 0.2)])
def test_balanced_sampling_evens_out_the_classes(
    processed: Path, balanced: bool, expected: float
) -> None:
    """One record of AF and four of NORM are drawn as often as each other, or one to four."""
    splits = load_records(processed)
    splits["train"] = dataclasses.replace(
        splits["train"].subset(range(5)), labels=(("AF",), *[("NORM",)] * 4)
    )
    config = Config(loader=LoaderConfig(balanced_sampling=balanced, cache="off"))
    loaders = build_dataloaders(config, processed, splits=splits)
    assert loaders.classes == ("AF", "NORM") and len(loaders.records["train"]) == 5
    drawn: Counter[int] = Counter()
    for _ in range(60):
        for batch in loaders.train:
            drawn.update(batch.target.argmax(dim=1).tolist())
    assert drawn.total() == 300
    assert drawn[0] / drawn.total() == pytest.approx(expected, abs=0.08 if balanced else 1e-9)


def test_the_fallback_is_left_out_unless_asked_for(
    tmp_path: Path, sample_roots: DataConfig
) -> None:
    run_preprocessing(
        sample_roots, tmp_path, config=SMALL, execution=ExecutionConfig(workers=1), limit=6
    )
    with pytest.raises(ValueError, match="no training record has a label"):
        build_dataloaders(Config(), tmp_path)
    kept = build_dataloaders(Config(train=TrainConfig(keep_other=True, target="multi")), tmp_path)
    assert kept.classes == ("OTHER",) and not kept.single_label


def test_errors_say_what_to_do(tmp_path: Path, processed: Path) -> None:
    with pytest.raises(ValueError, match="no processed records here; run preprocess"):
        build_dataloaders(Config(), tmp_path)
    with pytest.raises(ValueError, match="classes XYZ have no training record: there are "):
        build_dataloaders(Config(train=TrainConfig(classes=("NORM", "XYZ"))), processed)
    with pytest.raises(ValueError, match="2 record files but 1 rows of targets"):
        ECGDataset(["a", "b"], np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("mode", ["zscore", "global", "none"])
def test_the_packed_cache_gives_the_batches_of_the_record_files(processed: Path, mode: str) -> None:
    batches = []
    for cache in ("packed", "off"):
        config = Config(
            loader=LoaderConfig(batch_size=4, cache=cache),
            train=TrainConfig(normalization=mode, leads=("V2", "I"), crop_s=2.0),
        )
        loaders = build_dataloaders(config, processed)
        assert loaders.val is not None
        torch.manual_seed(0)
        batches.append((loaders.view, next(iter(loaders.val)), next(iter(loaders.train))))
    (view, val, train), (other_view, other_val, other_train) = batches
    assert (
        view == other_view
        and val.signal.shape[1:] == (2, 1000)
        and train.signal.shape[1:] == (2, 200)
    )
    torch.testing.assert_close(val.signal, other_val.signal, atol=2e-3, rtol=0)
    assert torch.equal(val.target, other_val.target) and torch.equal(train.row, other_train.row)


def test_millivolts_without_offset_and_lead_choice_come_from_the_view(processed: Path) -> None:
    config = Config(train=TrainConfig(normalization="none", leads=("V1",), crop_s=0.0))
    loaders = build_dataloaders(config, processed)
    batch = next(iter(loaders.train))
    path = loaders.records["train"].paths[int(batch.row[0])]
    from src.processed.record_files import load_record_file, to_millivolts

    volts = to_millivolts(load_record_file(path))[6]
    centred = volts - volts.mean()
    np.testing.assert_allclose(batch.signal[0, 0, : len(volts)], centred, atol=1e-3)


def test_a_high_pass_is_in_the_view_and_below_half_the_rate(processed: Path) -> None:
    train = TrainConfig(highpass_hz=0.5, normalization="zscore", crop_s=0.0)
    loaders = build_dataloaders(Config(train=train), processed)
    assert loaders.view.normalization == Normalization(highpass_hz=0.5)
    assert next(iter(loaders.train)).signal.std(dim=2).max() == pytest.approx(1, abs=0.01)
    with pytest.raises(ValueError, match="highpass_hz is 50: expected less than half"):
        build_dataloaders(Config(train=TrainConfig(highpass_hz=50)), processed)


def test_weights_of_the_label_table_decide_how_often_a_record_is_drawn(
    processed: Path, tmp_path: Path
) -> None:
    shutil.copytree(processed, tmp_path / "p")
    manifest = load_manifest(tmp_path / "p")
    manifest["weight"] = [
        "0" if split == "train" and i % 2 else "" for i, split in enumerate(manifest["split"])
    ]
    save_manifest(manifest, tmp_path / "p")
    config = dataclasses.replace(
        QUICK, loader=dataclasses.replace(QUICK.loader, balanced_sampling=False)
    )
    loaders = build_dataloaders(config, tmp_path / "p")
    drawn = {int(row) for batch in loaders.train for row in batch.row}
    assert drawn and {loaders.records["train"].weights[row] for row in drawn} == {1.0}
    manifest.loc[manifest["split"] == "train", "weight"] = "0"
    save_manifest(manifest, tmp_path / "p")
    with pytest.raises(ValueError, match="weight is 0 for every training record"):
        build_dataloaders(config, tmp_path / "p")


def test_training_processes_draw_other_crops_in_their_loader_processes(processed: Path) -> None:
    dataset = ECGDataset(
        [record_path(processed, key) for key in load_records(processed)["train"].keys[:4]],
        np.eye(4, dtype=np.float32),
    )
    drawn = []
    for rank in (0, 1):
        loader = make_loader(
            dataset, LoaderConfig(loader_workers=1), train=True, processes=Processes(rank, 2)
        )
        torch.manual_seed(3)  # torch seeds the loader processes of all ranks alike
        assert loader.worker_init_fn is not None
        loader.worker_init_fn(0)
        drawn.append(float(torch.rand(1)))
    assert drawn[0] != drawn[1]
