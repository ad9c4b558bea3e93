"""`BeatNet`: a beat beside its neighbours, classified by measurements, not by learned shapes.

A few dozen patients are too few to learn what a ventricular beat looks like in the next one, but
how a beat differs from the beats beside it is much the same in all. `BeatNet` finds the five beats
before and after a beat in its window by their RR intervals. Of a lead it measures how the beat
differs from them in amplitude, width, slope and course, how many of them it resembles, whether
those are early too, and whether a P wave recurs from beat to beat; of the RR intervals how early it
is, how long the pause after it, and how irregular the rhythm. Two small perceptrons classify the
measurements, one those of the rhythm alone and one all of them. What is measured follows the
features of de Chazal et al. (IEEE TBME 51:1196, 2004) and of Llamedo and Martinez (IEEE TBME
58:616, 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.learning.networks.checks import check_dropout, check_outside, check_signal, check_whole

# Intervals on each side of the beat, and beats with the one in the middle
_SIDE = 5
_N_BEATS = 2 * _SIDE + 1

# What is looked at of each beat, in seconds from its mark; a step of 1/127 s
_START_S, _STOP_S, _N_POINTS = -0.28, 0.47, 96
_QRS_S, _P_S, _T_S = (-0.12, 0.16), (-0.28, -0.07), (0.16, 0.48)

# A beat this far outside of the window is only partly in it.
_MARGIN_S = (0.15, 0.3)

# A beat this much earlier than those around it is no timely one (logarithm of the interval).
_EARLY = -0.08

# Intervals are the same within 5 %. Smooth counts take half of one that differs by just as much.
_SAME, _SHARPNESS = 0.05, 80.0

# Measurements are clipped at this many standard deviations.
_LARGEST = 3.0

N_RHYTHM = 22
N_SHAPE = 30
N_REGULARITY = 24
N_P_WAVE = 8
N_MEASURED = N_RHYTHM + N_SHAPE + N_REGULARITY + N_P_WAVE
# What the classes of the rhythm see: the first two measurements of the shape are of the P wave.
_N_RHYTHM_SEEN = N_RHYTHM + 2


class BeatNet(nn.Module):
    """Map windows around beats, and their RR intervals, to class logits.

    Parameters
    ----------
    n_leads
        Input leads, absent ones zero. The beat is measured in the first, or if it is absent in the
        sum of the others, of which a Holter has one. Training draws one of the two for each beat,
        so that it sees shapes of two positions of the electrodes.
    n_classes
        Output classes.
    before_s, after_s
        Seconds of the window before and after its beat, as those of ``preprocess``.
    width, rhythm_width
        Features of all measurements, and of those of the rhythm.
    dropout
        Share of both that is dropped before the classifier.
    rhythm_classes
        Places of the classes that rhythm and P wave alone tell from the others, as they do
        supraventricular beats, which look like the patient's normal ones.

    Raises
    ------
    ValueError
        If an argument is none of these.

    Notes
    -----
    Input (B, n_leads, n_samples) and RR intervals (B, 11); output (B, n_classes). The sampling rate
    follows from the length of the input, so it is always a whole window.
    """

    takes_rr = True

    def __init__(
        self,
        n_leads: int = 12,
        n_classes: int = 5,
        before_s: float = 5.0,
        after_s: float = 5.0,
        width: int = 64,
        rhythm_width: int = 24,
        dropout: float = 0.3,
        rhythm_classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_outside(n_leads, n_classes)
        for name, seconds in (("before_s", before_s), ("after_s", after_s)):
            if not 0.5 <= seconds <= 60:
                raise ValueError(f"{name} is {seconds!r}: expected 0.5 to 60 seconds")
        check_whole("width", width, 1, 4096)
        check_whole("rhythm_width", rhythm_width, 1, 4096)
        check_dropout("dropout", dropout)
        for place in rhythm_classes:
            check_whole("rhythm_classes", place, 0, n_classes - 1)
        self.n_leads, self.n_classes = n_leads, n_classes
        self.before_s, self.after_s = before_s, after_s
        self.scale = nn.BatchNorm1d(N_MEASURED, affine=False, momentum=0.02)
        self.rhythm = nn.Sequential(nn.Linear(_N_RHYTHM_SEEN, rhythm_width), nn.GELU())
        self.all = nn.Sequential(nn.Linear(N_MEASURED, width), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.head = _MaskedLinear(rhythm_width, width, n_classes, rhythm_classes)

    def features(self, x: Tensor, rr: Tensor | None = None) -> Tensor:
        """Return the features (B, rhythm_width + width) of windows and their RR intervals.

        Raises
        ------
        ValueError
            If `x` has another shape.
        """
        check_signal(x, self.n_leads, 2)
        rr = x.new_zeros(len(x), _N_BEATS) if rr is None else rr
        lead = _choose_lead(x, at_random=self.training)
        beats, known = cut_beats(lead, rr, self.before_s, self.after_s)
        beats, early = beats[:, 0], _earliness(rr)
        parts = [measure_rhythm(rr), measure_shape(beats, known, early)]
        parts += [measure_regularity(rr), measure_p_wave(beats, known, early)]
        scaled = self.scale(torch.cat(parts, dim=1)).clamp(-_LARGEST, _LARGEST)
        rhythm = self.rhythm(scaled[:, :_N_RHYTHM_SEEN])
        return torch.cat([rhythm, self.all(scaled)], dim=1)

    def forward(self, x: Tensor, rr: Tensor | None = None) -> Tensor:
        """Return logits (B, n_classes) for windows (B, n_leads, n_samples) around beats.

        Parameters
        ----------
        x
            The windows.
        rr
            RR intervals (`src.learning.networks`); without them they count as unknown.

        Raises
        ------
        ValueError
            If `x` has another shape.
        """
        logits: Tensor = self.head(self.dropout(self.features(x, rr)))
        return logits


class _MaskedLinear(nn.Linear):
    """A linear classifier of (B, n_rhythm + n_others); some classes see the rhythm alone."""

    def __init__(
        self, n_rhythm: int, n_others: int, n_classes: int, rhythm_classes: Sequence[int]
    ) -> None:
        super().__init__(n_rhythm + n_others, n_classes)
        seen = torch.ones(n_classes, n_rhythm + n_others)
        seen[list(rhythm_classes), n_rhythm:] = 0
        self.register_buffer("seen", seen)

    def forward(self, features: Tensor) -> Tensor:
        assert isinstance(self.seen, Tensor)
        return nn.functional.linear(features, self.weight * self.seen, self.bias)


# Beats --------------------------------------------------------------------------------------------


def _choose_lead(x: Tensor, at_random: bool) -> Tensor:
    """Return one lead (B, 1, n_samples) of windows (B, n_leads, n_samples).

    It is the first, or the sum of the others where the first is absent or, at random, for half of
    the windows that have both.
    """
    first, others = x[:, :1], x[:, 1:].sum(dim=1, keepdim=True)
    has_first, has_others = ((lead != 0).any(dim=2, keepdim=True) for lead in (first, others))
    takes_others = ~has_first
    if at_random:
        is_drawn = torch.rand(len(x), 1, 1, device=x.device) < 0.5
        takes_others = takes_others | (has_others & is_drawn)
    return torch.where(takes_others, others, first)


def cut_beats(x: Tensor, rr: Tensor, before_s: float, after_s: float) -> tuple[Tensor, Tensor]:
    """Cut the beats of windows, which their RR intervals tell, at one rate.

    Parameters
    ----------
    x
        Windows (B, n_leads, n_samples).
    rr
        RR intervals (B, 11).
    before_s, after_s
        Seconds of a window before and after its beat.

    Returns
    -------
    tuple
        The beats (B, n_leads, 11, 96) in order of time, that of the window in the middle, and which
        of them are in the window, (B, 11).
    """
    n_records, n_leads, n_samples = x.shape
    before, after = rr[:, :_SIDE].flip(1), rr[:, _SIDE:-1]  # from the beat outwards
    middle = rr.new_zeros(n_records, 1)
    at_s = torch.cat([-before.cumsum(1).flip(1), middle, after.cumsum(1)], dim=1)  # (B, 11)
    exists = torch.cat(
        [(before > 0).cumprod(1).flip(1), middle.long() + 1, (after > 0).cumprod(1)], dim=1
    )
    is_inside = (at_s > _MARGIN_S[0] - before_s) & (at_s < after_s - _MARGIN_S[1])
    fs = n_samples / (before_s + after_s)
    points_s = at_s[:, :, None] + _point_times(x)  # (B, 11, 96)
    places = ((before_s + points_s) * fs).clamp(0, n_samples - 1.001)
    left = places.floor()
    share = (places - left)[:, None]  # (B, 1, 11, 96)
    index = left.long().reshape(n_records, 1, -1).expand(-1, n_leads, -1)
    shape = (n_records, n_leads, _N_BEATS, _N_POINTS)
    beats = torch.lerp(x.gather(2, index).view(shape), x.gather(2, index + 1).view(shape), share)
    return beats, exists.bool() & is_inside


def _point_times(like: Tensor) -> Tensor:
    """Return the times (96,) of the points of a beat, in seconds from its mark."""
    return torch.linspace(_START_S, _STOP_S, _N_POINTS, dtype=like.dtype, device=like.device)


def _within(span_s: tuple[float, float]) -> slice:
    """Return the points of a beat that lie in a span of time."""
    step_s = (_STOP_S - _START_S) / (_N_POINTS - 1)
    times = [_START_S + step_s * number for number in range(_N_POINTS)]
    return slice(sum(at <= span_s[0] for at in times), sum(at < span_s[1] for at in times))


def _median(values: Tensor, is_known: Tensor) -> Tensor:
    """Return the median (B, ...) over the beats of (B, n_beats, ...) that are known, else 0."""
    known = torch.where(is_known, values, torch.nan)
    return known.nanmedian(dim=1)[0].nan_to_num(0.0)


def _correlate(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation of two shapes (..., n_points)."""
    a = a - a.mean(dim=-1, keepdim=True)
    b = b - b.mean(dim=-1, keepdim=True)
    norms = a.square().sum(dim=-1) * b.square().sum(dim=-1)
    return (a * b).sum(dim=-1) / ((norms + 1e-12).sqrt() + 1e-6)


