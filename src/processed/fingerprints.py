"""A short fingerprint of each recording, and the search for copies of one recording.

A print holds 256 bits: the signs of random projections (Charikar, STOC 2002) of the slopes of four
leads at 50 Hz. The share of bits in which two recordings differ estimates the angle between them
divided by pi. Slopes ignore the offset and most of the baseline wander, signs ignore the gain,
leads are matched by name, and 50 Hz is below every usual sampling rate.

A fingerprint holds a print of the first 10 s, and up to three of the 5 s around a beat each. These
find a copy that begins later or ends earlier. docs/duplicates.md reports the margins measured on
real recordings.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.utils import Float32Array, Float64Array, join_pairs

logger = logging.getLogger(__name__)


Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

# Format of a fingerprint. Its hexadecimal digits are: the version, a lead number (1 to 12) for each
# block, the signs of each block, then the signs of the blocks around up to three beats. A block is
# 64 signs of one lead. Version 1 had no beats; its first print is the same.
_VERSION = "2"
_EARLIER = "1"
# Stand in place of the versions where the recording repeats itself: others may match it by chance.
_CYCLIC = "d"
_CYCLIC_EARLIER = "c"
_N_BLOCKS = 4
_BLOCK_BITS = 64
_SIGN_DIGITS = _N_BLOCKS * _BLOCK_BITS // 4
_HEAD = 1 + _N_BLOCKS
_LENGTH = _HEAD + _SIGN_DIGITS
_N_BEATS = 3
_PRINT = f"[0-9a-f]{{{_SIGN_DIGITS}}}"
_USABLE = re.compile(
    f"[{_EARLIER}{_CYCLIC_EARLIER}][0-9a-f]{{{_N_BLOCKS}}}{_PRINT}"
    f"|[{_VERSION}{_CYCLIC}][0-9a-f]{{{_N_BLOCKS}}}(?:{_PRINT}){{1,{1 + _N_BEATS}}}"
)

# The first four together show most of the heart; the others replace a flat or absent one.
_PREFERRED = [
    STANDARD_LEADS.index(name)
    for name in ("II", "I", "V2", "V5", "V1", "V6", "V3", "V4", "III", "aVF", "aVL", "aVR")
]

_SLOPE_HZ = 50
_MAX_SECONDS = 10.0
# A shorter recording cannot be told from that of another heart.
_MIN_SECONDS = 2.0
# Steps of 20 ms left out at both ends, where resampling filters ring
_EDGE_STEPS = 15
# Slopes are clipped at this multiple of their mean size, so that a spike counts like a beat.
_CLIP = 4.0
# Beats are searched for at about this rate, as peaks of the slopes of all leads within 0.1 s.
_BEAT_HZ = 200
_STEP_S = 1 / _SLOPE_HZ
_PEAK_S = 0.1
_BEATS_APART_S = 0.25
_CENTRE_ROUNDS = 4
# A print of a beat holds this stretch of the recording.
_BEFORE_BEAT_S = 0.2
_AFTER_BEAT_S = 4.8
# Mean over largest slope of a lead that shows a heart: a lone step has 0.005, real leads at least
# 0.012.
_MIN_LIVELINESS = 0.01
# Share of the liveliest lead's mean slope: smaller slopes are rounding errors.
_MIN_SHARE = 1e-3

# Copies differ in at most this share of the bits: true pairs in up to 16 of 256, others in 35 or
# more. A single lead says less: others differ there in 22 or more.
_SAME_SHARE = 0.086
_SAME_SHARE_ONE_LEAD = 0.07
# Prints of beats begin at the same wave in any recording, so others differ in less there: the beats
# of a pacemaker, on other days of one patient, in 10 or more of 256. Those repeat themselves.
_SAME_SHARE_BEAT = 0.03
_SAME_SHARE_CYCLIC_BEAT = 0.012
_MIN_COMMON_BITS = 128

# A lead repeats itself if its last third correlates this well with an earlier part of it. Two
# recordings that are taken for copies correlate at 0.96.
_CYCLIC_CORRELATION = 0.9
# Copies of one recording, such as in four collections that each hold it twice. More recordings
# that repeat themselves are one generated waveform.
_MAX_COPIES = 8


# Making fingerprints ------------------------------------------------------------------------------


def compute_fingerprints(signals: Sequence[Float32Array], fs: float) -> list[str]:
    """Return a fingerprint of the first 10 s of each recording, all of one rate and length.

    Several recordings per call cost less each.

    Parameters
    ----------
    signals
        Each of shape (12, n_samples) in the standard lead order, in any unit; zeros for an absent
        lead. Missing samples (NaN) are interpolated.
    fs
        Hz.

    Returns
    -------
    list of str
        69 hexadecimal digits: the version, or d for a recording that repeats itself; a lead number
        per block; 4 x 64 signs. Then 64 digits for each of up to three beats. It is "" where a
        recording is too short or flat.
    """
    n_samples = min(signals[0].shape[1], round(_MAX_SECONDS * fs))
    if n_samples < _MIN_SECONDS * fs:
        return [""] * len(signals)

    # Most recordings have all four preferred leads, so they are computed together.
    leads = _PREFERRED[:_N_BLOCKS]
    slopes = np.stack([_compute_slopes(signal[:, :n_samples], leads, fs) for signal in signals])
    mean, live = _find_live_leads(slopes)
    beats = _print_beats([signal[leads, :n_samples] for signal in signals], fs)
    fingerprints = _format_fingerprints(slopes, mean, [leads] * len(signals), beats)

    # The others are computed one by one, from whatever leads they have.
    for i in np.flatnonzero(~live.all(axis=1)).tolist():
        fingerprints[i] = _fingerprint_of_other_leads(signals[i][:, :n_samples], fs)
    return fingerprints


def _fingerprint_of_other_leads(signal: Float32Array, fs: float) -> str:
    """Return the fingerprint of a recording with a flat preferred lead, "" if all leads are flat.

    Other leads, in the order of preference, replace the flat ones.
    """
    slopes = _compute_slopes(signal, _PREFERRED, fs)
    mean, live = _find_live_leads(slopes)
    rows = _fill_blocks(live)
    if not rows:
        return ""
    leads = [_PREFERRED[row] for row in rows]
    beats = _print_beats([signal[leads]], fs)
    return _format_fingerprints(slopes[None, rows], mean[None, rows], [leads], beats)[0]


def _fill_blocks(live: Bools) -> list[int]:
    """Return the row of the lead of each block, given the mask of the preferred leads (12,).

    A live lead of the first four keeps its own block, because only equal leads in equal blocks can
    be compared. Leads that are left over fill the other blocks. Fewer than four leads fill several
    blocks each: every block has projections of its own.
    """
    rows = np.flatnonzero(live).tolist()
    if not rows:
        return []
    others = iter([row for row in rows if row >= _N_BLOCKS])
    blocks = [block if live[block] else next(others, -1) for block in range(_N_BLOCKS)]
    again = iter(rows * _N_BLOCKS)
    return [row if row >= 0 else next(again) for row in blocks]


def _format_fingerprints(
    slopes: Float32Array,
    mean: Float32Array,
    leads: Sequence[Sequence[int]],
    beats: Sequence[Sequence[bytes]],
) -> list[str]:
    """Return fingerprints of slopes (n, n_blocks, n_steps) with their mean sizes (n, n_blocks).

    `leads` holds the lead of each block, `beats` the prints of each recording's beats.
    """
    packed_signs = _project_signs(slopes, _CLIP * mean[..., None])
    fingerprints = []
    for first_lead, chosen, signs, prints in zip(
        slopes[:, 0], leads, packed_signs, beats, strict=True
    ):
        kind = _CYCLIC if _repeats_itself(first_lead) else _VERSION
        lead_digits = "".join([f"{lead + 1:x}" for lead in chosen])
        digits = "".join([part.hex() for part in (signs.tobytes(), *prints)])
        fingerprints.append(f"{kind}{lead_digits}{digits}")
    return fingerprints


# Beats --------------------------------------------------------------------------------------------


def _print_beats(signals: Sequence[Float32Array], fs: float) -> list[list[bytes]]:
    """Return the prints of up to three beats of each recording.

    The beats are those with the steepest waves of which a print still lies in the recording. A
    recording that is cut by a second shares most of these beats, and their prints are the same.

    Parameters
    ----------
    signals
        n of shape (n_blocks, n_samples).
    fs
        Hz.
    """
    sums, rate = _cumulate(signals, fs)
    times, found = _find_beats(sums, rate)
    if not found.any():
        return [[] for _ in signals]
    slopes = _slopes_after(sums, rate, times - _BEFORE_BEAT_S)  # (n, n_beats, n_blocks, n_steps)
    n, n_beats, n_blocks, n_steps = slopes.shape
    rows = slopes.reshape(n * n_beats, n_blocks, n_steps)
    limit = _CLIP * np.abs(rows).mean(axis=-1, keepdims=True)
    signs = _project_signs(rows, limit).reshape(n, n_beats, -1)
    return [
        [one.tobytes() for one, is_beat in zip(own, mask, strict=True) if is_beat]
        for own, mask in zip(signs, found.tolist(), strict=True)
    ]


def _cumulate(signals: Sequence[Float32Array], fs: float) -> tuple[Float64Array, float]:
    """Return the running sums of the samples (n, n_blocks, 1 + any), and their rate in Hz."""
    step = max(1, int(fs / _BEAT_HZ))
    n_sums = signals[0].shape[1] // step
    chosen = np.stack([signal[:, : n_sums * step] for signal in signals])
    if not np.isfinite(chosen).all():
        chosen = np.stack([_interpolate(one) for one in chosen])
    parts = chosen.reshape(-1, step) @ np.ones(step, np.float32)
    parts = parts.reshape(*chosen.shape[:2], n_sums)
    parts -= parts.mean(axis=-1, keepdims=True)
    sums = np.zeros((*chosen.shape[:2], n_sums + 1))
    np.cumsum(parts, axis=-1, out=sums[..., 1:])
    return sums, fs / step


def _find_beats(sums: Float64Array, rate: float) -> tuple[Float64Array, Bools]:
    """Return the times of the three steepest beats of each recording in s, and which there are.

    Both are of shape (n, 3). A time is the centre of mass of a beat's slopes, so that it is the
    same at any rate.
    """
    # How steep all leads are together, each against its own mean
    step = max(1, round(rate * _STEP_S))
    bends = np.abs(sums[..., 2 * step :] - 2 * sums[..., step:-step] + sums[..., : -2 * step])
    mean = bends.mean(axis=-1, keepdims=True)
    bends /= np.maximum(mean, 1e-30)
    steepness = np.minimum(bends, 2 * _CLIP).sum(axis=1)  # (n, n_times), at (step + i) / rate
    smooth = _smooth(_smooth(steepness, rate), rate)

    # Peaks from which a whole print lies in the recording, a margin at both ends left out
    times = (np.arange(smooth.shape[1]) + step) / rate
    margin = _EDGE_STEPS * _STEP_S
    last = (sums.shape[-1] - 1) / rate - margin - _AFTER_BEAT_S
    inside = (times > margin + _BEFORE_BEAT_S) & (times < last)
    is_peak = np.zeros(smooth.shape, bool)
    is_peak[:, 1:-1] = (smooth[:, 1:-1] > smooth[:, :-2]) & (smooth[:, 1:-1] >= smooth[:, 2:])
    heights = np.where(is_peak & inside, smooth, 0)

    chosen = []
    found = []
    for _ in range(_N_BEATS):
        place = heights.argmax(axis=1)
        found.append(np.take_along_axis(heights, place[:, None], axis=1)[:, 0] > 0)
        chosen.append(times[place])
        heights[np.abs(times - times[place][:, None]) < _BEATS_APART_S] = 0
    return _centre(np.stack(chosen, axis=1), steepness, times, rate), np.stack(found, axis=1)


def _smooth(values: Float64Array, rate: float) -> Float64Array:
    """Return means over `_PEAK_S` around each value (n, n_times)."""
    width = max(1, round(rate * _PEAK_S / 2))
    padded = np.pad(values, ((0, 0), (width + 1, width)))
    running = np.cumsum(padded, axis=1)
    return np.asarray(running[:, 2 * width + 1 :] - running[:, : -2 * width - 1])


def _centre(
    beats: Float64Array, steepness: Float64Array, times: Float64Array, rate: float
) -> Float64Array:
    """Move the times of beats (n, n_beats) to the centres of mass of the slopes around them."""
    reach = round(_PEAK_S * rate)
    offsets = np.arange(-reach, reach + 1)
    rows = np.arange(len(beats))[:, None, None]
    for _ in range(_CENTRE_ROUNDS):
        places = np.rint((beats[..., None] - times[0]) * rate).astype(np.int64) + offsets
        places = places.clip(0, len(times) - 1)  # (n, n_beats, n_offsets)
        near = times[places]
        weights = np.maximum(1 - np.abs(near - beats[..., None]) / _PEAK_S, 0)
        weights *= steepness[rows, places]
        beats = (weights * near).sum(axis=-1) / np.maximum(weights.sum(axis=-1), 1e-30)
    return beats


def _slopes_after(sums: Float64Array, rate: float, starts: Float64Array) -> Float32Array:
    """Return the slopes at 50 Hz from some times on, as `_compute_slopes` does for a recording.

    Parameters
    ----------
    sums, rate
        As from `_cumulate`.
    starts
        Times in s, shape (n, n_beats).

    Returns
    -------
    ndarray
        Shape (n, n_beats, n_blocks, n_steps).
    """
    n_steps = round((_BEFORE_BEAT_S + _AFTER_BEAT_S) * _SLOPE_HZ)
    edges = starts[..., None] + (np.arange(n_steps + 4) - 2) * _STEP_S
    places = (edges * rate).clip(0, sums.shape[-1] - 1.001)
    before = places.astype(np.int64)[:, :, None]  # (n, n_beats, 1, n_edges)
    share = (places - places.astype(np.int64))[:, :, None]
    rows = np.arange(len(sums))[:, None, None, None]
    blocks = np.arange(sums.shape[1])[:, None]
    at_edges = sums[rows, blocks, before] * (1 - share) + sums[rows, blocks, before + 1] * share
    steps = np.diff(at_edges, n=2, axis=-1)
    smooth = steps[..., :-2] + 2 * steps[..., 1:-1] + steps[..., 2:]
    return np.asarray(smooth, np.float32)


# Slopes and signs ---------------------------------------------------------------------------------


def _compute_slopes(signal: Float32Array, leads: list[int], fs: float) -> Float32Array:
    """Return slopes of the leads at 50 Hz (n_leads, n_steps), smoothed by weights 1 2 1.

    A slope is the difference between the means of two neighbouring steps of 20 ms. The means are
    exact at any rate: sample k stands for the time from (k - 1/2) / fs to (k + 1/2) / fs.
    """
    edges = _step_edges(signal.shape[1], fs)
    sums, at_edges = _sum_between_edges(signal, leads, edges)

    # A sample at an edge belongs in part to the step before it and in part to the step after it.
    # These are sums, not means: a constant factor changes no sign.
    parts = at_edges * edges.shares
    means = sums + (parts[:, 1:] - parts[:, :-1])
    steps = means[:, 1:] - means[:, :-1]

    # Checking the few steps first is cheaper than checking all samples. Finite samples whose sums
    # overflow stay as they are, since interpolation would not change them.
    if not np.isfinite(steps).all() and not np.isfinite(signal[leads]).all():
        return _compute_slopes(_interpolate(signal[leads]), list(range(len(leads))), fs)
    smooth: Float32Array = steps[:, :-2] + 2 * steps[:, 1:-1] + steps[:, 2:]
    return smooth


@dataclass(frozen=True)
class _StepEdges:
    """Edges of the steps of 20 ms, in samples.

    Attributes
    ----------
    samples
        The sample at each edge, shape (n_edges,).
    shares
        The share of that sample that lies before the edge, shape (n_edges,).
    nonempty
        1 for each step that ends in another sample than it begins, else 0; shape (n_edges - 1,).
    width
        Samples per step where all steps have the same, as at 500 Hz, else 0.
    """

    samples: Ints
    shares: Float32Array
    nonempty: Float32Array
    width: int


@lru_cache(maxsize=64)
def _step_edges(n_samples: int, fs: float) -> _StepEdges:
    n_steps = int((n_samples - 1) / fs * _SLOPE_HZ) + 1
    # Step k is centred at time k / 50 s, so that it does not depend on the rate.
    centres = np.arange(_EDGE_STEPS, n_steps - _EDGE_STEPS + 1)
    edges = ((centres - 0.5) * (fs / _SLOPE_HZ) + 0.5).clip(0, n_samples - 1)
    samples = edges.astype(np.int64)
    widths = np.diff(samples)
    return _StepEdges(
        samples=samples,
        shares=(edges - samples).astype(np.float32),
        nonempty=(widths > 0).astype(np.float32),
        width=int(widths[0]) if (widths == widths[0]).all() else 0,
    )


def _sum_between_edges(
    signal: Float32Array, leads: list[int], edges: _StepEdges
) -> tuple[Float32Array, Float32Array]:
    """Return the sums of the samples from each edge to the next, and the samples at the edges.

    Returns
    -------
    sums
        Shape (n_leads, n_edges - 1).
    at_edges
        Shape (n_leads, n_edges).
    """
    # Steps of unequal widths: reduceat gives the single sample for an empty step, whose sum is 0.
    if not edges.width:
        chosen = signal[leads]
        sums = np.add.reduceat(chosen, edges.samples, axis=1)[:, :-1] * edges.nonempty
        return sums, chosen.take(edges.samples, axis=1)

    # Steps of equal widths: a matrix product is several times as fast.
    first = int(edges.samples[0])
    last = int(edges.samples[-1])
    rows = signal[leads, first:last].reshape(-1, edges.width)  # (n_leads * n_steps, width)
    sums = (rows @ np.ones(edges.width, np.float32)).reshape(len(leads), -1)
    return sums, signal[leads, first : last + 1 : edges.width]


def _interpolate(signal: Float32Array) -> Float32Array:
    """Return a copy with missing samples interpolated; a lead that misses all becomes zeros."""
    filled = signal.copy()
    for lead in filled:
        finite = np.isfinite(lead)
        if not finite.any():
            lead[:] = 0.0
            continue
        lead[~finite] = np.interp(np.flatnonzero(~finite), np.flatnonzero(finite), lead[finite])
    return filled


def _find_live_leads(slopes: Float32Array) -> tuple[Float32Array, Bools]:
    """Return the mean size of each lead's slopes (..., n_leads), and a mask of the live leads.

    A live lead holds more than nothing, rounding errors, or a lone step.
    """
    size = np.abs(slopes)
    mean = size.mean(axis=-1)
    more_than_a_step = mean > _MIN_LIVELINESS * size.max(axis=-1)
    more_than_rounding = mean > _MIN_SHARE * mean.max(axis=-1, keepdims=True)
    live: Bools = more_than_a_step & more_than_rounding
    return mean, live


def _repeats_itself(slopes: Float32Array) -> bool:
    """Return whether the last third of a lead's slopes occurs earlier in it.

    It does in a sine wave or in generated beats at a fixed rate.
    """
    third = len(slopes) // 3
    earlier = slopes[: 2 * third]
    last = slopes[-third:]

    # The correlation coefficient with each earlier stretch is compared with a limit. Multiplied by
    # both norms, this needs no division by the norm of a flat stretch.
    power = np.cumsum(earlier * earlier)
    stretch_power = power[third:] - power[:-third]
    limit = _CYCLIC_CORRELATION * np.sqrt(stretch_power * (last @ last))
    return bool((np.correlate(earlier[1:], last, "valid") > limit).any())


def _project_signs(slopes: Float32Array, limit: Float32Array) -> Bytes:
    """Return the signs of the projections of each block as packed bits (n, n_blocks, 8).

    Parameters
    ----------
    slopes
        Shape (n, n_blocks, n_steps).
    limit
        Largest slope, shape (n, n_blocks, 1).
    """
    clipped = np.minimum(np.maximum(slopes, -limit), limit)
    rows = clipped.swapaxes(0, 1)[:, :, None]  # (n_blocks, n, 1, n_steps)
    directions = _random_directions()[:, None, : slopes.shape[-1]]  # (n_blocks, 1, n_steps, 64)
    # Each recording gets a product of its own: in one large product the rounding, and with it a
    # sign, could depend on how many recordings there are.
    projected = np.matmul(rows, directions)[:, :, 0]  # (n_blocks, n, 64)
    return np.packbits(projected > 0, axis=-1).swapaxes(0, 1)


@lru_cache(maxsize=1)
def _random_directions() -> Float32Array:
    """Return the random directions (n_blocks, n_steps, 64) of +1 and -1.

    They come from SHAKE-256, because fingerprints are kept on disk and NumPy does not promise the
    same random numbers for ever.
    """
    n_steps = round(_MAX_SECONDS * _SLOPE_HZ)
    raw = hashlib.shake_256(b"ecg fingerprint 1").digest(_N_BLOCKS * n_steps * _BLOCK_BITS // 8)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(_N_BLOCKS, n_steps, _BLOCK_BITS)
    return bits.astype(np.float32) * 2 - 1


# Comparing fingerprints ---------------------------------------------------------------------------


class Fingerprints:
    """Prints as numbers; those of texts that are empty or of another version match nothing.

    Parameters
    ----------
    texts
        Fingerprints.
    beats
        Take the prints of their beats instead of those of their first 10 s.

    Attributes
    ----------
    leads
        Lead of each block, shape (n, 4), 1 to 12; 0 where there is none.
    signs
        Signs of each block as 64 bits, shape (n, 4).
    owners
        The text of each print, as a position in `texts`, shape (n,).
    cyclic
        Whether the recording of each print repeats itself, shape (n,).
    beats
        Whether these are prints of beats.
    """

    def __init__(self, texts: Sequence[str], *, beats: bool = False) -> None:
        self.beats = beats
        # Lead 0 marks a block that matches nothing.
        usable = [text if _USABLE.fullmatch(text) else "0" * _LENGTH for text in texts]
        if beats:
            prints = []
            owners = []
            for owner, text in enumerate(usable):
                for start in range(_LENGTH, len(text), _SIGN_DIGITS):
                    prints.append(text[1:_HEAD] + text[start : start + _SIGN_DIGITS])
                    owners.append(owner)
            self.owners = np.array(owners, np.int64)
        else:
            prints = [text[1:_LENGTH] for text in usable]
            self.owners = np.arange(len(prints))

        cyclic = np.array([_is_cyclic(text) for text in texts], bool)
        self.cyclic: Bools = cyclic[self.owners]

        # All prints are decoded in one call: one call for each would take most of a search.
        sign_digits = "".join([text[_N_BLOCKS:] for text in prints])
        signs = np.frombuffer(bytes.fromhex(sign_digits), ">u8").astype(np.uint64)
        self.signs: Words = signs.reshape(-1, _N_BLOCKS)

        lead_digits = "".join([text[:_N_BLOCKS] for text in prints])
        ascii_codes = np.frombuffer(lead_digits.encode(), np.uint8)
        is_letter = ascii_codes > ord("9")
        leads = np.where(is_letter, ascii_codes - (ord("a") - 10), ascii_codes - ord("0"))
        self.leads: Bytes = leads.astype(np.uint8).reshape(-1, _N_BLOCKS)

    def __len__(self) -> int:
        return len(self.signs)


def same_recording(a: Fingerprints, rows_a: Ints, b: Fingerprints, rows_b: Ints) -> Bools:
    """Return whether each pair of prints is of the same recording, shape (n_pairs,)."""
    # Only blocks of the same lead can be compared.
    leads = a.leads[rows_a]
    shared = (leads == b.leads[rows_b]) & (leads > 0)
    differing = _add_blocks(np.bitwise_count(a.signs[rows_a] ^ b.signs[rows_b]) * shared)
    n_bits = _BLOCK_BITS * _add_blocks(shared)
    enough = n_bits >= _MIN_COMMON_BITS
    if a.beats:
        both_cyclic = a.cyclic[rows_a] & b.cyclic[rows_b]
        share = np.where(both_cyclic, _SAME_SHARE_CYCLIC_BEAT, _SAME_SHARE_BEAT)
        return np.asarray(enough & (differing <= share * n_bits))

    # Bits of several leads say more than as many bits of one, so they may differ in more.
    highest = reduce(np.maximum, np.where(shared, leads, 0).T)
    lowest = reduce(np.minimum, np.where(shared, leads, 99).T)
    several = (highest != lowest) & (n_bits > 0)
    limit = np.where(several, _SAME_SHARE, _SAME_SHARE_ONE_LEAD) * n_bits
    same: Bools = enough & (differing <= limit)
    return same


def _add_blocks(counts: NDArray[Any]) -> Ints:
    """Return sums over the few blocks of each pair.

    NumPy's sum takes four times as long over so short an axis.
    """
    return reduce(np.add, counts.T, np.zeros(len(counts), np.int64))


def differing_bits(first: Sequence[str], second: Sequence[str]) -> tuple[Ints, Ints]:
    """Return how many bits differ in each pair of fingerprints, and how many can be compared.

    They are those of the first 10 s or, where these are not alike, those of the closest two beats.
    """
    a = Fingerprints(first)
    b = Fingerprints(second)
    rows = np.arange(len(a))
    n_differing, n_compared = _count_bits(a, rows, b, rows)
    unlike = np.flatnonzero(~same_recording(a, rows, b, rows)).tolist()
    for i in unlike:
        beats_a = Fingerprints([first[i]], beats=True)
        beats_b = Fingerprints([second[i]], beats=True)
        pairs = np.indices((len(beats_a), len(beats_b))).reshape(2, -1)
        if pairs.size and same_recording(beats_a, pairs[0], beats_b, pairs[1]).any():
            differing, compared = _count_bits(beats_a, pairs[0], beats_b, pairs[1])
            closest = differing.argmin()
            n_differing[i] = differing[closest]
            n_compared[i] = compared[closest]
    return n_differing, n_compared


def _count_bits(a: Fingerprints, rows_a: Ints, b: Fingerprints, rows_b: Ints) -> tuple[Ints, Ints]:
    leads = a.leads[rows_a]
    shared = (leads == b.leads[rows_b]) & (leads > 0)
    n_differing = _add_blocks(np.bitwise_count(a.signs[rows_a] ^ b.signs[rows_b]) * shared)
    return n_differing, _BLOCK_BITS * _add_blocks(shared)


# Searching ----------------------------------------------------------------------------------------
#
# Two copies agree in some run of about 20 bits of some block. So recordings are sorted by each
# block from each of several starting bits, and only neighbours in that order are compared. The work
# grows like n log n, whatever the recordings look like.

_STARTS = tuple(range(0, _BLOCK_BITS, 8))
# Prints of beats may differ in half as many bits, so fewer orders find them.
_BEAT_STARTS = _STARTS[::2]
_N_NEIGHBOURS = 4
# Recordings looked up at a time, so that memory stays small
_N_QUERIES = 2048


def _iter_sort_keys(prints: Fingerprints) -> Iterator[Words]:
    """Yield sort keys (n,): a lead number, then 60 bits of its block from a starting bit on."""
    for block in range(_N_BLOCKS):
        lead = prints.leads[:, block].astype(np.uint64) << np.uint64(60)
        signs = prints.signs[:, block]
        for start in _BEAT_STARTS if prints.beats else _STARTS:
            rotated = signs
            if start:
                rotated = (signs << np.uint64(start)) | (signs >> np.uint64(_BLOCK_BITS - start))
            yield lead | (rotated >> np.uint64(4))


def find_copies(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the positions of the copies of each recording that occurs more than once, ascending.

    Many recordings that look the same and repeat themselves are not taken for copies: nothing in
    them would tell one from another.

    Parameters
    ----------
    texts
        Fingerprints, as `compute_fingerprints` returns them.
    """
    copies = []
    n_crowded = 0
    for group in _group_same_recordings(texts):
        n_cyclic = sum([_is_cyclic(texts[i]) for i in group])
        if n_cyclic <= _MAX_COPIES:
            copies.append(group)
        else:
            n_crowded += len(group)
    if n_crowded:
        logger.warning(
            "%d recordings repeat themselves and look like many others, as generated ones do: "
            "not taken for copies",
            n_crowded,
        )
    return copies


