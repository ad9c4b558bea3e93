"""A short fingerprint of a recording, and the search for recordings that are the same.

A fingerprint is 256 signs of random projections (Charikar, STOC 2002) of four leads' slopes at 50
Hz, so the share of bits in which two recordings differ is the angle between them over pi. Slopes
forget the offset and most of the wander, signs forget the gain, leads are taken by name, and 50 Hz
is below every usual rate. docs/duplicates.md has the margins measured on real recordings.
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


Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Codes = NDArray[np.uint8]

_VERSION = "1"
# in the place of the version: the recording repeats itself, so that others may look the same by
# chance
_CYCLIC = "c"
_N_BLOCKS = 4  # a block is 64 signs of one lead
_BLOCK_BITS = 64
_LENGTH = (
    1 + _N_BLOCKS + _N_BLOCKS * _BLOCK_BITS // 4
)  # hexadecimal digits: version, a lead per block, the signs

_USABLE = re.compile(f"[{_VERSION}{_CYCLIC}][0-9a-f]{{{_LENGTH - 1}}}")

# Leads that say most of the heart together, then those that stand in for a dead or an absent one
_PREFERRED = [
    STANDARD_LEADS.index(name)
    for name in ("II", "I", "V2", "V5", "V1", "V6", "V3", "V4", "III", "aVF", "aVL", "aVR")
]

_RATE = 50  # Hz of the slopes
_SECONDS = 10.0
_MIN_SECONDS = 2.0  # less tells no two hearts apart
_EDGE = 15  # steps of 20 ms left out at both ends, where resampling filters ring
_CLIP = 4.0  # times the mean slope: a spike then counts no more than a beat
_MIN_LIVELINESS = 0.01  # mean over largest slope: a lone step has 0.005, real leads 0.012 and more
_MIN_SHARE = 1e-3  # of the liveliest lead's mean slope: less is rounding

_SAME_SHARE = 0.086  # of the bits: true pairs differ in at most 16 of 256, others in 35 and more
_SAME_SHARE_ONE_LEAD = 0.07  # one lead tells less: others differ in 22 and more
_MIN_COMMON_BITS = 128

# correlation of the last third of a lead with an earlier part; what passes for a copy (0.96) is as
# like itself
_CYCLIC_SHARE = 0.9
# of one recording, as where four collections hold it twice; more that repeat themselves are one
# wave made again
_MOST_COPIES = 8


# Making fingerprints ------------------------------------------------------------------------------


def compute_fingerprints(signals: Sequence[Float32Array], fs: float) -> list[str]:
    """Return the fingerprints of the first 10 s of recordings of one rate and length, "" where
    there is too little to tell.

    Parameters
    ----------
    signals
        Shape (12, n_samples) each in the standard lead order, in any unit; zeros for an absent
        lead. Missing samples (NaN) are interpolated. Several at a time cost less each.
    fs
        Hz.

    Returns
    -------
    list of str
        69 hexadecimal digits: the version, or c for a recording that repeats itself; a lead number
        per block; 4 x 64 signs.
    """
    n_samples = min(signals[0].shape[1], round(_SECONDS * fs))
    if n_samples < _MIN_SECONDS * fs:
        return [""] * len(signals)
    leads = _PREFERRED[:_N_BLOCKS]
    slopes = np.stack([_slopes(signal[:, :n_samples], leads, fs) for signal in signals])
    mean, live = _liveliness(slopes)
    prints = _write(slopes, mean, [leads] * len(signals))
    for i in np.flatnonzero(~live.all(axis=1)).tolist():
        prints[i] = _fingerprint_of_others(signals[i][:, :n_samples], fs)
    return prints


def _fingerprint_of_others(signal: Float32Array, fs: float) -> str:
    """Return the fingerprint of a recording in which a lead that is preferred is dead: of others,
    or "" where all are.
    """
    slopes = _slopes(signal, _PREFERRED, fs)
    mean, live = _liveliness(slopes)
    rows = np.flatnonzero(live)[:_N_BLOCKS]
    if not rows.size:
        return ""
    rows = np.resize(
        rows, _N_BLOCKS
    )  # fewer leads fill several blocks, each with projections of its own
    return _write(slopes[None, rows], mean[None, rows], [[_PREFERRED[row] for row in rows]])[0]


def _write(slopes: Float32Array, mean: Float32Array, leads: Sequence[Sequence[int]]) -> list[str]:
    """Return fingerprints of slopes (n, n_blocks, n_steps) of so many leads, and of the mean sizes
    of these.
    """
    signs = _signs(slopes, _CLIP * mean[..., None])
    kinds = (_CYCLIC if _repeats(first) else _VERSION for first in slopes[:, 0])
    return [
        f"{kind}{''.join(f'{lead + 1:x}' for lead in chosen)}{row.tobytes().hex()}"
        for kind, chosen, row in zip(kinds, leads, signs, strict=True)
    ]


def _slopes(signal: Float32Array, leads: list[int], fs: float) -> Float32Array:
    """Return slopes of some leads at 50 Hz (n_leads, n_steps): differences of means over 20 ms,
    smoothed by 1 2 1.

    The means are exact at any rate: sample k stands for the time from (k - 1/2) / fs to (k + 1/2) /
    fs.
    """
    edges = _edges(signal.shape[1], fs)
    totals, at_edges = _sums_between(signal, leads, edges)
    parts = at_edges * edges.shares
    means = totals + (parts[:, 1:] - parts[:, :-1])  # but for a factor
    steps = means[:, 1:] - means[:, :-1]
    if (
        not np.isfinite(steps).all() and not np.isfinite(signal[leads]).all()
    ):  # else sums ran over, which no interpolation mends
        return _slopes(_interpolated(signal[leads]), list(range(len(leads))), fs)
    smooth: Float32Array = steps[:, :-2] + 2 * steps[:, 1:-1] + steps[:, 2:]
    return smooth


@dataclass(frozen=True)
class _Edges:
    """Where intervals of 20 ms begin: the sample, the share of it that lies before, and 1 where the
    interval ends in another.

    `step` is the number of samples from one to the next where that is the same everywhere, as at
    500 Hz, else 0.
    """

    places: Ints
    shares: Float32Array
    filled: Float32Array
    step: int


def _sums_between(
    signal: Float32Array, leads: list[int], edges: _Edges
) -> tuple[Float32Array, Float32Array]:
    """Return the sums of the samples from each edge up to the next (n_leads, n_edges - 1), and the
    samples at edges (n_leads, n_edges).
    """
    if not edges.step:
        chosen = signal[leads]
        return np.add.reduceat(chosen, edges.places, axis=1)[:, :-1] * edges.filled, chosen.take(
            edges.places, axis=1
        )
    first, last = int(edges.places[0]), int(edges.places[-1])
    runs = signal[leads, first:last].reshape(-1, edges.step)
    return (runs @ np.ones(edges.step, np.float32)).reshape(len(leads), -1), signal[
        leads, first : last + 1 : edges.step
    ]


@lru_cache(maxsize=64)
def _edges(n_samples: int, fs: float) -> _Edges:
    n_steps = int((n_samples - 1) / fs * _RATE) + 1
    edges = ((np.arange(_EDGE, n_steps - _EDGE + 1) - 0.5) * (fs / _RATE) + 0.5).clip(
        0, n_samples - 1
    )
    places = edges.astype(np.int64)
    steps = np.diff(places)
    return _Edges(
        places,
        (edges - places).astype(np.float32),
        (steps > 0).astype(np.float32),
        int(steps[0]) if (steps == steps[0]).all() else 0,
    )


def _interpolated(signal: Float32Array) -> Float32Array:
    filled = signal.copy()
    for row in filled:
        good = np.isfinite(row)
        row[~good] = (
            np.interp(np.flatnonzero(~good), np.flatnonzero(good), row[good]) if good.any() else 0.0
        )
    return filled


def _liveliness(slopes: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
    """Return the mean size of each lead's slopes (..., n_leads), and which hold more than nothing,
    rounding, or a lone step.
    """
    size = np.abs(slopes)
    mean = size.mean(axis=-1)
    live: NDArray[np.bool_] = (mean > _MIN_LIVELINESS * size.max(axis=-1)) & (
        mean > _MIN_SHARE * mean.max(axis=-1, keepdims=True)
    )
    return mean, live


def _repeats(slopes: Float32Array) -> bool:
    """Tell whether the last third of a lead's slopes was there before, as in a sine or in beats at
    a fixed rate.
    """
    third = len(slopes) // 3
    before, last = slopes[: 2 * third], slopes[-third:]
    power = np.cumsum(before * before)
    limit = _CYCLIC_SHARE * np.sqrt((power[third:] - power[:-third]) * (last @ last))
    return bool((np.correlate(before[1:], last, "valid") > limit).any())


def _signs(slopes: Float32Array, limit: Float32Array) -> NDArray[np.uint8]:
    """Return the signs of the projections of each block, its slopes held to a limit, as packed bits
    (n, n_blocks, 8).
    """
    clipped = np.minimum(np.maximum(slopes, -limit), limit).swapaxes(0, 1)[:, :, None]
    # A product for each recording, since rounding, and with it a sign, could depend on how many are
    # in one
    projected = np.matmul(clipped, _directions()[:, None, : slopes.shape[-1]])[
        :, :, 0
    ]  # (n_blocks, n, 64)
    return np.packbits(projected > 0, axis=-1).swapaxes(0, 1)


@lru_cache(maxsize=1)
def _directions() -> Float32Array:
    """Return the random directions (n_blocks, n_steps, 64) of +1 and -1.

    They come from SHAKE-256, because fingerprints are kept and NumPy does not promise the same
    random numbers for ever.
    """
    n_steps = round(_SECONDS * _RATE)
    raw = hashlib.shake_256(b"ecg fingerprint 1").digest(_N_BLOCKS * n_steps * _BLOCK_BITS // 8)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(_N_BLOCKS, n_steps, _BLOCK_BITS)
    return bits.astype(np.float32) * 2 - 1


# Comparing fingerprints ---------------------------------------------------------------------------


class Fingerprints:
    """Fingerprints as numbers; those that are empty or of another version match nothing.

    Attributes
    ----------
    codes
        Lead of each block, shape (n, 4), 1 to 12; 0 where there is none.
    words
        Signs of each block, shape (n, 4).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        usable = [text if _USABLE.fullmatch(text) else "0" * _LENGTH for text in texts]
        joined = "".join(text[1 + _N_BLOCKS :] for text in usable)
        self.words: Words = (
            np.frombuffer(bytes.fromhex(joined), ">u8").astype(np.uint64).reshape(-1, _N_BLOCKS)
        )
        digits = np.frombuffer(
            "".join(text[1 : 1 + _N_BLOCKS] for text in usable).encode(), np.uint8
        )
        self.codes: Codes = (
            np.where(digits > 57, digits - 87, digits - 48).astype(np.uint8).reshape(-1, _N_BLOCKS)
        )

    def __len__(self) -> int:
        return len(self.words)


