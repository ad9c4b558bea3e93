"""A short fingerprint of each recording, and the search for copies of one recording.

A fingerprint holds 256 bits: the signs of random projections (Charikar, STOC 2002) of the slopes of
four leads at 50 Hz. The share of bits in which two recordings differ estimates the angle between
them divided by pi. Slopes ignore the offset and most of the baseline wander, signs ignore the gain,
leads are matched by name, and 50 Hz is below every usual sampling rate. docs/duplicates.md reports
the margins measured on real recordings.
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
from src.utils import Float32Array, join_pairs

logger = logging.getLogger(__name__)


Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

# Format of a fingerprint. Its hexadecimal digits are: the version, a lead number (1 to 12) for each
# block, then the signs of each block. A block is 64 signs of one lead.
_VERSION = "1"
# Stands in place of the version where the recording repeats itself: others may match it by chance.
_CYCLIC = "c"
_N_BLOCKS = 4
_BLOCK_BITS = 64
_LENGTH = 1 + _N_BLOCKS + _N_BLOCKS * _BLOCK_BITS // 4
_USABLE = re.compile(f"[{_VERSION}{_CYCLIC}][0-9a-f]{{{_LENGTH - 1}}}")

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
# Mean over largest slope of a lead that shows a heart: a lone step has 0.005, real leads at least
# 0.012.
_MIN_LIVELINESS = 0.01
# Share of the liveliest lead's mean slope: smaller slopes are rounding errors.
_MIN_SHARE = 1e-3

# Copies differ in at most this share of the bits: true pairs in up to 16 of 256, others in 35 or
# more. A single lead says less: others differ there in 22 or more.
_SAME_SHARE = 0.086
_SAME_SHARE_ONE_LEAD = 0.07
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
        69 hexadecimal digits: the version, or c for a recording that repeats itself; a lead number
        per block; 4 x 64 signs. It is "" where a recording is too short or flat.
    """
    n_samples = min(signals[0].shape[1], round(_MAX_SECONDS * fs))
    if n_samples < _MIN_SECONDS * fs:
        return [""] * len(signals)

    # Most recordings have all four preferred leads, so they are computed together.
    leads = _PREFERRED[:_N_BLOCKS]
    slopes = np.stack([_compute_slopes(signal[:, :n_samples], leads, fs) for signal in signals])
    mean, live = _find_live_leads(slopes)
    fingerprints = _format_fingerprints(slopes, mean, [leads] * len(signals))

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
    rows = np.flatnonzero(live)[:_N_BLOCKS]
    if not rows.size:
        return ""
    # Fewer than four leads fill several blocks each. Every block has projections of its own.
    rows = np.resize(rows, _N_BLOCKS)
    leads = [_PREFERRED[row] for row in rows]
    return _format_fingerprints(slopes[None, rows], mean[None, rows], [leads])[0]


