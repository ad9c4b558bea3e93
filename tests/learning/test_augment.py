from __future__ import annotations

import torch

from src.learning.augment import drop_leads, mix_records


def test_some_leads_of_some_records_are_zeroed_never_all() -> None:
    torch.manual_seed(0)
    signal = torch.ones(400, 12, 5)
    dropped = drop_leads(signal, 0.5)
    alive = (dropped != 0).all(dim=2)
    assert ((dropped == 0).all(dim=2) | alive).all()
    n_alive = alive.sum(dim=1)
    assert n_alive.min() >= 1 and 120 < int((n_alive < 12).sum()) < 280
    assert drop_leads(signal, 0.0) is signal and drop_leads(signal[:, :1], 1.0).all()


def test_records_are_blended_with_their_targets() -> None:
    torch.manual_seed(1)
    signal = torch.tensor([0.0, 1.0]).reshape(2, 1, 1).expand(2, 3, 4)
    target = torch.tensor([[0.0], [1.0]])
    for _ in range(5):
        mixed, blended = mix_records(signal, target, 0.4)
        torch.testing.assert_close(mixed[:, 0, 0], blended[:, 0])
        assert blended.min() >= 0 and blended.max() <= 1
    same, _ = mix_records(signal, target, 0.0)
    assert same is signal
    assert mix_records(signal, torch.tensor([[float("nan")], [1.0]]), 0.4)[1].isnan().any()
