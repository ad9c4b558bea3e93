"""The contract that each network in the box keeps."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.learning.networks.inception1d import Inception1d
from src.learning.networks.s4 import S4
from src.learning.networks.xresnet1d101 import XResNet1d101

Factory = Callable[..., nn.Module]

SMALL: dict[str, tuple[Factory, dict[str, object]]] = {
    "s4": (S4, {"d_model": 16, "n_blocks": 2}),
    "s4 of the past": (S4, {"d_model": 16, "n_blocks": 2, "bidirectional": False}),
    "s4 with a stride": (S4, {"d_model": 16, "n_blocks": 2, "stem_stride": 2}),
    "xresnet1d101": (XResNet1d101, {}),
    "inception1d": (Inception1d, {"width": 4, "depth": 3, "bottleneck": 4}),
}


@pytest.fixture(params=SMALL)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Factory:
    factory, small = SMALL[request.param]
    monkeypatch.setattr("src.learning.networks.xresnet1d101._DEPTHS", (1, 1, 2, 1))

    def call(seed: int = 0, **arguments: object) -> nn.Module:
        torch.manual_seed(seed)
        return factory(**(small | arguments))

    return call


def perturbed(model: nn.Module) -> nn.Module:
    """Return a network whose batch norms do nothing trivial, in evaluation mode."""
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var", "weight")) and value.ndim == 1:
            value.copy_(torch.rand_like(value) + 0.5)
    return model.eval()


@pytest.mark.parametrize(
    ("n_leads", "n_classes", "n_samples"), [(12, 5, 1000), (1, 1, 250), (3, 71, 257)]
)
def test_any_leads_classes_and_samples(
    build: Factory, n_leads: int, n_classes: int, n_samples: int
) -> None:
    model = build(n_leads=n_leads, n_classes=n_classes).eval()
    x = torch.randn(2, n_leads, n_samples)
    logits = model(x)
    assert logits.shape == (2, n_classes) and torch.isfinite(logits).all()
    assert torch.equal(model.head(model.features(x)), logits)


def test_only_the_head_depends_on_the_classes(build: Factory) -> None:
    few, many = build(n_classes=2).state_dict(), build(n_classes=7).state_dict()
    assert few.keys() == many.keys()
    for name, value in few.items():
        if name.startswith("head."):
            assert (len(value), len(many[name])) == (2, 7)
        else:
            assert value.shape == many[name].shape


def test_min_samples_holds(build: Factory) -> None:
    model = build()
    least = model.min_samples
    assert isinstance(least, int)
    for network in (model.train(), model.eval()):
        assert torch.isfinite(network(torch.randn(2, 12, least))).all()
    with pytest.raises(ValueError, match=rf"expected \(batch, 12 leads, {least} samples or more\)"):
        model(torch.zeros(2, 12, least - 1))
    with pytest.raises(ValueError, match="expected"):
        model(torch.zeros(2, 11, 250))
    with pytest.raises(ValueError, match="expected"):
        model(torch.zeros(12, 250))


def test_the_seed_decides_the_weights(build: Factory) -> None:
    first, second, other = (build(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_every_parameter_gets_a_gradient(build: Factory) -> None:
    model = perturbed(build()).train()
    model(torch.randn(4, 12, 250)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_prediction_does_not_depend_on_the_batch(build: Factory) -> None:
    model = perturbed(build())
    x = torch.randn(5, 12, 300)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]), atol=1e-5, rtol=1e-4)


def test_they_build_without_memory_and_load(build: Factory) -> None:
    saved = perturbed(build())
    with torch.device("meta"):
        empty = build()
        shape = empty(torch.zeros(2, 12, 250)).shape
    assert shape == (2, 5) and all(value.is_meta for value in empty.state_dict().values())
    x = torch.randn(2, 12, 250)
    loaded = empty.to_empty(device="cpu").eval()
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(x), saved(x))
    assert torch.equal(copy.deepcopy(saved)(x), saved(x))


def test_a_compiled_network_gives_the_same(build: Factory) -> None:
    model = perturbed(build())
    x = torch.randn(2, 12, 250)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


def export(model: nn.Module, path: Path, example: Tensor, shape: dict[int, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (example,), dynamo=True, dynamic_shapes=(shape,), verbose=False
        )
    assert program is not None
    program.save(str(path))


@pytest.mark.parametrize(
    "build",
    [
        "inception1d",
        pytest.param("s4", marks=pytest.mark.slow),
        pytest.param("xresnet1d101", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_the_exported_network_gives_the_same(build: Factory, tmp_path: Path) -> None:
    """As `src.classifier.onnx_export` exports it: batches of any size, records of any length."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = perturbed(build())
    path = tmp_path / "model.onnx"
    shape = {0: torch.export.Dim("batch"), 2: torch.export.Dim("n_samples", min=250)}
    export(model, path, torch.zeros(2, 12, 300), shape)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for n_records, n_samples in ((2, 300), (1, 250), (3, 1000)):
        x = torch.randn(n_records, 12, n_samples)
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(x), atol=2e-5, rtol=1e-4)