def _is_cyclic(text: str) -> bool:
    """Return whether a fingerprint is of a recording that repeats itself."""
    return text.startswith((_CYCLIC, _CYCLIC_EARLIER))


def _group_same_recordings(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the positions of fingerprints that match, directly or through others, by group."""
    n = len(texts)
    # A pair is kept as one number, smaller position * n + larger position, so that sorting finds
    # the pairs that several keys gave.
    pairs_by_key = [np.zeros(0, np.int64)]
    for prints in (Fingerprints(texts), Fingerprints(texts, beats=True)):
        usable = np.flatnonzero(prints.leads[:, 0])
        for keys in _iter_sort_keys(prints):
            order = usable[np.argsort(keys[usable], kind="stable")]
            for step in range(1, _N_NEIGHBOURS + 1):
                first = order[:-step]
                second = order[step:]
                same = same_recording(prints, first, prints, second)
                one = prints.owners[first[same]]
                other = prints.owners[second[same]]
                pairs_by_key.append(np.minimum(one, other) * n + np.maximum(one, other))
    pairs = np.sort(np.concatenate(pairs_by_key))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    # Two beats of one recording may be alike.
    pairs = pairs[pairs // n != pairs % n]

    groups = join_pairs(zip((pairs // n).tolist(), (pairs % n).tolist(), strict=True))
    return [tuple(sorted(group)) for group in groups]


class FingerprintIndex:
    """Known recordings, for looking up whether others are among them.

    Parameters
    ----------
    known
        Fingerprints.
    """

    def __init__(self, known: Sequence[str]) -> None:
        texts = list(dict.fromkeys(known))
        self._cyclic = [text for text in known if _is_cyclic(text)]
        self._parts = [_PrintIndex(Fingerprints(texts, beats=beats)) for beats in (False, True)]

    def __len__(self) -> int:
        return self._parts[0].n_usable

    def contains(self, texts: Sequence[str]) -> Bools:
        """Return whether each fingerprint is of a known recording, shape (n,)."""
        parts = [np.zeros(0, bool)]
        for start in range(0, len(texts), _N_QUERIES):
            queries = texts[start : start + _N_QUERIES]
            found = np.zeros(len(queries), bool)
            for part in self._parts:
                prints = Fingerprints(queries, beats=part.beats)
                found[prints.owners[part.match(prints)]] = True
            parts.append(found)
        contained = np.concatenate(parts)

        # A recording that repeats itself is no copy if it looks like many others.
        cyclic = [i for i in np.flatnonzero(contained).tolist() if _is_cyclic(texts[i])]
        contained[cyclic] = ~self._is_crowded([texts[i] for i in cyclic])
        return contained

    def _is_crowded(self, texts: list[str]) -> Bools:
        """Return whether each fingerprint looks like too many others to be taken for a copy.

        The others are the known ones and `texts`. `find_copies` does the same.
        """
        crowded = np.zeros(len(self._cyclic) + len(texts), bool)
        if texts:
            for group in _group_same_recordings([*self._cyclic, *texts]):
                crowded[list(group)] = len(group) > _MAX_COPIES
        return crowded[len(self._cyclic) :]


class _PrintIndex:
    """Known prints of one kind, sorted by every kind of key."""

    def __init__(self, prints: Fingerprints) -> None:
        self._prints = prints
        self.beats = prints.beats
        self.n_usable = int((prints.leads[:, 0] > 0).sum())
        # The keys in ascending order, and the row of each
        self._sorted_keys = []
        for keys in _iter_sort_keys(prints):
            order = np.argsort(keys, kind="stable")
            self._sorted_keys.append((keys[order], order))

    def match(self, queries: Fingerprints) -> Bools:
        """Return whether each query matches a known print next to it in some order."""
        if not self.n_usable or not len(queries):
            return np.zeros(len(queries), bool)
        offsets = np.arange(-_N_NEIGHBOURS, _N_NEIGHBOURS)
        neighbours = []  # rows of known recordings, (n, 8) for each kind of key
        for keys, (sorted_keys, order) in zip(
            _iter_sort_keys(queries), self._sorted_keys, strict=True
        ):
            places = np.searchsorted(sorted_keys, keys)[:, None] + offsets
            neighbours.append(order[places.clip(0, len(sorted_keys) - 1)])

        # Every query is compared with all its neighbours in one call.
        candidates = np.concatenate(neighbours, axis=1)  # (n, 8 * n_keys)
        query_rows = np.repeat(np.arange(len(queries)), candidates.shape[1])
        same = same_recording(queries, query_rows, self._prints, candidates.ravel())
        return np.asarray(same.reshape(candidates.shape).any(axis=1))
