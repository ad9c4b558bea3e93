from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from src.classifier.saliency import (
    METHODS,
    Saliency,
    explain,
    grad_cam,
    integrated_gradients,
    occlude_leads,
    occlude_stretches,
)
from src.learning.checkpoints import load_checkpoint
from src.model import ResNet1d, load_model, predict_logits, window_starts
from src.processed.record_files import load_record_file, to_millivolts

N_LEADS, N_SAMPLES, LESION_LEAD, WIDTH = 4, 320, 2, 40


def planted(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[slice]]:
    """Noise in all leads and bumps in all leads but one for everyone; half have a bump in that lead
    as well.
    """
    generator = torch.Generator().manual_seed(seed)
    signal = 0.3 * torch.randn(n, N_LEADS, N_SAMPLES, generator=generator)
    bump = 2 * torch.hann_window(WIDTH)
    label = torch.arange(n) % 2
    places = []
    for row in range(n):
        starts = torch.randint(0, N_SAMPLES - WIDTH, (N_LEADS,), generator=generator).tolist()
        places.append(slice(starts[LESION_LEAD], starts[LESION_LEAD] + WIDTH))
        for lead, start in enumerate(starts):
            if lead != LESION_LEAD or label[row]:
                signal[row, lead, start : start + WIDTH] += bump
    return signal, label, places


@pytest.fixture(scope="module")
def model() -> ResNet1d:
    """A network that learned that only `LESION_LEAD` decides."""
    torch.manual_seed(0)
    model = ResNet1d(N_LEADS, 2, base_channels=4, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        signal, label, _ = planted(32, seed=step)
        loss = nn.functional.cross_entropy(model(signal), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    signal, label, _ = planted(64, seed=1000)
    assert (model(signal).argmax(dim=1) == label).float().mean() > 0.95
    return model


def maps(model: ResNet1d, signal: torch.Tensor) -> dict[str, np.ndarray]:
    return {
        "integrated_gradients": integrated_gradients(model, signal, 1),
        "grad_cam": grad_cam(model, signal, 1),
        "occlusion": occlude_stretches(model, signal, 1, window=WIDTH),
    }


def test_a_lesion_is_found_where_it_was_planted(model: ResNet1d) -> None:
    signals, _, places = planted(8, seed=2000)
    for signal, place in zip(signals[1::2], places[1::2], strict=True):
        for method, found in maps(model, signal).items():
            assert found.shape == (N_LEADS, N_SAMPLES)
            lead, peak = np.unravel_index(found.argmax(), found.shape)
            assert place.start - 16 <= peak < place.stop + 16, method
            if method != "grad_cam":  # which knows no leads
                assert lead == LESION_LEAD, method
        shares = np.abs(integrated_gradients(model, signal, 1)).sum(axis=1)
        assert (
            shares.argmax() == LESION_LEAD
            and occlude_leads(model, signal, 1).argmax() == LESION_LEAD
        )


def changed(model: ResNet1d, change: Callable[[torch.Tensor], torch.Tensor]) -> ResNet1d:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(change(parameter))
    return other


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a.ravel(), b.ravel())[0])


def test_random_weights_destroy_the_map(model: ResNet1d) -> None:
    """The sanity check of Adebayo et al. (NeurIPS 2018): a map that stays shows the signal, not
    what was learned.
    """
    torch.manual_seed(1)
    shuffled = changed(
        model, lambda weights: weights.flatten()[torch.randperm(weights.numel())].view_as(weights)
    )
    close = changed(model, lambda weights: weights * (1 + 0.01 * torch.randn_like(weights)))
    signals = planted(16, seed=3000)[0][1::2]
    found = [[maps(network, signal) for signal in signals] for network in (model, shuffled, close)]
    for method in METHODS:
        destroyed, kept = (
            np.mean(
                [correlation(a[method], b[method]) for a, b in zip(found[0], other, strict=True)]
            )
            for other in found[1:]
        )
        assert abs(destroyed) < 0.4 and kept > 0.9, method


