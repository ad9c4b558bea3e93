"""A network of the user's, in a file outside of the project: from training to ONNX."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_main import Run, run
from test_training import CONFIG as RESNET_CONFIG
from test_training import EVERYTHING, StoppedError, same
from torch import nn

from src.classifier.classifier import Classifier
from src.config import ModelConfig
from src.eval import evaluate
from src.learning.checkpoints import ModelCard, NetworkSource, load_checkpoint, save_checkpoint
from src.learning.networks import describe_source, find_network, name_network, split_partial
from src.learning.networks.resnet1d import ResNet1d
from src.learning.optimization import TrainState
from src.model import build_model, find_output_weights, load_model
from src.records.sample_collections import SampleData
from src.training import run_training
from src.utils import load_json

__all__ = ["run"]

CONFIG = dataclasses.replace(RESNET_CONFIG, model=ModelConfig())

SOURCE = '''
"""A network with what a plain one has: no shortest input, no features, one length alone."""

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, n_leads, n_classes, width=4):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(n_leads, width, 7, stride=4),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.pool = nn.AdaptiveAvgPool1d(2)
        self.out = nn.Linear(2 * width, n_classes)

    def forward(self, x):
        if x.shape[2] != 500:
            raise ValueError(f"expected 500 samples, found {x.shape[2]}")
        return self.out(self.pool(self.body(x)).flatten(1))


class Present(nn.Module):
    takes_lead_presence = True
    min_samples = 50

    def __init__(self, n_leads, n_classes):
        super().__init__()
        self.out = nn.Linear(2 * n_leads, n_classes)

    def forward(self, x, lead_present):
        return self.out(torch.cat([x.std(dim=2), lead_present.to(x.dtype)], dim=1))


def wrong_shape(n_leads, n_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_classes + 1))


def not_finite(n_leads, n_classes):
    class Nan(Small):
        def forward(self, x):
            return super().forward(x) * float("nan")

    return Nan(n_leads, n_classes)


def no_module(n_leads, n_classes):
    return "a network"


def other_arguments(leads, classes):
    return nn.Identity()


def long_input(n_leads, n_classes):
    network = Small(n_leads, n_classes)
    network.min_samples = 2000
    return network


def odd_head(n_leads, n_classes):
    network = Small(n_leads, n_classes)
    network.out = nn.Sequential(nn.Linear(8, 2 * n_classes), nn.Linear(2 * n_classes, n_classes))
    return network


def lazy(n_leads, n_classes):
    return nn.Sequential(nn.AvgPool1d(50), nn.Flatten(), nn.LazyLinear(n_classes))


flat = 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write the module, and name it; the current folder holds it, as for a user's script."""
    name = "own_network_file"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def with_network(name: str, **values: object) -> list[str]:
    return [
        "--network",
        name,
        "--epochs",
        "2",
        "--crop-s",
        "5",
        "--batch-size",
        "8",
        *(f"--{key.replace('_', '-')}={value}" for key, value in values.items()),
    ]


def test_a_network_of_the_user_goes_through_every_command(
    run: Run, own: str, processed: Path, sample: SampleData, tmp_path: Path
) -> None:
    network, folder = f"{own}:Small", tmp_path / "run"
    options = with_network(network, network_args='{"width": 6}', device="cpu")
    trained = run("train", "--processed", processed, "--out", folder, *options)
    assert trained.code == 0 and "best epoch" in trained.out
    best = folder / "models" / "best.pth"
    card = load_checkpoint(best).card
    assert card.model.network == network and card.model.network_args == {"width": 6}
    assert card.source == describe_source(network) and len(card.source.sha256) == 64
    tuned = run(
        *("train", "--processed", processed, "--out", tmp_path / "tuned", *options),
        *("--init-from", best),
    )
    assert tuned.code == 0

    named = ["--checkpoint", best, "--network", network]
    one_file = next(Path(root) for root in sample.data.values())
    for command in (
        ["evaluate", *named, "--processed", processed, "--out", folder, "--device", "cpu"],
        ["stress", *named, "--processed", processed, "--out", folder, "--kinds", "gain"],
        ["predict", *named, "--allow-overlap", one_file, "--saliency", tmp_path / "maps"],
        ["report", "--run", folder, "--processed", processed, "--network", network],
    ):
        answer = run(*command)
        assert answer.code == 0, answer.err
    assert load_json(folder / "metrics_test.json")["n_records"]
    assert list((tmp_path / "maps").glob("*.png"))

    del named[-2:]
    for command in (
        ["evaluate", *named, "--processed", processed, "--out", folder],
        ["predict", *named, one_file],
    ):
        answer = run(*command)
        assert answer.code == 1
        assert f"name it with --network {network}" in answer.error
    unnamed = run("report", "--run", folder, "--processed", processed)
    assert unnamed.code == 0 and f"its network needs --network {network}" in unnamed.err


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="onnx is not installed")
def test_a_network_of_the_user_is_exported(
    run: Run, own: str, processed: Path, tmp_path: Path
) -> None:
    network, best = f"{own}:Small", tmp_path / "run" / "models" / "best.pth"
    run("train", "--processed", processed, "--out", tmp_path / "run", *with_network(network))
    named = ["--checkpoint", best, "--network", network, "--processed", processed]
    exported = run("export", *named, "--out", tmp_path / "own.onnx")
    assert exported.code == 0, exported.err
    assert load_json(tmp_path / "own.json")["input"]["n_samples_is_fixed"]


