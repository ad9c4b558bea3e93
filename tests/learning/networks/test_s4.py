from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.learning.networks.s4 import S4, _published, _StateSpace
from src.model import count_parameters


def published_kernels(layer: _StateSpace, n_samples: int) -> Tensor:
    """Return the kernels (directions, H, n_samples) by the recurrence, from the definitions alone.

    HiPPO-LegS as published, the bilinear rule, one complex state of each conjugate pair, and a step
    a sample.
    """
    n = layer.state_size
    a = np.array(
        [
            [-np.sqrt((2 * i + 1) * (2 * k + 1)) * (i > k) - (i + 1) * (i == k) for k in range(n)]
            for i in range(n)
        ]
    )
    b = np.sqrt(2 * np.arange(n) + 1)
    p = np.sqrt(np.arange(n) + 0.5)
    # The normal part of A; of each pair of eigenvectors the one of positive frequency
    values, vectors = np.linalg.eig(a + np.outer(p, p))
    kept = [i for i in np.argsort(values.imag) if values[i].imag > 0]
    pairs = vectors[:, kept] / np.linalg.norm(vectors[:, kept], axis=0)
    pairs = pairs * np.exp(1j * np.angle(pairs.conj().T @ b))  # sees B as a positive number
    c = layer.C.detach().double().numpy()
    c = c[..., : n // 2] + 1j * c[..., n // 2 :]  # (directions, H, N / 2)
    kernels = np.zeros((*c.shape[:2], n_samples))
    for channel, dt in enumerate(layer.log_dt.double().exp().tolist()):
        left = np.linalg.inv(np.eye(n) - dt / 2 * a)
        state = left @ (dt * b)
        for sample in range(n_samples):
            seen = pairs.conj().T @ state
            kernels[:, channel, sample] = 2 * (c[:, channel] @ seen).real
            state = left @ (np.eye(n) + dt / 2 * a) @ state
    return torch.from_numpy(kernels)


def convolve_by_fft(layer: _StateSpace, x: Tensor, kernels: Tensor) -> Tensor:
    """Return the outputs (B, L, H) as the published code does, by an FFT of 2 L samples."""
    n_samples = x.shape[1]
    circle = nn.functional.pad(kernels[0], (0, n_samples))
    if len(kernels) == 2:
        circle = circle + nn.functional.pad(kernels[1].flip(1), (n_samples, 0))
    spectrum = torch.fft.rfft(x.mT, n=2 * n_samples) * torch.fft.rfft(circle)
    out = torch.fft.irfft(spectrum, n=2 * n_samples)[..., :n_samples].mT
    return out + x * layer.D.double()


def test_the_basis_does_not_depend_on_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eigenvectors may come with any phase, and differ so between machines."""
    expected = _published(8)
    eigh = np.linalg.eigh

    def turned(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = eigh(matrix)
        return values, vectors * np.exp(1j * np.arange(len(values)))

    monkeypatch.setattr(np.linalg, "eigh", turned)
    a, b = _published.__wrapped__(8)
    np.testing.assert_allclose(a, expected.a, atol=1e-12)
    np.testing.assert_allclose(b, expected.b, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("state_size", [2, 8, 12])
def test_the_layer_is_the_published_one(state_size: int, bidirectional: bool) -> None:
    torch.manual_seed(1)
    layer = _StateSpace(5, state_size, bidirectional)
    for n_samples in (1, 2, 63, 64, 65, 250, 1000):
        x = torch.randn(2, n_samples, 5)
        expected = convolve_by_fft(layer, x.double(), published_kernels(layer, n_samples))
        torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_the_layer_follows_the_recurrence_in_double_precision() -> None:
    torch.manual_seed(2)
    layer = _StateSpace(3, 8, bidirectional=False)
    a, b = layer._discretize()
    layer = layer.double()
    layer.load_state_dict(layer.state_dict())  # works out the tables in double precision
    x = torch.randn(2, 150, 3, dtype=torch.float64)
    state = torch.zeros(2, 3, 8, dtype=torch.float64)
    outputs = []
    for sample in x.unbind(1):
        state = torch.einsum("hnm,bhm->bhn", a, state) + b[..., 0] * sample[..., None]
        outputs.append((layer.C[0] * state).sum(2) + layer.D * sample)
    torch.testing.assert_close(layer(x), torch.stack(outputs, dim=1), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("state_size", [2, 8, 12])
def test_chunks_are_joined_alike_with_a_loop_and_without(state_size: int) -> None:
    layer = _StateSpace(40, state_size, bidirectional=False)
    added = torch.randn(40, 2, 30, state_size)
    expected = layer._run(added)
    torch.testing.assert_close(layer._run_any_length(added), expected, atol=1e-5, rtol=1e-5)


def test_the_future_is_read_as_the_past_of_a_reversed_signal() -> None:
    torch.manual_seed(3)
    layer = _StateSpace(4, 8, bidirectional=True)
    pulse = torch.zeros(1, 300, 4)
    pulse[:, 200] = 1
    with torch.no_grad():
        layer.D.zero_()
        layer.C[1] = layer.C[0]
        response = layer(pulse)[0]
    # The future begins one sample ahead of the pulse: sample 199 sees what sample 200 does.
    torch.testing.assert_close(response[:200].flip(0)[:100], response[200:])


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(4)
    layer = _StateSpace(2, 4, bidirectional=True).double()
    x = torch.randn(2, 70, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 70, 2, dtype=torch.float64)

    def apply(x: Tensor, *_: Tensor) -> Tensor:
        return (layer(x) * weights).sum()

    assert torch.autograd.gradcheck(apply, (x, layer.C, layer.D))


def test_only_c_and_d_of_the_system_are_trained() -> None:
    layer = _StateSpace(3, 8, bidirectional=True)
    assert {name for name, _ in layer.named_parameters()} == {"C", "D"}
    assert set(layer.state_dict()) == {"C", "D", "log_dt"}
    dt = _StateSpace(4096, 2, bidirectional=True).log_dt.exp()
    assert 0.001 <= dt.min() < 0.00105 and 0.095 < dt.max() <= 0.1
    assert 0.009 < dt.median() < 0.011  # log-uniform


@pytest.mark.parametrize(
    ("d_model", "n_classes", "expected"),
    [(512, 71, 2.18e6), (256, 71, 0.567e6), (256, 5, 550_405)],
)
def test_numbers_of_parameters(d_model: int, n_classes: int, expected: float) -> None:
    with torch.device("meta"):
        model = S4(n_classes=n_classes, d_model=d_model)
    assert count_parameters(model) == pytest.approx(expected, rel=0.005)


def test_a_loaded_network_is_the_saved_one() -> None:
    torch.manual_seed(5)
    saved, loaded = S4(d_model=8).eval(), S4(d_model=8).eval()
    x = torch.randn(2, 12, 300)
    assert not torch.equal(saved(x), loaded(x))
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(saved(x), loaded(x))
    with torch.device("meta"):
        empty = S4(d_model=8).eval()
    empty.to_empty(device="cpu").load_state_dict(saved.state_dict())
    assert torch.equal(saved(x), empty(x))
    assert torch.equal(saved(x), copy.deepcopy(saved)(x))


@pytest.mark.parametrize("log_dt", [1e4, float("nan"), float("inf")])
def test_a_damaged_dt_shows_in_the_logits(log_dt: float) -> None:
    """As for any network, loading then says that the weights are damaged."""
    model = S4(d_model=4, n_blocks=1).eval()
    weights = model.state_dict()
    weights["blocks.0.state_space.log_dt"] = torch.full((4,), log_dt)
    model.load_state_dict(weights)
    assert not torch.isfinite(model(torch.zeros(1, 12, 250))).all()


def test_prediction_before_training_leaves_the_gradients() -> None:
    model = S4(d_model=8)
    with torch.inference_mode():
        model(torch.zeros(2, 12, 300))
    model(torch.randn(2, 12, 300)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(6)
    model = S4(n_leads=2, n_classes=1, d_model=16, n_blocks=2, dropout=0)
    fast = torch.sin(torch.arange(250) * 0.5).expand(8, 2, 250)
    slow = torch.sin(torch.arange(250) * 0.1).expand(8, 2, 250)
    x = torch.cat([fast, slow]) + 0.1 * torch.randn(16, 2, 250)
    y = torch.cat([torch.ones(8, 1), torch.zeros(8, 1)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_dropout_takes_whole_channels() -> None:
    torch.manual_seed(7)
    block = S4(d_model=64, dropout=0.5).blocks[0]
    dropped = block._drop(torch.ones(3, 20, 64))
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 20, -1))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_in_half_precision_the_system_stays_in_single() -> None:
    torch.manual_seed(8)
    layer = _StateSpace(4, 8, bidirectional=True)
    x = torch.randn(2, 250, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x.float())) and layer(x).dtype == torch.float32
        out = layer(x.bfloat16())
    torch.testing.assert_close(out, layer(x.bfloat16().float()))


def test_a_stem_that_strides_gives_less_to_the_blocks() -> None:
    model = S4(d_model=8, stem_stride=4)
    assert model.min_samples == 4
    assert model.stem(torch.zeros(1, 12, 250)).shape == (1, 8, 62)
    with pytest.raises(ValueError, match=r"\(1, 12, 3\): expected \(batch, 12 leads, 4 samples"):
        model(torch.zeros(1, 12, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_model": 0}, "d_model is 0: expected a whole number from 1 to 4096"),
        ({"d_model": 5000}, "d_model is 5000"),
        ({"d_model": 2.5}, r"d_model is 2\.5"),
        ({"n_blocks": 65}, "n_blocks is 65: expected a whole number from 1 to 64"),
        ({"state_size": 16}, "state_size is 16: expected a whole number from 2 to 12"),
        ({"state_size": 7}, "state_size is 7: expected an even number"),
        ({"dropout": 1}, "dropout is 1: expected a number from 0 to less than 1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"bidirectional": 1}, "bidirectional is 1: expected true or false"),
        ({"stem_stride": 0}, "stem_stride is 0"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"n_leads": True}, "n_leads is True"),
    ],
)
def test_absurd_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    factory: Callable[..., S4] = S4
    with pytest.raises(ValueError, match=message):
        factory(**arguments)