def same_recording(
    a: Fingerprints, rows_a: Ints, b: Fingerprints, rows_b: Ints
) -> NDArray[np.bool_]:
    """Tell for each pair of rows whether they are the same recording."""
    codes = a.codes[rows_a]
    shared = (codes == b.codes[rows_b]) & (codes > 0)
    differing = _add_blocks(np.bitwise_count(a.words[rows_a] ^ b.words[rows_b]) * shared)
    n_bits = _BLOCK_BITS * _add_blocks(shared)
    highest, lowest = np.where(shared, codes, 0).T, np.where(shared, codes, 99).T
    several = (reduce(np.maximum, highest) != reduce(np.minimum, lowest)) & (n_bits > 0)
    limit = np.where(several, _SAME_SHARE, _SAME_SHARE_ONE_LEAD) * n_bits
    same: NDArray[np.bool_] = (n_bits >= _MIN_COMMON_BITS) & (differing <= limit)
    return same


def _add_blocks(counts: NDArray[Any]) -> Ints:
    """Return the sums over the few blocks of each pair; over so short an axis NumPy's takes four
    times as long.
    """
    return reduce(np.add, counts.T, np.zeros(len(counts), np.int64))


def differing_bits(first: Sequence[str], second: Sequence[str]) -> tuple[Ints, Ints]:
    """Return in how many bits pairs of fingerprints differ, and how many of them can be
    compared.
    """
    a, b = Fingerprints(first), Fingerprints(second)
    shared = (a.codes == b.codes) & (a.codes > 0)
    return _add_blocks(np.bitwise_count(a.words ^ b.words) * shared), _BLOCK_BITS * _add_blocks(
        shared
    )