def _correlate_shifted(a: Tensor, b: Tensor, shifts: Sequence[int]) -> Tensor:
    """Return the correlation of two shapes (..., n_points) by the best of shifts, in points."""
    found = [_correlate(a, b)]
    for shift in shifts:
        found.append(_correlate(a[..., shift:], b[..., :-shift]))
        found.append(_correlate(a[..., :-shift], b[..., shift:]))
    return torch.stack(found).amax(dim=0)


# Rhythm -------------------------------------------------------------------------------------------


def _log_ratios(rr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logarithms (B, 10) of intervals as shares of the record's median.

    Unknown intervals count as the median. Also returns the median of the logarithms that are
    known, (B, 1), and which are known, (B, 10).
    """
    intervals, median = rr[:, :-1], rr[:, -1:]
    is_known = (intervals > 0) & (median > 0)
    ratios = torch.where(is_known, intervals / median.clamp(min=1e-3), 1.0)
    logs = ratios.clamp(0.3, 3.0).log()
    return logs, _median(logs, is_known)[:, None], is_known


def _earliness(rr: Tensor) -> Tensor:
    """Return how the interval before each beat (B, 11) differs from those around it."""
    logs, local, _ = _log_ratios(rr)
    return torch.cat([torch.zeros_like(local), logs - local], dim=1)


def measure_rhythm(rr: Tensor) -> Tensor:
    """Measure the rhythm around beats, from RR intervals (B, 11) to (B, 22).

    The irregularity is that of the intervals that do not touch the beat. It is a median, so that a
    run of early beats does not look like fibrillation.
    """
    logs, local, is_known = _log_ratios(rr)
    steps = logs.diff(dim=1)  # (B, 9)
    apart = _without_middle(steps, _SIDE - 2).abs().sort(dim=1)[0]  # (B, 6)
    others = _without_middle(logs, _SIDE - 1).sort(dim=1)[0]  # (B, 8)
    before, after = logs[:, _SIDE - 1 : _SIDE], logs[:, _SIDE : _SIDE + 1]
    second, third = logs[:, _SIDE - 2 : _SIDE - 1], logs[:, _SIDE - 3 : _SIDE - 2]
    short, long = others[:, 1:2], others[:, 6:7]
    irregular = apart[:, 2:3] + 0.06
    parts = [before, after, before - local, after - local, local]
    parts += [(apart[:, [1, 2, 4]] + 0.02).log()]
    # In units of the irregularity
    parts += [(part / irregular).clamp(-8, 8) for part in (before - local, before, after - local)]
    parts += [before + after - 2 * local, second, logs[:, _SIDE + 1 : _SIDE + 2], third]
    parts += [before - second, after - before, short, long, before - short, before - long]
    parts += [(~is_known).to(logs.dtype).sum(dim=1, keepdim=True)]
    return torch.cat(parts, dim=1)


def measure_regularity(rr: Tensor) -> Tensor:
    """Measure how regular the intervals around beats are, from RR intervals (B, 11) to (B, 24).

    Fibrillation has no interval that returns. A regular rhythm with early beats has few, each of
    them often. So these are spreads of the eight intervals that do not touch the beat, how many of
    them lie together, how near others are to each, and the earliness in units of all that.
    """
    logs, local, is_known = _log_ratios(rr)
    others = _without_middle(logs, _SIDE - 1)  # (B, 8)
    counts = _without_middle(is_known.to(logs.dtype), _SIDE - 1)
    steps = _without_middle(logs.diff(dim=1), _SIDE - 2).abs()  # (B, 6)
    before = logs[:, _SIDE - 1 : _SIDE]
    early = before - local
    ranked = others.sort(dim=1)[0]
    spreads = torch.stack([ranked[:, 5] - ranked[:, 2], ranked[:, 6] - ranked[:, 1]], dim=1)
    is_large = [steps > 0.1, steps > _SAME, torch.sigmoid((steps - _SAME) * _SHARPNESS)]
    large = torch.stack([is_so.to(logs.dtype).mean(dim=1) for is_so in is_large], dim=1)
    off = (others - local).abs()
    is_usual = [off < _SAME, torch.sigmoid((_SAME - off) * _SHARPNESS)]
    n_usual = torch.stack([(is_so * counts).sum(dim=1) for is_so in is_usual], dim=1)
    usual = n_usual / counts.sum(dim=1, keepdim=True).clamp(min=1)
    sides = torch.stack([off[:, 1:4].mean(dim=1), off[:, 4:7].mean(dim=1)], dim=1)
    uneven = torch.cat([sides, sides.amin(dim=1, keepdim=True)], dim=1) + 0.01
    nearest = (others - before).abs().sort(dim=1)[0][:, :3]
    far = torch.cat([nearest, _near_others(others)], dim=1)
    parts = [(spreads + 0.02).log(), large, (far + 0.01).log(), usual, uneven.log()]
    units = (spreads[:, :1] + 0.05, spreads[:, 1:] + 0.06, far[:, 4:5] + 0.05, uneven[:, 2:] + 0.05)
    parts += [(early / unit).clamp(-8, 8) for unit in units]
    parts += [early * usual[:, 1:], early * (1 - large[:, 2:])]
    parts += [before - logs[:, _SIDE - 3 : _SIDE - 1].mean(dim=1, keepdim=True)]
    return torch.cat(parts, dim=1)


def _without_middle(values: Tensor, n_each: int) -> Tensor:
    """Return the first and the last `n_each` of (B, n): those that do not touch the beat."""
    return torch.cat([values[:, :n_each], values[:, -n_each:]], dim=1)


def _near_others(intervals: Tensor) -> Tensor:
    """Return how far the second and third nearest of other intervals (B, 8) are: (B, 4).

    It is the median of the second and third, the largest second, and a low third.
    """
    apart = (intervals[:, :, None] - intervals[:, None]).abs()
    # Farther than any, so that an interval is not its own neighbour
    itself = 10 * torch.eye(intervals.shape[1], dtype=apart.dtype, device=apart.device)
    ranked = (apart + itself).sort(dim=2)[0]
    second, third = ranked[:, :, 1].sort(dim=1)[0], ranked[:, :, 2].sort(dim=1)[0]
    return torch.stack([second[:, 3], third[:, 3], second[:, -1], third[:, 2]], dim=1)


# Shape --------------------------------------------------------------------------------------------


def measure_shape(beats: Tensor, known: Tensor, early: Tensor) -> Tensor:
    """Measure how the middle beat of one lead differs from those beside it.

    Parameters
    ----------
    beats
        Shape (B, 11, 96).
    known
        Which of the beats are there, (B, 11).
    early
        How early they are, (B, 11).

    Returns
    -------
    Tensor
        Shape (B, 30); first the two of the P wave.
    """
    beside = known.clone()
    beside[:, _SIDE] = False
    usual = _median(beats, beside[:, :, None].expand_as(beats))  # (B, 96): the median beat
    sizes = _measure_each(beats)  # (B, 11, 10)
    relative = sizes[:, _SIDE] - _median(sizes, beside[:, :, None].expand_as(sizes))
    alike = _compare_qrs(beats)  # (B, 11)
    parts = [_compare_usual(beats, usual, beside), relative]
    parts += [_rank_alike(alike, beside), _describe_alike(alike, sizes, beside, early)]
    return torch.cat(parts, dim=1)


def _measure_each(beats: Tensor) -> Tensor:
    """Return the size, width and course of each beat: (B, 11, 96) to (B, 11, 10)."""
    times = _point_times(beats)
    part, p_wave, t_wave = (beats[:, :, _within(span)] for span in (_QRS_S, _P_S, _T_S))
    level = beats.median(dim=-1)[0]
    centred = part - part.mean(dim=-1, keepdim=True)
    slopes = part.diff(dim=-1).square()
    top, bottom = part.amax(dim=-1), part.amin(dim=-1)
    height = top - bottom
    unit = height + 1e-6
    area = centred.abs().mean(dim=-1)
    sharpness = slopes.mean(dim=-1) / (centred.square().mean(dim=-1) + 1e-6)
    # Where the slopes are, and over how long
    at_s = times[_within(_QRS_S)][1:]
    total = slopes.sum(dim=-1) + 1e-9
    middle_s = (slopes * at_s).sum(dim=-1) / total
    width_s = ((slopes * (at_s - middle_s[..., None]).square()).sum(dim=-1) / total).sqrt()
    measures = [(height + 1e-3).log(), (area + 1e-3).log(), (sharpness + 1e-4).log()]
    measures += [(width_s + 1e-3).log(), middle_s, (top + bottom - 2 * level) / unit]
    measures += [(wave.amax(dim=-1) - wave.amin(dim=-1)) / unit for wave in (t_wave, p_wave)]
    measures += [(t_wave.mean(dim=-1) - level) / unit, (area / unit + 1e-3).log()]
    return torch.stack(measures, dim=-1)


def measure_p_wave(beats: Tensor, known: Tensor, early: Tensor) -> Tensor:
    """Measure whether the beats of one lead share a P wave, and the middle one has it.

    In fibrillation what precedes a beat differs from beat to beat. The usual beat is the median of
    those beside it that are not early.

    Parameters
    ----------
    beats, known, early
        As for `measure_shape`.

    Returns
    -------
    Tensor
        Shape (B, 8).
    """
    beside = known.clone()
    beside[:, _SIDE] = False
    timely = beside & (early > _EARLY)
    timely = torch.where(timely.any(dim=1, keepdim=True), timely, beside)
    usual = _median(beats, timely[:, :, None].expand_as(beats))  # (B, 96)
    p_wave, part = _within(_P_S), _within(_QRS_S)
    wave, usual_wave, usual_qrs = beats[:, :, p_wave], usual[:, p_wave], usual[:, part]
    height = usual_qrs.amax(dim=-1) - usual_qrs.amin(dim=-1) + 1e-6
    usual_height = usual_wave.amax(dim=-1) - usual_wave.amin(dim=-1)
    spread = _size(wave - usual_wave[:, None])  # (B, 11)
    noise, signal = _median(spread, timely), _size(usual_wave)
    pairs = beside[:, 1:] & beside[:, :-1]
    alike = _correlate_shifted(wave, usual_wave[:, None], (2, 4, 6))
    parts = [_median(_correlate(wave[:, 1:], wave[:, :-1]), pairs)]
    parts += [(usual_height / height + 0.02).log(), _compare_sizes(signal, noise)]
    parts += [_compare_sizes(spread[:, _SIDE], noise), _compare_sizes(spread[:, _SIDE], signal)]
    parts += [((noise + 1e-3) / height).log(), alike[:, _SIDE], _median(alike, beside)]
    return torch.stack(parts, dim=1)


def _size(shape: Tensor) -> Tensor:
    """Return the standard deviation of a shape (..., n_points), with a gradient where it is 0."""
    return (shape.var(dim=-1, correction=0) + 1e-10).sqrt()


def _compare_sizes(a: Tensor, b: Tensor) -> Tensor:
    """Return the logarithm of the ratio of two sizes that may be 0."""
    return ((a + 1e-3) / (b + 1e-3)).log()


def _compare_qrs(beats: Tensor) -> Tensor:
    """Return how each beat (B, 11) resembles the middle one, by the best of small shifts."""
    part = beats[:, :, _within(_QRS_S)]
    middle = part[:, _SIDE : _SIDE + 1]
    return _correlate_shifted(part, middle, (1, 2, 3))


def _compare_usual(beats: Tensor, usual: Tensor, beside: Tensor) -> Tensor:
    """Compare the middle beat with the median beat (B, 96), first by the P wave: (B, 8)."""
    middle = beats[:, _SIDE]
    p_wave, part, t_wave = (_within(span) for span in (_P_S, _QRS_S, _T_S))
    p_alike = _correlate(beats[:, :, p_wave], usual[:, None, p_wave])
    qrs_alike = _correlate(beats[:, :, part], usual[:, None, part])
    apart = (middle - usual).var(dim=-1, correction=0) + 1e-4
    spread = usual.var(dim=-1, correction=0) + 1e-4
    usual_p, usual_qrs = usual[:, p_wave], usual[:, part]
    height = usual_qrs.amax(dim=-1) - usual_qrs.amin(dim=-1) + 1e-6
    measures = [p_alike[:, _SIDE], _median(p_alike, beside), qrs_alike[:, _SIDE]]
    measures += [_median(qrs_alike, beside), _correlate(middle, usual)]
    measures += [_correlate(middle[:, t_wave], usual[:, t_wave]), (apart / spread).log()]
    measures += [(usual_p.amax(dim=-1) - usual_p.amin(dim=-1)) / height]
    return torch.stack(measures, dim=1)


def _rank_alike(alike: Tensor, beside: Tensor) -> Tensor:
    """Return how the beats resemble the middle one, (B, 7), by rank and those next to it."""
    ranked = alike.where(beside, -2.0).sort(dim=1, descending=True)[0]
    next_to = alike[:, [_SIDE - 1, _SIDE + 1]]
    return torch.cat([ranked[:, [0, 1, 3, 5]], _median(alike, beside)[:, None], next_to], dim=1)


def _describe_alike(alike: Tensor, sizes: Tensor, beside: Tensor, early: Tensor) -> Tensor:
    """Describe the beats that resemble the middle one, and those that do not: (B, 5).

    In bigeminy, half of the beats look like the middle one, and they are early too.
    """
    differs = sizes - sizes[:, _SIDE : _SIDE + 1]  # (B, 11, 10)
    height, sharpness, width = differs[..., 0], differs[..., 2], differs[..., 3]
    is_alike = torch.sigmoid((alike - 0.9) * 30) * beside
    same = is_alike * torch.exp(-(height / 0.3).square())
    other = beside.to(alike.dtype) - is_alike
    n_same, n_other = same.sum(dim=1) + 0.1, other.sum(dim=1) + 0.1
    parts = [same.sum(dim=1) / beside.sum(dim=1).clamp(min=1), (same * early).sum(dim=1) / n_same]
    parts += [(other * values).sum(dim=1) / n_other for values in (early, width, sharpness)]
    return torch.stack(parts, dim=1)
