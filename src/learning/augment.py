"""Augmentation of training batches, on the device of the batch."""

from __future__ import annotations

import torch


def drop_leads(signal: torch.Tensor, share: float) -> torch.Tensor:
    """Zero some leads of a share of the records, to train for records that lack leads.

    Parameters
    ----------
    signal
        Shape (B, n_leads, n_samples).
    share
        Probability that a record loses leads: a random number of them, at least one and never all.
    """
    n_records, n_leads = signal.shape[:2]
    if not share or n_leads == 1:
        return signal
    device = signal.device
    # A random order of the leads of each record, of which the first `n_lost` are dropped
    order = torch.rand(n_records, n_leads, device=device).argsort(dim=1)
    n_lost = torch.randint(1, n_leads, (n_records, 1), device=device)
    is_chosen = torch.rand(n_records, 1, device=device) < share
    lost = (order < n_lost) & is_chosen  # (B, n_leads)
    return signal.masked_fill(lost[:, :, None], 0.0)


def mix_records(
    signal: torch.Tensor, target: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend records and targets with others of the batch (mixup: Zhang et al., ICLR 2018).

    Parameters
    ----------
    signal
        Shape (B, n_leads, n_samples).
    target
        Shape (B, n_classes). An entry that is NaN in either record is NaN in the blend.
    alpha
        Both parameters of the beta distribution of the share; 0 changes nothing.
    """
    if not alpha:
        return signal, target
    # Two gamma draws make a beta draw. They come from torch's generator, so a resumed run repeats
    # them.
    draws = torch._standard_gamma(torch.full((2,), alpha))
    share = float(draws[0] / draws.sum().clamp(min=1e-12))
    partner = torch.randperm(len(signal), device=signal.device)
    return torch.lerp(signal[partner], signal, share), torch.lerp(target[partner], target, share)