def test_integrated_gradients_are_complete(model: ResNet1d) -> None:
    signal, baseline = planted(2, seed=5)[0]
    with torch.inference_mode():
        logits = model(torch.stack([signal, baseline, torch.zeros_like(signal)]))
    for base, logit in ((baseline, logits[1]), (None, logits[2])):
        for target in (0, 1):
            found = integrated_gradients(model, signal, target, n_steps=256, baseline=base)
            assert found.sum() == pytest.approx(
                float(logits[0, target] - logit[target]), rel=0.02, abs=0.02
            )


def test_a_linear_answer_is_split_by_weight_times_signal() -> None:
    weights = torch.linspace(-1, 1, 30).view(3, 10)
    signal = torch.randn(3, 10)

    def forward(batch: torch.Tensor) -> torch.Tensor:
        return (batch * weights).sum(dim=(1, 2))[:, None]

    expected = weights * signal
    np.testing.assert_allclose(
        integrated_gradients(forward, signal, 0, n_steps=3), expected, atol=1e-6
    )
    np.testing.assert_allclose(occlude_leads(forward, signal, 0), expected.sum(dim=1), atol=1e-6)
    np.testing.assert_allclose(
        occlude_stretches(forward, signal, 0, window=1, batch_size=7), expected, atol=1e-6
    )


def test_maps_of_crops_are_averaged_like_their_logits(model: ResNet1d) -> None:
    signal = planted(2, seed=7)[0][1]
    found = integrated_gradients(
        lambda batch: predict_logits(model, batch, 260), signal, 1, n_steps=256
    )
    with torch.inference_mode():
        logits = predict_logits(model, torch.stack([signal, torch.zeros_like(signal)]), 260)[:, 1]
    assert found.sum() == pytest.approx(float(logits[0] - logits[1]), rel=0.02, abs=0.02)
    crops = [grad_cam(model, signal[:, start : start + 260], 1)[0] for start in (0, 60)]
    averaged = grad_cam(model, signal, 1, crop_samples=260)[0]
    np.testing.assert_allclose(averaged[:60], crops[0][:60], atol=1e-6)
    np.testing.assert_allclose(averaged[60:260], (crops[0][60:] + crops[1][:200]) / 2, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_record_is_explained_in_its_own_leads_and_voltages(
    processed: Path, trained: Path, method: str
) -> None:
    checkpoint = load_checkpoint(trained / "models" / "best.pth")
    arrays = load_record_file(sorted((processed / "records").glob("synthetic_challenge__*.npz"))[0])
    found = explain(
        load_model(checkpoint), checkpoint.card, arrays, checkpoint.card.classes[1], method
    )
    assert isinstance(found, Saliency) and found.values.shape == found.signal_mv.shape == (12, 1000)
    n_valid = int(arrays["n_valid"])
    np.testing.assert_array_equal(found.signal_mv[:, :n_valid], to_millivolts(arrays))
    assert np.isnan(found.signal_mv[:, n_valid:]).all() and np.isfinite(found.values).all()
    assert sum(found.lead_shares.values()) == pytest.approx(1)


def test_unknown_classes_and_methods_name_the_known(trained: Path) -> None:
    checkpoint = load_checkpoint(trained / "models" / "best.pth")
    model = load_model(checkpoint)
    with pytest.raises(ValueError, match="class is 'FLUTTER': expected one of AF"):
        explain(model, checkpoint.card, {}, "FLUTTER")
    with pytest.raises(
        ValueError,
        match="method is 'lime': expected one of integrated_gradients, grad_cam, occlusion",
    ):
        explain(model, checkpoint.card, {}, checkpoint.card.classes[0], "lime")


def test_windows_of_padding_leave_no_map(model: ResNet1d) -> None:
    signal = torch.zeros(4, 1000)
    signal[:, :300] = torch.randn(4, 300)
    found = grad_cam(model, signal, 0, crop_samples=250)
    last = max(start for start in window_starts(1000, 250) if start < 300) + 250
    assert np.isfinite(found).all() and not found[:, last:].any()
