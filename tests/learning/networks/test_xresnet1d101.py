from __future__ import annotations

import pytest
import torch
from torch import nn

from src.learning.networks.xresnet1d101 import Bottleneck, XResNet1d101
from src.model import count_parameters


def test_it_has_101_layers_and_the_published_parameters() -> None:
    model = XResNet1d101()
    # Worked out by hand: stem 1,984 + 5,184 + 10,368; first bottleneck 4,224 + 20,608 + 16,896 with
    # a shortcut of 16,896; 32 others 16,512 + 20,608 + 16,896; hidden 1,024 + 65,664 + 256; head
    assert count_parameters(model) == 17_536 + 58_624 + 32 * 54_016 + 66_944 + 645
    on_path = [
        name
        for name, module in model.body.named_modules()
        if isinstance(module, nn.Conv1d) and "shortcut" not in name
    ]
    # The three of the stem stand for one layer of 7 samples, and a linear layer makes 101
    assert len(on_path) == 3 + 3 * (3 + 4 + 23 + 3)


def test_each_stage_but_the_first_halves_the_rate() -> None:
    model = XResNet1d101().eval()
    lengths = []
    for block in model.body:
        if isinstance(block, Bottleneck):
            block.register_forward_hook(lambda _, __, out: lengths.append(out.shape[2]))
    model(torch.zeros(1, 12, 1000))
    assert lengths == [250] * 3 + [125] * 4 + [63] * 23 + [32] * 3


def test_a_fresh_block_is_its_shortcut() -> None:
    block = Bottleneck(8, 4, 8, 1).eval()
    x = torch.randn(2, 8, 50)
    torch.testing.assert_close(block(x), x.relu())


def test_the_features_hold_maximum_and_mean() -> None:
    model = XResNet1d101(n_hidden=16).eval()
    x = torch.randn(2, 12, 250)
    out = model.body(x)
    pooled = torch.cat([out.max(dim=2).values, out.mean(dim=2)], dim=1)
    torch.testing.assert_close(model.features(x), model.hidden(pooled))
    assert model.features(x).shape == (2, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout": 1.0}, r"dropout is 1\.0: expected a number from 0 to less than 1"),
        ({"n_hidden": 0}, "n_hidden is 0: expected a whole number from 1 to 4096"),
        ({"n_leads": 0}, "n_leads is 0"),
        ({"n_classes": 10**9}, "n_classes is 1000000000"),
    ],
)
def test_absurd_arguments_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        XResNet1d101(**arguments)  # type: ignore[arg-type]
