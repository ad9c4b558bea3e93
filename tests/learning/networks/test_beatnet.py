from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from src.learning.networks import find_network
from src.learning.networks.beatnet import (
    N_P_WAVE,
    N_REGULARITY,
    N_RHYTHM,
    N_SHAPE,
    BeatNet,
    cut_beats,
    measure_p_wave,
    measure_regularity,
    measure_rhythm,
    measure_shape,
)

FS = 64
N_SAMPLES = 640
MIDDLE = N_SAMPLES // 2


def regular(rr_s: float = 0.8) -> Tensor:
    return torch.full((1, 11), rr_s)


def early_beat() -> Tensor:
    """Return RR intervals of 0.8 s, but 0.5 s before the beat and 1.1 s after it."""
    rr = regular()
    rr[0, 4:6] = torch.tensor([0.5, 1.1])
    return rr


def pulses(at_s: list[float], widths_s: list[float], heights: list[float]) -> Tensor:
    """Return a window (1, 1, 640) of bell-shaped beats, at times from its middle."""
    times = (torch.arange(N_SAMPLES) - MIDDLE) / FS
    shape = zip(at_s, widths_s, heights, strict=True)
    parts = [height * torch.exp(-(((times - at) / width) ** 2)) for at, width, height in shape]
    return torch.stack(parts).sum(dim=0)[None, None]


def batch(n_records: int = 6, n_leads: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n_records, n_leads, N_SAMPLES), 0.6 + 0.4 * torch.rand(n_records, 11)


def test_it_is_in_the_box_and_takes_rr_intervals() -> None:
    assert find_network("beatnet") is BeatNet
    model = BeatNet(2, 4).eval()
    assert model.takes_rr
    x, rr = batch()
    logits = model(x, rr=rr)
    assert logits.shape == (6, 4) and torch.isfinite(logits).all()
    assert torch.equal(model.head(model.features(x, rr)), logits)
    assert torch.isfinite(model(x)).all()
    assert not torch.equal(model(x), logits)


def test_beats_are_found_by_their_rr_intervals() -> None:
    at_s = [-2.1, -1.3, -0.5, 0.0, 1.1, 1.9, 2.7]
    x = pulses(at_s, [0.03] * 7, [1.0] * 7)
    beats, known = cut_beats(x, early_beat(), 5, 5)
    assert beats.shape == (1, 1, 11, 96)
    assert known.all()
    # The mark of a beat is the 36th of its 96 points.
    highest = beats[0, 0].argmax(dim=1)
    assert ((highest[2:9] - 35.5).abs() <= 1.5).all()
    assert beats[0, 0, 2:9].amax(dim=1).min() > 0.9
    assert beats[0, 0, :2].amax() < 0.1


def test_beats_outside_of_the_window_and_unknown_ones_do_not_count() -> None:
    x = torch.zeros(1, 1, N_SAMPLES)
    rr = regular(1.2)
    assert cut_beats(x, rr, 5, 5)[1][0].int().tolist() == [0, *[1] * 8, 0, 0]
    rr[0, 1] = 0
    assert cut_beats(x, rr, 5, 5)[1][0].int().tolist() == [0, 0, *[1] * 7, 0, 0]
    assert cut_beats(x, torch.zeros(1, 11), 5, 5)[1][0].int().tolist() == [*[0] * 5, 1, *[0] * 5]


def test_the_window_need_not_have_its_beat_in_the_middle() -> None:
    x = pulses([0.0], [0.03], [1.0])
    beats, _ = cut_beats(x[:, :, 128:], regular(), 3, 5)
    expected, _ = cut_beats(x, regular(), 5, 5)
    torch.testing.assert_close(beats[:, :, 5], expected[:, :, 5])


def test_the_rhythm_is_measured_as_shares_of_the_median() -> None:
    measured = measure_rhythm(early_beat())
    assert measured.shape == (1, N_RHYTHM)
    expected = torch.tensor([0.5 / 0.8, 1.1 / 0.8]).log()
    torch.testing.assert_close(measured[0, :2], expected)
    torch.testing.assert_close(measured[0, 2:4], expected)  # the usual interval is the median
    torch.testing.assert_close(measure_rhythm(2 * early_beat()), measured)
    assert torch.isfinite(measure_rhythm(torch.zeros(1, 11))).all()