# Searching ----------------------------------------------------------------------------------------
#
# Two copies agree in some run of about 20 bits of some block. So records are sorted by each block
# from each of several starting bits, and only neighbours are compared: the work grows like n log n,
# whatever the records are like.

_STARTS = tuple(range(0, _BLOCK_BITS, 8))


_N_NEIGHBOURS = 4


_N_ASKED = 2048  # at a time, so that memory stays small


def _keys(prints: Fingerprints) -> Iterator[Words]:
    """Yield sorting keys (n,): a lead number, then 60 bits of its block from a starting bit on."""
    for block in range(_N_BLOCKS):
        lead = prints.codes[:, block].astype(np.uint64) << np.uint64(60)
        word = prints.words[:, block]
        for start in _STARTS:
            turned = (
                (word << np.uint64(start))
                | (word >> np.uint64((_BLOCK_BITS - start) % _BLOCK_BITS))
                if start
                else word
            )
            yield lead | (turned >> np.uint64(4))


def find_copies(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the positions of the recordings that are there more than once, a tuple for each in
    ascending order.

    Many that look the same and repeat themselves are not taken for copies: nothing in them would
    tell one from another.

    Parameters
    ----------
    texts
        Fingerprints, as `compute_fingerprints` returns them.
    """
    groups = _find_alike(texts)
    copies = [
        group for group in groups if sum(map(_is_cyclic, (texts[i] for i in group))) <= _MOST_COPIES
    ]
    if n_crowded := sum(map(len, groups)) - sum(map(len, copies)):
        logger.warning(
            "%d recordings repeat themselves and look like many others, as generated ones "
            "do: not taken for copies",
            n_crowded,
        )
    return copies


def _is_cyclic(text: str) -> bool:
    return text.startswith(_CYCLIC)


def _find_alike(texts: Sequence[str]) -> list[tuple[int, ...]]:
    prints = Fingerprints(texts)
    usable = np.flatnonzero(prints.codes[:, 0])
    n, found = (
        len(prints),
        [np.zeros(0, np.int64)],
    )  # pairs as one number each, the smaller position first
    for keys in _keys(prints):
        order = usable[np.argsort(keys[usable], kind="stable")]
        for step in range(1, _N_NEIGHBOURS + 1):
            first, second = order[:-step], order[step:]
            same = same_recording(prints, first, prints, second)
            first, second = first[same], second[same]
            found.append(np.minimum(first, second) * n + np.maximum(first, second))
    pairs = np.sort(np.concatenate(found))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return [
        tuple(sorted(group))
        for group in join_pairs(zip((pairs // n).tolist(), (pairs % n).tolist(), strict=True))
    ]


class FingerprintIndex:
    """Known recordings, to be asked whether others are among them.

    Parameters
    ----------
    known
        Fingerprints.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._prints = Fingerprints(list(dict.fromkeys(known)))
        self._cyclic = list(filter(_is_cyclic, known))
        self._sorted = []
        for keys in _keys(self._prints):
            order = np.argsort(keys, kind="stable")
            self._sorted.append((keys[order], order))

    def __len__(self) -> int:
        return int((self._prints.codes[:, 0] > 0).sum())

    def contains(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Tell for each fingerprint whether it is a known recording."""
        if not len(self._prints):
            return np.zeros(len(texts), bool)
        parts = [
            self._contains(Fingerprints(texts[i : i + _N_ASKED]))
            for i in range(0, len(texts), _N_ASKED)
        ]
        found = np.concatenate([np.zeros(0, bool), *parts])
        doubtful = [i for i in np.flatnonzero(found).tolist() if _is_cyclic(texts[i])]
        found[doubtful] = ~self._are_many([texts[i] for i in doubtful])
        return found

    def _are_many(self, asked: list[str]) -> NDArray[np.bool_]:
        """Tell which are like so many others, known or asked for, that `find_copies` does not take
        them for copies.
        """
        many = np.zeros(len(self._cyclic) + len(asked), bool)
        for group in _find_alike([*self._cyclic, *asked]) if asked else ():
            many[list(group)] = len(group) > _MOST_COPIES
        return many[len(self._cyclic) :]

    def _contains(self, asked: Fingerprints) -> NDArray[np.bool_]:
        steps = np.arange(-_N_NEIGHBOURS, _N_NEIGHBOURS)
        near = []  # rows of known recordings for each that is asked for, (n, 8) per key
        for keys, (held, order) in zip(_keys(asked), self._sorted, strict=True):
            places = np.searchsorted(held, keys)[:, None] + steps
            near.append(order[places.clip(0, len(held) - 1)])
        rows = np.concatenate(near, axis=1)
        asking = np.repeat(np.arange(len(asked)), rows.shape[1])
        same = same_recording(asked, asking, self._prints, rows.ravel())
        return np.asarray(same.reshape(rows.shape).any(axis=1))
