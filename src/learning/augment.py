"""Random changes of a training batch, made on the device where the batch lies."""

from __future__ import annotations

import torch


def drop_leads(signal: torch.Tensor, share: float) -> torch.Tensor:
    """Zero leads of a share of the records (B, n_leads, n_samples), so that a network learns to do
    without them.

    Each chosen record loses a random number of its leads, at least one and never all.
    """
    n_records, n_leads = signal.shape[:2]
    if not share or n_leads == 1:
        return signal
    device = signal.device
    order = torch.rand(n_records, n_leads, device=device).argsort(dim=1)
    n_lost = torch.randint(1, n_leads, (n_records, 1), device=device)
    is_chosen = torch.rand(n_records, 1, device=device) < share
    lost = (order < n_lost) & is_chosen  # (B, n_leads)
    return signal.masked_fill(lost[:, :, None], 0.0)


def mix_records(
    signal: torch.Tensor, target: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend each record with another of the batch, and their targets alike (mixup: Zhang et al.,
    ICLR 2018).

    Parameters
    ----------
    signal
        Shape (B, n_leads, n_samples).
    target
        Shape (B, n_classes); what either record was not annotated for is unknown in the blend.
    alpha
        Both parameters of the beta distribution that the share is drawn from; 0 changes nothing.
    """
    if not alpha:
        return signal, target
    # two gamma draws make a beta draw, and torch's own generator makes a resumed run repeat it
    draws = torch._standard_gamma(torch.full((2,), alpha))
    share = float(draws[0] / draws.sum().clamp(min=1e-12))
    partner = torch.randperm(len(signal), device=signal.device)
    return torch.lerp(signal[partner], signal, share), torch.lerp(target[partner], target, share)