def test_an_irregular_rhythm_makes_an_early_beat_less_of_one() -> None:
    irregular = early_beat()
    irregular[0, :4] = torch.tensor([0.6, 1.0, 0.5, 1.1])
    irregular[0, 6:10] = torch.tensor([0.7, 1.2, 0.6, 0.9])
    (steady,), (wild,) = measure_rhythm(early_beat()), measure_rhythm(irregular)
    assert float(steady[5]) < float(wild[5])
    assert float(steady[8]) < 3 * float(wild[8]) < 0


def test_a_wide_beat_differs_from_its_neighbours_and_a_usual_one_does_not() -> None:
    at_s = [0.8 * number for number in range(-5, 6)]
    widths = [0.03] * 11
    usual = pulses(at_s, widths, [1.0] * 11)
    widths[5] = 0.09
    wide = pulses(at_s, widths, [1.0] * 5 + [2.0] + [1.0] * 5)
    measures = []
    for x in (usual, wide):
        beats, known = cut_beats(x, regular(), 5, 5)
        measures.append(measure_shape(beats[:, 0], known, torch.zeros(1, 11))[0])
    assert measures[0].shape == (N_SHAPE,)
    relative = slice(8, 18)
    assert measures[0][relative].abs().max() < 0.3
    height, width = float(measures[1][8]), float(measures[1][11])
    assert 0.5 < height < 0.9  # the logarithm of 2
    assert width > 0.5
    n_alike = slice(18, 23)
    assert measures[0][n_alike].min() > 0.95 > measures[1][n_alike].max()


def test_shapes_do_not_depend_on_the_sampling_rate() -> None:
    x = pulses([0.8 * number for number in range(-5, 6)], [0.06] * 11, [1.0] * 11)
    fine = torch.nn.functional.interpolate(x, scale_factor=4, mode="linear")
    # The first of four samples lies 3/8 of a step before the one that it came of.
    shifted = torch.roll(fine, -1, dims=2)
    found = [
        measure_shape(beats[:, 0], known, torch.zeros(1, 11))
        for beats, known in (cut_beats(signal, regular(), 5, 5) for signal in (x, shifted))
    ]
    torch.testing.assert_close(found[0][0, 8:], found[1][0, 8:], atol=0.15, rtol=0)


def test_the_first_lead_is_measured_and_if_it_is_absent_the_sum_of_the_others() -> None:
    x, rr = batch()
    torch.manual_seed(0)
    many = BeatNet(3, 3).eval()
    torch.manual_seed(0)
    one = BeatNet(1, 3).eval()
    zeros = torch.zeros(6, 1, N_SAMPLES)
    first, second = x[:, :1], x[:, 1:]
    torch.testing.assert_close(many(torch.cat([x, zeros], 1), rr), one(first, rr))
    for others in ([second, zeros], [zeros, second]):
        torch.testing.assert_close(many(torch.cat([zeros, *others], 1), rr), one(second, rr))


def test_training_draws_a_lead_for_each_beat() -> None:
    x, rr = batch(200)
    model = BeatNet(2, 3, dropout=0.0)
    for module in (model.scale, model.dropout):
        module.eval()
    drawn = model(x, rr)
    # Beats of one lead are measured in that one, in training too.
    zeros = torch.zeros(200, 1, N_SAMPLES)
    alone = [torch.cat([x[:, :1], zeros], 1), torch.cat([zeros, x[:, 1:]], 1)]
    by_lead = [model(lead, rr) for lead in alone]
    is_first, is_second = (((drawn - one).abs() < 1e-5).all(dim=1) for one in by_lead)
    assert (is_first ^ is_second).all()
    assert 60 < int(is_first.sum()) < 140


def test_a_rhythm_is_regular_if_its_intervals_return() -> None:
    irregular = early_beat()
    irregular[0, :4] = torch.tensor([0.6, 1.0, 0.5, 1.1])
    irregular[0, 6:10] = torch.tensor([0.7, 1.2, 0.9, 0.8])
    (steady,), (wild,) = measure_regularity(early_beat()), measure_regularity(irregular)
    assert steady.shape == (N_REGULARITY,)
    spread, jumps, usual, uneven = [0, 1], [2, 3, 4], [12, 13], [14, 15, 16]
    assert (steady[spread] < wild[spread] - 1).all()
    assert steady[jumps[:2]].tolist() == [0, 0] and wild[jumps[:2]].tolist() == [1, 1]
    assert steady[usual[0]] == 1 and wild[usual[0]] < 0.5
    assert (steady[uneven] < wild[uneven] - 1).all()
    # The earliness in units of the irregularity, and as such
    torch.testing.assert_close(steady[23], torch.tensor(0.5 / 0.8).log())
    assert (steady[17:21] < wild[17:21]).all()


