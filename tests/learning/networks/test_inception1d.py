from __future__ import annotations

import pytest
import torch
from torch import nn

from src.learning.networks.inception1d import Inception1d, InceptionModule
from src.model import count_parameters


def test_it_has_the_parameters_of_the_paper() -> None:
    # Worked out by hand for modules of 32 channels: kernels 32 x 32 x (39 + 19 + 9) and the norm,
    # bottleneck and pool with 32 x 12 or 32 x 128 each; shortcuts 12 x 128 and 128 x 128, two norms
    modules = 6 * (68_608 + 256) + 2 * 384 + 5 * 2 * 4_096
    shortcuts = 1_536 + 16_384 + 2 * 256
    assert count_parameters(Inception1d()) == modules + shortcuts + 128 * 5 + 5


def test_a_module_puts_convolutions_beside_a_pool() -> None:
    module = InceptionModule(12, 4, 6).eval()
    assert [layer.kernel_size[0] for layer in module.convolutions] == [39, 19, 9]
    pulse = torch.zeros(1, 12, 101)
    pulse[:, :, 50] = 1
    module.norm = nn.Identity()
    module.activation = nn.Identity()
    reach = [int((part != 0).any(dim=1).sum()) for part in module(pulse).split(4, dim=1)]
    assert reach == [39, 19, 9, 3]


def test_a_single_lead_is_not_narrowed() -> None:
    module = InceptionModule(1, 4, 6)
    assert isinstance(module.bottleneck, nn.Identity)
    assert module(torch.randn(2, 1, 60)).shape == (2, 16, 60)


def test_a_shortcut_spans_three_modules() -> None:
    model = Inception1d(depth=9)
    assert [len(block.body) for block in model.body] == [3, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 4}, "depth is 4: expected a multiple of 3"),
        ({"depth": 99}, "depth is 99: expected a whole number from 3 to 96"),
        ({"width": 0}, "width is 0"),
        ({"bottleneck": 2000}, "bottleneck is 2000: expected a whole number from 1 to 1024"),
        ({"n_leads": -1}, "n_leads is -1"),
    ],
)
def test_absurd_arguments_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Inception1d(**arguments)
