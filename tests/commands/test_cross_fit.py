from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from settings import QUICK, SMALL

from src.__main__ import main
from src.commands.cross_fit import PREDICTIONS_FILE, assign_parts, run_cross_fit
from src.commands.leave_one_out import run_leave_one_out
from src.config import DataConfig, ExecutionConfig
from src.dataloaders import build_dataloaders, soften_targets
from src.learning.checkpoints import load_checkpoint
from src.learning.predictions import Predictions
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest, load_preprocess_config, save_manifest
from src.processed.targets import LabelledRecords, load_records
from src.records.sample_collections import write_sample_collections
from src.training import build_card, run_training


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough records that each part has every class."""
    folder = tmp_path_factory.mktemp("larger")
    sample = write_sample_collections(folder / "sample", n_records=90, seed=1)
    roots = DataConfig({name: str(root) for name, root in sample.data.items()})
    run_preprocessing(
        roots,
        folder / "processed",
        mapping=sample.mapping,
        config=SMALL,
        execution=ExecutionConfig(workers=1),
    )
    return folder / "processed"


def test_parts_keep_patients_together_and_are_about_equal() -> None:
    n, empty = 40, ("",) * 40
    labels = tuple(("A", "rare") if i < 8 else ("A",) for i in range(n))
    records = LabelledRecords(
        Path("p"),
        tuple(map(str, range(n))),
        labels,
        ((),) * n,
        tuple(f"p{i // 2}" for i in range(n)),
        empty,
        empty,
        (1.0,) * n,
    )
    part_of = assign_parts(records, 4, seed=0)
    assert sorted(np.bincount(part_of)) == [10, 10, 10, 10] and sorted(
        np.bincount(part_of[:8])
    ) == [2, 2, 2, 2]
    assert all(part_of[i] == part_of[i + 1] for i in range(0, n, 2))
    assert (assign_parts(records, 4, seed=1) != part_of).any()
    for parts in (1, 21):
        with pytest.raises(ValueError, match="parts is"):
            assign_parts(records, parts, seed=0)


def test_every_training_record_is_predicted_by_a_network_that_did_not_see_it(
    larger: Path, tmp_path: Path
) -> None:
    answers = run_cross_fit(QUICK, larger, tmp_path, parts=2)
    train = load_records(larger)["train"]
    assert sorted(answers.keys) == sorted(train.keys)
    hash_of = dict(zip(train.keys, train.signal_hashes, strict=True))
    learned = [
        set(load_checkpoint(tmp_path / f"part_{part}" / "models" / "best.pth").card.train_hashes)
        for part in (1, 2)
    ]
    assert not learned[0] & learned[1] and learned[0] | learned[1] == set(train.signal_hashes)
    saved = Predictions.load(tmp_path / PREDICTIONS_FILE)
    assert set(saved.train_hashes) == set(train.signal_hashes)
    first = {hash_of[key] for key in answers.keys[: len(learned[1])]}
    assert (
        first == learned[1]
    )  # the first part's answers are of those that the second network learned


def test_a_class_of_one_patient_is_refused_before_the_first_run(
    larger: Path, tmp_path: Path
) -> None:
    manifest = load_manifest(larger)
    row = manifest.index[(manifest["split"] == "train") & (manifest["status"] == "ok")][0]
    manifest.loc[row, "labels"] = "RARE"
    shutil.copytree(larger, tmp_path / "processed")
    save_manifest(manifest, tmp_path / "processed")
    with pytest.raises(ValueError, match="the training records of RARE are all in one part"):
        run_cross_fit(QUICK, tmp_path / "processed", tmp_path / "out", parts=2)
    assert not (tmp_path / "out").exists()


def test_few_records_of_several_labels_make_no_network_another_task(
    larger: Path, tmp_path: Path
) -> None:
    manifest = load_manifest(larger)
    train = manifest.index[(manifest["split"] == "train") & (manifest["status"] == "ok")]
    names = sorted(set(manifest.loc[train, "labels"]))
    shutil.copytree(larger, tmp_path / "processed")
    manifest.loc[train[0], "labels"] = ";".join(names[:2])
    save_manifest(manifest, tmp_path / "processed")
    answers = run_cross_fit(QUICK, tmp_path / "processed", tmp_path / "out", parts=2)
    cards = [
        load_checkpoint(tmp_path / "out" / f"part_{part}" / "models" / "best.pth").card
        for part in (1, 2)
    ]
    assert not answers.single_label and not any(card.single_label for card in cards)


def test_soft_targets_are_learned_from(processed: Path, tmp_path: Path) -> None:
    train = load_records(processed)["train"]
    classes = build_dataloaders(QUICK, processed).classes
    soft = Predictions(
        train.keys[:3],
        np.zeros((3, len(classes))),
        np.full((3, len(classes)), 0.5),
        classes,
        single_label=False,
    )
    soft.save(tmp_path / "soft.npz")
    # The networks behind them know what the student then knows too
    replace(soft, train_hashes=("other", *train.signal_hashes)).save(tmp_path / "soft.npz")
    config = replace(
        QUICK,
        train=replace(
            QUICK.train,
            soft_targets=str(tmp_path / "soft.npz"),
            soft_weight=0.5,
            target="multi",
            classes=classes,
        ),
    )
    loaders = build_dataloaders(config, processed)
    card = build_card(config, loaders, load_preprocess_config(processed))
    assert set(card.train_hashes) == {"other", *train.signal_hashes}
    targets = loaders.targets["train"]
    labelled = sum(classes[0] in labels for labels in loaders.records["train"].labels)
    assert (
        f"{classes[0]} {labelled}," in str(loaders).splitlines()[1]
    )  # what is learned is soft, what is told is what the labels say
    assert set(np.unique(targets[:3])) == {0.25, 0.75} and set(np.unique(targets[3:])) == {0.0, 1.0}


def test_soft_targets_match_by_record_and_class_and_leave_the_unknown_unknown() -> None:
    targets = np.array([[1, 0, np.nan], [0, 1, 0]], np.float32)
    soft = Predictions(
        ("b", "x"), np.zeros((2, 2)), np.array([[0.2, 0.4], [1, 1]]), ("C", "A"), single_label=False
    )
    blend = soften_targets(targets, ("a", "b"), ("A", "B", "C"), soft, 0.5)
    np.testing.assert_allclose(blend, [[1, 0, np.nan], [0.2, 1, 0.1]], atol=1e-7)
    unknown = soften_targets(targets, ("b", "a"), ("A", "B", "C"), soft, 0.5)
    assert np.isnan(unknown[0, 2])
    with pytest.raises(ValueError, match="0 of the 1 training records"):
        soften_targets(targets[:1], ("z",), ("A", "B", "C"), soft, 0.5)


def test_the_command_leaves_what_train_takes(larger: Path, tmp_path: Path) -> None:
    arguments = [
        "--processed",
        str(larger),
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--base-channels",
        "8",
    ]
    assert main(["cross-fit", *arguments, "--out", str(tmp_path / "soft"), "--parts", "2"]) == 0
    found = tmp_path / "soft" / PREDICTIONS_FILE
    assert (
        main(["train", *arguments, "--out", str(tmp_path / "run"), "--soft-targets", str(found)])
        == 0
    )
    assert (
        main(
            [
                "train",
                *arguments,
                "--out",
                str(tmp_path / "other"),
                "--soft-targets",
                str(tmp_path / "none.npz"),
            ]
        )
        == 1
    )


def test_other_parts_do_not_go_on_with_networks_that_know_their_records(
    larger: Path, tmp_path: Path
) -> None:
    run_cross_fit(QUICK, larger, tmp_path, parts=2)
    with pytest.raises(
        ValueError,
        match=r"latest\.pth: was trained on \d+ recordings that this run does not train on",
    ):
        run_cross_fit(QUICK, larger, tmp_path, parts=3, resume=True)


def test_networks_do_not_start_from_one_that_knows_the_records(
    larger: Path, tmp_path: Path
) -> None:
    known = run_training(QUICK, larger, tmp_path / "first").best_path
    config = replace(QUICK, train=replace(QUICK.train, init_from=str(known)))
    with pytest.raises(ValueError, match=r"best\.pth: was trained on \d+ of the records"):
        run_cross_fit(config, larger, tmp_path / "parts", parts=2)
    with pytest.raises(
        ValueError,
        match=r"best\.pth: was trained on \d+ of the recordings of \w+, which is left out",
    ):
        run_leave_one_out(config, larger, tmp_path / "out")
    soft = replace(QUICK, train=replace(QUICK.train, soft_targets="some.npz", target="multi"))
    with pytest.raises(ValueError, match=r"soft_targets is some\.npz: expected none"):
        run_leave_one_out(soft, larger, tmp_path / "out")