def test_unknown_intervals_are_no_regular_ones() -> None:
    rr = regular()
    rr[0, [0, 9]] = 0
    measured = measure_regularity(rr)[0]
    assert measured[12] == 1
    assert torch.isfinite(measure_regularity(torch.zeros(1, 11))).all()


def test_a_p_wave_that_recurs_is_told_from_one_that_does_not() -> None:
    at_s = [0.8 * number for number in range(-5, 6)]
    qrs = pulses(at_s, [0.03] * 11, [1.0] * 11)
    p_waves = pulses([at - 0.16 for at in at_s], [0.03] * 11, [0.2] * 11)
    torch.manual_seed(0)
    noise = 0.1 * torch.randn(1, 1, N_SAMPLES)
    found = []
    for x in (qrs + p_waves + noise / 10, qrs + noise):
        beats, known = cut_beats(x, regular(), 5, 5)
        found.append(measure_p_wave(beats[:, 0], known, torch.zeros(1, 11))[0])
    sinus, fibrillating = found
    assert sinus.shape == (N_P_WAVE,)
    pairs, height, signal, noisy = 0, 1, 2, 5
    assert sinus[pairs] > 0.9 > fibrillating[pairs]
    assert float(sinus[height].exp()) == pytest.approx(0.22, abs=0.05)
    assert sinus[signal] > 1 > fibrillating[signal]
    assert sinus[noisy] < fibrillating[noisy]


def test_early_beats_do_not_make_the_usual_p_wave() -> None:
    x = pulses([-1.6, -0.8, 0.0, 0.8], [0.03] * 4, [1.0, 3.0, 1.0, 1.0])
    known = torch.zeros(1, 11, dtype=torch.bool)
    known[0, 3:7] = True
    beats = cut_beats(x, regular(), 5, 5)[0][:, 0]
    other = beats.clone()
    other[:, [4, 6]] = torch.linspace(0, 1, 96)
    on_time, two_early = torch.zeros(1, 11), torch.zeros(1, 11)
    two_early[0, [4, 6]] = -0.3
    height, signal = 1, 2
    for early, is_same in ((two_early, True), (on_time, False)):
        a, b = (measure_p_wave(each, known, early)[0, [height, signal]] for each in (beats, other))
        assert torch.allclose(a, b) == is_same


def test_classes_of_the_rhythm_do_not_see_the_shape() -> None:
    model = BeatNet(1, 3, rhythm_classes=[1]).eval()
    x = pulses([0.0], [0.03], [1.0])
    # Only the QRS is wider.
    wide = pulses([0.0], [0.06], [1.0])
    rr = torch.zeros(1, 11)
    difference = (model(wide, rr) - model(x, rr))[0].abs()
    assert difference[1] < 1e-4 < difference[0]


def test_every_parameter_gets_a_gradient() -> None:
    model = BeatNet(2, 5, rhythm_classes=(1,)).train()
    x, rr = batch()
    model(x, rr).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_builds_without_memory_loads_and_compiles() -> None:
    x, rr = batch()
    torch.manual_seed(0)
    saved = BeatNet(2, 5, rhythm_classes=(1,))
    saved(x, rr)
    saved.eval()
    with torch.device("meta"):
        empty = BeatNet(2, 5, rhythm_classes=(1,))
    loaded = empty.to_empty(device="cpu").eval()
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(x, rr), saved(x, rr))
    assert torch.equal(copy.deepcopy(saved)(x, rr), saved(x, rr))
    compiled = torch.compile(saved, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, rr), saved(x, rr))
    torch.testing.assert_close(saved(x, rr)[2:3], saved(x[2:3], rr[2:3]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"before_s": 0.1}, "before_s is 0.1: expected 0.5 to 60 seconds"),
        ({"width": 0}, "width is 0"),
        ({"rhythm_width": 0}, "rhythm_width is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"rhythm_classes": [5]}, "rhythm_classes is 5: expected a whole number from 0 to 4"),
    ],
)
def test_absurd_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeatNet(**arguments)  # type: ignore[arg-type]


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        BeatNet(2)(torch.zeros(1, 1, N_SAMPLES), torch.zeros(1, 11))
