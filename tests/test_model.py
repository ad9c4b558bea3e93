from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from src.config import ModelConfig, PreprocessConfig
from src.learning.checkpoints import ModelCard
from src.model import (
    ResNet1d,
    build_model,
    count_parameters,
    find_output_weights,
    list_stages,
    select_outputs,
)
from src.utils import PROJECT_ROOT


def test_the_default_has_about_one_and_a_half_million_parameters() -> None:
    assert 1.4e6 <= count_parameters(ResNet1d()) <= 1.6e6


def test_loading_a_network_leaves_the_compiler_of_torch_alone() -> None:
    """It takes two seconds to import."""
    code = (
        "import sys; from src.model import load_model; from src.learning.checkpoints import "
        "load_checkpoint as load; load_model(load('artifacts/pretrained/superclass.pth')); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, timeout=300, check=False)
    assert done.returncode == 0


def test_the_stages_have_the_shapes_and_parameters_of_the_network() -> None:
    model = ResNet1d(2, 3, base_channels=8, lead_mask=True).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = list_stages(model, 2, 250)
    shapes = [stage.shape for stage in table.stages]
    assert shapes[:5] == [(2, 250), (6, 125), (6, 125), (6, 125), (6, 63)]
    assert shapes[-4:] == [(36, 8), (36, 8), (72,), (3,)]
    # 6 x 2 x 11 weights, and weight and bias of the norm; a weight a lead, and a bias, a channel
    assert [stage.n_parameters for stage in table.stages[:3]] == [0, 132 + 12, 18]
    assert sum(stage.n_parameters for stage in table.stages) == count_parameters(model)
    first, *_, last = str(table).splitlines()
    assert first.split() == ["layer", "output", "parameters"]
    assert last.split() == ["in", "all", f"{count_parameters(model):,}"]
    assert "residual block, kernel 5, stride 2" in table._repr_html_()
    # Looking leaves no trace, in batch norms neither
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_late_pool_gives_the_first_block_twice_the_rate() -> None:
    shapes = [
        [stage.shape for stage in list_stages(ResNet1d(2, 3, 8, late_pool=late), 2, 400).stages]
        for late in (False, True)
    ]
    assert shapes[0][3:5] == [(6, 100), (6, 100)]
    assert shapes[1][3:5] == [(6, 200), (6, 100)]
    assert shapes[0][5:] == shapes[1][5:]


def test_a_network_made_for_another_rate_is_refused() -> None:
    model = ModelConfig(base_channels=8, network_args={"rhythm_fs": 100})
    card = ModelCard(("A", "B"), False, model=model, preprocess=PreprocessConfig(fs=250.0))
    with pytest.raises(ValueError, match="is made for 100 Hz, and its input has 250 Hz"):
        build_model(card)


@pytest.mark.parametrize(
    ("n_leads", "n_classes", "n_samples"), [(12, 5, 5000), (1, 2, 250), (3, 71, 1001), (12, 1, 257)]
)
def test_any_leads_classes_and_samples(n_leads: int, n_classes: int, n_samples: int) -> None:
    model = ResNet1d(n_leads, n_classes, base_channels=8).eval()
    logits = model(torch.randn(2, n_leads, n_samples))
    assert logits.shape == (2, n_classes) and torch.isfinite(logits).all()


def test_it_is_made_of_gelu_and_batch_norm() -> None:
    modules = list(ResNet1d().modules())
    kinds = {
        kind
        for kind in (nn.GELU, nn.BatchNorm1d, nn.Conv1d, nn.ReLU)
        if any(isinstance(module, kind) for module in modules)
    }
    assert kinds == {nn.GELU, nn.BatchNorm1d, nn.Conv1d}


def test_every_parameter_gets_a_gradient() -> None:
    model = ResNet1d(base_channels=8)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.ones_(
                norm.weight
            )  # blocks start as their shortcut, which hides their inside for one step
    model(torch.randn(4, 12, 300)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_answer_does_not_depend_on_the_batch() -> None:
    model = ResNet1d(base_channels=8).eval()
    signal = torch.randn(5, 12, 400)
    torch.testing.assert_close(model(signal)[2:3], model(signal[2:3]), atol=1e-5, rtol=1e-4)


def test_fresh_networks_start_near_even_odds_at_any_width() -> None:
    for width in (8, 64):
        logits = ResNet1d(base_channels=width).eval()(torch.randn(4, 12, 1000))
        assert logits.abs().max() < 1.0


@pytest.mark.parametrize("shape", [(2, 11, 500), (2, 12, 249), (12, 500)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 12 leads, 250 samples or more\)"):
        ResNet1d(base_channels=8)(torch.zeros(shape))


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_classes is 0"):
        ResNet1d(n_classes=0)


def test_auxiliary_outputs_follow_the_classes_and_can_be_dropped() -> None:
    card = ModelCard(classes=("A", "B"), single_label=False)
    outputs = find_output_weights(card)
    assert outputs == {"head.1.weight", "head.1.bias"}
    model = build_model(card, n_outputs=5).eval()
    signal = torch.randn(2, 12, 300)
    logits = model(signal)
    alone = build_model(card).eval()
    alone.load_state_dict(select_outputs(model.state_dict(), slice(2), outputs))
    torch.testing.assert_close(alone(signal), logits[:, :2])
    alone.load_state_dict(select_outputs(model.state_dict(), [4, 1], outputs))
    torch.testing.assert_close(alone(signal), logits[:, [4, 1]])