def test_it_trains_with_all_that_resnet1d_has_and_resumes_bit_for_bit(
    own: str, processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(EVERYTHING, model=ModelConfig(network=f"{own}:Small"))
    run_training(config, processed, tmp_path / "whole")
    left, step = [4], TrainState.step

    def counted(self: TrainState, *args: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError
        step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(TrainState, "step", counted)
        run_training(config, processed, tmp_path / "broken")
    torch.rand(5)
    result = run_training(config, processed, tmp_path / "broken", resume=True)
    # The auxiliary outputs are dropped.
    assert result.model.out.out_features == 2  # type: ignore[union-attr]
    for name in ("latest.pth", "best.pth"):
        whole, resumed = (
            load_checkpoint(tmp_path / run / "models" / name) for run in ("whole", "broken")
        )
        assert same(whole.weights, resumed.weights)


def test_python_takes_a_factory(own: str, processed: Path, tmp_path: Path) -> None:
    factory = find_network(f"{own}:Present")
    result = run_training(CONFIG, processed, tmp_path, network=factory)
    assert result.card.model.network == f"{own}:Present"
    with pytest.raises(ValueError, match=f"best.pth: its network is {own}:Present, code that is"):
        Classifier.load(result.best_path)
    classifier = Classifier.load(result.best_path, network=factory)
    model = classifier.members[0].model
    batch = torch.randn(3, 12, 500)
    batch[1, 4:] = 0
    weight, bias = model.out.weight, model.out.bias  # type: ignore[union-attr]
    present = (batch != 0).any(dim=2).float()
    expected = torch.cat([batch.std(dim=2), present], dim=1) @ weight.T + bias  # type: ignore[union-attr,operator]
    torch.testing.assert_close(model(batch), expected)
    evaluation = evaluate(load_checkpoint(result.best_path, network=factory), processed)
    assert evaluation.metrics["n_records"]


def test_python_takes_a_partial_which_the_command_line_loads(
    run: Run, own: str, processed: Path, tmp_path: Path
) -> None:
    small, crops = find_network(f"{own}:Small"), dataclasses.replace(CONFIG.train, crop_s=5.0)
    config = dataclasses.replace(CONFIG, train=crops)
    factory = functools.partial(small, width=6)
    result = run_training(config, processed, tmp_path, network=factory)
    assert result.card.model.network == f"{own}:Small"
    assert result.card.model.network_args == {"width": 6}
    assert result.card.source == describe_source(factory) == describe_source(small)
    named = ["--checkpoint", tmp_path, "--network", f"{own}:Small"]
    answer = run("evaluate", *named, "--processed", processed, "--out", tmp_path / "again")
    assert answer.code == 0, answer.err


def test_several_networks_of_others_are_joined_in_python(
    own: str, processed: Path, tmp_path: Path
) -> None:
    loaded = []
    for name in ("Present", "lazy"):
        factory = find_network(f"{own}:{name}")
        path = run_training(CONFIG, processed, tmp_path / name, network=factory).best_path
        loaded.append(load_checkpoint(path, network=factory))
    each = [evaluate(checkpoint, processed).predictions.y_score for checkpoint in loaded]
    both = evaluate(load_checkpoint(loaded), processed).predictions.y_score
    mean = np.exp(np.mean(np.log(each), axis=0))
    np.testing.assert_allclose(both, mean / mean.sum(axis=1, keepdims=True), rtol=1e-4)


def test_a_partial_that_no_checkpoint_can_hold_stays_as_it_is() -> None:
    for factory in (
        functools.partial(ResNet1d, dropout=torch.zeros(1)),
        functools.partial(ResNet1d, 12),
    ):
        assert split_partial(factory, {}) == (factory, {})
    with_arguments = functools.partial(ResNet1d, base_channels=8, dropout=0.5)
    found = split_partial(with_arguments, {"dropout": 0.1})
    assert found == (ResNet1d, {"base_channels": 8, "dropout": 0.1})


@pytest.mark.parametrize("name", ["__main__:Small", "nets:build.<locals>.Small", "nets:<lambda>"])
def test_a_network_without_an_import_path_is_given_in_python(name: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "of.pth", card_of(name), {})
    with pytest.raises(ValueError, match=r"give its factory by network= in Python, or name its"):
        load_model(load_checkpoint(tmp_path / "of.pth"))


def test_a_changed_file_of_the_network_is_a_warning(
    own: str, processed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = f"{own}:Present"
    result = run_training(CONFIG, processed, tmp_path, network=network)
    checkpoint = load_checkpoint(result.best_path, network=network)
    load_model(checkpoint)
    assert "has changed" not in caplog.text
    card = dataclasses.replace(checkpoint.card, source=NetworkSource("0" * 64))
    save_checkpoint(tmp_path / "old.pth", card, checkpoint.weights)
    load_model(load_checkpoint(tmp_path / "old.pth", network=network))
    assert f"old.pth: the file of its network {network} has changed" in caplog.text


def test_lazy_modules_are_made_by_the_first_input(
    own: str, processed: Path, tmp_path: Path
) -> None:
    network = f"{own}:lazy"
    result = run_training(CONFIG, processed, tmp_path, network=network)
    model = load_model(load_checkpoint(result.best_path, network=network))
    assert model[2].in_features == 12 * 10  # type: ignore[index]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("no_such_module:make", "no module no_such_module"),
        ("resnet2d", "network is 'resnet2d': expected one of resnet1d"),
        ("OWN:nothing", "has no nothing: expected one of"),
        ("OWN:flat", "flat"),
        ("OWN:other_arguments", "other_arguments cannot be made with n_leads=12"),
        ("OWN:no_module", "no_module made a str: expected a torch.nn.Module"),
        ("OWN:wrong_shape", r"to shape \(2, 10\): expected logits of shape \(2, 9\)"),
        ("OWN:not_finite", "not_finite returns numbers that are not finite"),
        ("OWN:long_input", "long_input needs 2000 samples or more, and inputs have 500"),
        (
            "OWN:Small --crop-s 2.5",
            r"\(2, 12, 250\): ValueError: expected 500.*; --crop-s sets the length, and 0 gives",
        ),
        ("OWN:Small --network-args [3]", "expected an object of JSON"),
        ('OWN:Small --network-args {"depth":3}', "depth=3: TypeError"),
        (
            "OWN:Small --base-channels 8",
            "base_channels is 8: expected 64: it is a setting of resnet1d",
        ),
    ],
)
def test_a_wrong_network_is_one_line_before_the_first_epoch(
    run: Run, own: str, processed: Path, tmp_path: Path, network: str, message: str
) -> None:
    name, *options = network.replace("OWN", own).split()
    answer = run(
        "train", "--processed", processed, "--out", tmp_path, *with_network(name), *options
    )
    assert answer.code in (1, 2) and "Traceback" not in answer.err
    assert re.search(message, answer.error), answer.error
    assert not (tmp_path / "models").exists()


def test_outputs_are_found_by_their_rows(own: str) -> None:
    card = card_of(f"{own}:Small")
    assert find_output_weights(card) == {"out.weight", "out.bias"}
    with pytest.raises(ValueError, match=r"its weights out\.0\.weight depend on the number"):
        find_output_weights(card_of(f"{own}:odd_head"))


def card_of(network: str) -> ModelCard:
    return ModelCard(("A", "B", "C"), single_label=True, model=ModelConfig(network=network))


def test_names_of_networks() -> None:
    assert name_network(ResNet1d) == "resnet1d" == name_network("resnet1d")
    assert name_network(nn.Linear) == "torch.nn.modules.linear:Linear"
    assert describe_source("resnet1d").sha256
    assert describe_source(nn.Linear).package.startswith("torch ")
    anywhere: Callable[..., nn.Module] = eval("lambda **sizes: None")
    assert describe_source(anywhere).sha256 == ""
    card = card_of("resnet1d")
    assert isinstance(build_model(card), ResNet1d)