def _format_fingerprints(
    slopes: Float32Array, mean: Float32Array, leads: Sequence[Sequence[int]]
) -> list[str]:
    """Return fingerprints of slopes (n, n_blocks, n_steps) with their mean sizes (n, n_blocks).

    `leads` holds the lead of each block.
    """
    packed_signs = _project_signs(slopes, _CLIP * mean[..., None])
    fingerprints = []
    for first_lead, chosen, signs in zip(slopes[:, 0], leads, packed_signs, strict=True):
        kind = _CYCLIC if _repeats_itself(first_lead) else _VERSION
        lead_digits = "".join([f"{lead + 1:x}" for lead in chosen])
        fingerprints.append(f"{kind}{lead_digits}{signs.tobytes().hex()}")
    return fingerprints


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
    """Fingerprints as numbers; those that are empty or of another version match nothing.

    Attributes
    ----------
    leads
        Lead of each block, shape (n, 4), 1 to 12; 0 where there is none.
    signs
        Signs of each block as 64 bits, shape (n, 4).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # Lead 0 marks a block that matches nothing.
        usable = [text if _USABLE.fullmatch(text) else "0" * _LENGTH for text in texts]

        # All fingerprints are decoded in one call: one call for each would take most of a search.
        sign_digits = "".join([text[1 + _N_BLOCKS :] for text in usable])
        signs = np.frombuffer(bytes.fromhex(sign_digits), ">u8").astype(np.uint64)
        self.signs: Words = signs.reshape(-1, _N_BLOCKS)

        lead_digits = "".join([text[1 : 1 + _N_BLOCKS] for text in usable])
        ascii_codes = np.frombuffer(lead_digits.encode(), np.uint8)
        is_letter = ascii_codes > ord("9")
        leads = np.where(is_letter, ascii_codes - (ord("a") - 10), ascii_codes - ord("0"))
        self.leads: Bytes = leads.astype(np.uint8).reshape(-1, _N_BLOCKS)

    def __len__(self) -> int:
        return len(self.signs)


def same_recording(a: Fingerprints, rows_a: Ints, b: Fingerprints, rows_b: Ints) -> Bools:
    """Return whether each pair of rows is the same recording, shape (n_pairs,)."""
    # Only blocks of the same lead can be compared.
    leads = a.leads[rows_a]
    shared = (leads == b.leads[rows_b]) & (leads > 0)
    differing = _add_blocks(np.bitwise_count(a.signs[rows_a] ^ b.signs[rows_b]) * shared)
    n_bits = _BLOCK_BITS * _add_blocks(shared)

    # Bits of several leads say more than as many bits of one, so they may differ in more.
    highest = reduce(np.maximum, np.where(shared, leads, 0).T)
    lowest = reduce(np.minimum, np.where(shared, leads, 99).T)
    several = (highest != lowest) & (n_bits > 0)
    limit = np.where(several, _SAME_SHARE, _SAME_SHARE_ONE_LEAD) * n_bits
    same: Bools = (n_bits >= _MIN_COMMON_BITS) & (differing <= limit)
    return same


def _add_blocks(counts: NDArray[Any]) -> Ints:
    """Return sums over the few blocks of each pair.

    NumPy's sum takes four times as long over so short an axis.
    """
    return reduce(np.add, counts.T, np.zeros(len(counts), np.int64))


def differing_bits(first: Sequence[str], second: Sequence[str]) -> tuple[Ints, Ints]:
    """Return how many bits differ in each pair of fingerprints, and how many can be compared."""
    a = Fingerprints(first)
    b = Fingerprints(second)
    shared = (a.leads == b.leads) & (a.leads > 0)
    n_differing = _add_blocks(np.bitwise_count(a.signs ^ b.signs) * shared)
    return n_differing, _BLOCK_BITS * _add_blocks(shared)


# Searching ----------------------------------------------------------------------------------------
#
# Two copies agree in some run of about 20 bits of some block. So recordings are sorted by each
# block from each of several starting bits, and only neighbours in that order are compared. The work
# grows like n log n, whatever the recordings look like.

_STARTS = tuple(range(0, _BLOCK_BITS, 8))
_N_NEIGHBOURS = 4
# Recordings looked up at a time, so that memory stays small
_N_QUERIES = 2048


def _iter_sort_keys(prints: Fingerprints) -> Iterator[Words]:
    """Yield sort keys (n,): a lead number, then 60 bits of its block from a starting bit on."""
    for block in range(_N_BLOCKS):
        lead = prints.leads[:, block].astype(np.uint64) << np.uint64(60)
        signs = prints.signs[:, block]
        for start in _STARTS:
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
    return text.startswith(_CYCLIC)


def _group_same_recordings(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the positions of fingerprints that match, directly or through others, by group."""
    prints = Fingerprints(texts)
    usable = np.flatnonzero(prints.leads[:, 0])
    n = len(prints)

    # A pair is kept as one number, smaller position * n + larger position, so that sorting finds
    # the pairs that several keys gave.
    pairs_by_key = [np.zeros(0, np.int64)]
    for keys in _iter_sort_keys(prints):
        order = usable[np.argsort(keys[usable], kind="stable")]
        for step in range(1, _N_NEIGHBOURS + 1):
            first = order[:-step]
            second = order[step:]
            same = same_recording(prints, first, prints, second)
            first = first[same]
            second = second[same]
            pairs_by_key.append(np.minimum(first, second) * n + np.maximum(first, second))
    pairs = np.sort(np.concatenate(pairs_by_key))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]

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
        self._prints = Fingerprints(list(dict.fromkeys(known)))
        self._cyclic = [text for text in known if _is_cyclic(text)]
        # The keys in ascending order, and the row of each, for every kind of key
        self._sorted_keys = []
        for keys in _iter_sort_keys(self._prints):
            order = np.argsort(keys, kind="stable")
            self._sorted_keys.append((keys[order], order))

    def __len__(self) -> int:
        return int((self._prints.leads[:, 0] > 0).sum())

    def contains(self, texts: Sequence[str]) -> Bools:
        """Return whether each fingerprint is of a known recording, shape (n,)."""
        if not len(self._prints):
            return np.zeros(len(texts), bool)
        parts = [np.zeros(0, bool)]
        for start in range(0, len(texts), _N_QUERIES):
            parts.append(self._match(Fingerprints(texts[start : start + _N_QUERIES])))
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

    def _match(self, queries: Fingerprints) -> Bools:
        """Return whether each query matches a known recording next to it in some order."""
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
