"""The parts of the GPU benchmark that need no GPU, and what keeps the host from waiting for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.gpu import flops_per_record, main, peak_flops, seconds_to
from src.learning.optimization import WeightAverage
from src.processed.datasets import PackedDataset, View
from src.processed.packed import load_packed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "results.json")]) == 1
    assert (
        capsys.readouterr().err
        == "error: no CUDA device here: run make bench-gpu on a machine with one\n"
    )
    assert not list(tmp_path.iterdir())


def test_peaks_go_by_the_name_that_a_device_reports() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA L4": 121e12,
        "NVIDIA L40S": 362e12,
    }
    assert {name: peak_flops(name) for name in names} == names
    assert peak_flops("Some Other Card") is None


def test_operations_are_counted_as_by_hand() -> None:
    """A kernel of 3 over 2 channels to 5, 8 samples: 2 * 2 * 3 * 5 * 8 forward, as much for the
    weights, none for the input.
    """
    assert flops_per_record(nn.Conv1d(2, 5, 3, padding=1, bias=False), 2, 8) == 2 * (
        2 * 2 * 3 * 5 * 8
    )


def test_the_time_to_a_target_is_that_of_the_first_epoch_there() -> None:
    history = [{"seconds": 2.0, "auroc": score} for score in (None, 0.9, 0.94, 0.95)]
    assert seconds_to(history, "auroc", 0.93) == 6.0 and seconds_to(history, "auroc", 0.96) is None


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(leads=("V1", "II")),
        View(crop_samples=250),
        View(leads=("V1", "II"), crop_samples=250),
    ],
)
def test_a_resident_cache_gives_the_same_batches(processed: Path, view: View) -> None:
    packed = load_packed(processed, "train")
    targets = torch.arange(2.0 * len(packed)).reshape(-1, 2).numpy()
    batches = []
    for device in ("cpu", "cpu:0"):  # the second keeps the codes as a GPU would
        torch.manual_seed(0)
        dataset = PackedDataset(packed, packed.keys, targets, view, device=device)
        batches.append(dataset.__getitems__([3, 0, 5]))
    assert dataset.codes is not None
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours, theirs)


def test_the_average_of_weights_is_that_of_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4))
    theirs = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    ours = WeightAverage(model, 0.3)
    # The first step copies; then the decay rises from 2 / 11 to its value
    for decay in (None, 2 / 11, 3 / 12, 0.3, 0.3):
        if decay is not None:
            theirs.multi_avg_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
        with torch.no_grad():
            model(torch.randn(3, 2, 10))
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.update_parameters(model)
        theirs.update_parameters(model)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected) and all(
        torch.equal(state[name], expected[name]) for name in state
    )
