from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from src.config import (
    Config,
    LoaderConfig,
    ModelConfig,
    PreprocessConfig,
    TrainConfig,
    build_config,
    config_hash,
    from_dict,
    list_changes,
    load_config,
    plain_value,
    save_config,
)


def test_config_survives_json(tmp_path: Path) -> None:
    config = build_config(
        {"data": {"roots": {"a": "/x"}, "source_fs": {"a": 257}}, "train": {"classes": ["B", "A"]}}
    )
    save_config(config, tmp_path / "c.json")
    assert load_config(tmp_path / "c.json") == config
    assert config.train.classes == ("B", "A") and config.data.source_fs == {"a": 257.0}


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"train": {"lr": -1, "epoch": 3}, "preprocess": {"fs": "fast"}, "extra": 1}')
    with pytest.raises(ValueError) as error:
        load_config(path)
    text = str(error.value)
    for part in (
        "bad.json",
        "lr is -1",
        "unknown setting train.epoch",
        "preprocess.fs is 'fast'",
        "unknown setting extra",
    ):
        assert part in text


def test_options_may_stand_outside_their_section(tmp_path: Path) -> None:
    path = tmp_path / "flat.json"
    path.write_text('{"epochs": 3, "base-channels": 8, "batch_size": 4, "train": {"lr": 0.1}}')
    expected = {
        "train": {"epochs": 3, "lr": 0.1},
        "model": {"base_channels": 8},
        "loader": {"batch_size": 4},
    }
    assert load_config(path) == build_config(expected)
    path.write_text('{"epochs": 3, "train": {"epochs": 4}}')
    with pytest.raises(ValueError, match="unknown setting epochs"):  # which of the two is meant?
        load_config(path)


def test_no_two_sections_of_training_have_a_setting_of_one_name() -> None:
    names = [
        field.name
        for kind in (TrainConfig, ModelConfig, LoaderConfig)
        for field in dataclasses.fields(kind)
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (PreprocessConfig, {"fs": 0.0}),
        (PreprocessConfig, {"n_samples": 0}),
        (TrainConfig, {"target": "both"}),
        (TrainConfig, {"classes": ("A", "A")}),
        (TrainConfig, {"epochs": -1}),
    ],
)
def test_values_out_of_range_are_refused(kind: type, values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        kind(**values)


def test_every_setting_has_a_help_text() -> None:
    for section in dataclasses.fields(Config):
        kind = (
            section.default_factory if section.default_factory is not dataclasses.MISSING else None
        )
        for field in dataclasses.fields(kind) if kind else [section]:  # type: ignore[arg-type]
            assert field.metadata.get("help"), field.name


def test_the_hash_follows_result_settings() -> None:
    assert config_hash(PreprocessConfig(), 1) == config_hash(PreprocessConfig(fs=500.0), 1)
    assert config_hash(PreprocessConfig(fs=250.0), 1) != config_hash(PreprocessConfig(), 1)
    assert config_hash(PreprocessConfig(), 2) != config_hash(PreprocessConfig(), 1)


def test_changes_are_named_with_their_defaults() -> None:
    assert list_changes(Config(root="elsewhere")) == []
    config = build_config(
        {
            "data": {"roots": {"mine": "data/mine"}},
            "train": {"epochs": 3, "classes": ["AF", "NORM"], "init_from": "best.pth"},
        }
    )
    assert list_changes(config) == [
        ("data.roots", "mine=data/mine", "none"),
        ("train.epochs", "3", "0"),
        ("train.init_from", "best.pth", "none"),
        ("train.classes", "AF, NORM", "none"),
    ]
    assert [plain_value(value) for value in (True, None, 2.0, 1e-6, (), "a")] == [
        "true",
        "none",
        "2",
        "1e-06",
        "none",
        "a",
    ]


def test_many_unknown_settings_are_one_short_problem() -> None:
    with pytest.raises(
        ValueError, match=r"^unknown settings a0, a1, a2, a3, a4 and 995 more \("
    ) as e:
        from_dict(
            PreprocessConfig,
            dict.fromkeys([*(f"a{i}" for i in range(5)), *(f"b{i}" for i in range(995))], 1),
        )
    assert len(str(e.value)) < 3000


def test_a_preset_is_a_recipe_that_settings_change(tmp_path: Path) -> None:
    config = build_config({"preset": "quick", "train": {"lr": 0.001}})
    assert config.train.epochs == 6 and config.train.lr == 0.001 and config.train.muon_lr == 0.02
    path = tmp_path / "config.json"
    path.write_text('{"preset": "long", "patience": 3}')
    assert load_config(path).train.epochs == 60 and load_config(path).train.patience == 3
    with pytest.raises(ValueError, match="preset is 'fast': expected one of quick, standard, long"):
        build_config({"preset": "fast"})
