from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly
from settings import compute_fingerprint

from src.config import STANDARD_LEADS
from src.processed.fingerprints import FingerprintIndex, differing_bits, find_copies
from src.processed.signals import order_leads
from src.records.reading import read_record
from src.utils import Float32Array

CLOSE = 22  # of 256 bits


def heart(seed: int, seconds: float = 10.0, fs: float = 500.0) -> Float32Array:
    """Return twelve leads of beats at irregular times, of random sizes, with a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * fs)) / fs
    times = np.cumsum(rng.uniform(0.6, 1.1, 20))
    beats = np.exp(-0.5 * ((time[:, None] - times) / 0.015) ** 2).sum(axis=1)
    waves = np.exp(-0.5 * ((time[:, None] - times - 0.3) / 0.04) ** 2).sum(axis=1)
    signal = rng.normal(size=(12, 1)) * beats + rng.normal(scale=0.3, size=(12, 1)) * waves
    return (signal + rng.normal(scale=0.01, size=signal.shape)).astype(np.float32)


def bits(first: Float32Array, second: Float32Array, fs_second: float = 500.0) -> int:
    differing, compared = differing_bits(
        [compute_fingerprint(first, 500.0)], [compute_fingerprint(second, fs_second)]
    )
    assert compared.tolist() == [256]
    return int(differing[0])


def test_gain_offset_and_rounding_do_not_matter() -> None:
    signal = heart(0)
    gains = np.linspace(0.2, 5, 12, dtype=np.float32)[:, None]
    assert bits(signal, signal * gains + 3) <= 2
    assert bits(signal, (signal / 0.005).round().astype(np.float32) * np.float32(0.005)) < CLOSE


@pytest.mark.parametrize(("up", "down"), [(1, 5), (1, 4), (1, 2), (3, 5), (18, 25), (4, 5), (2, 1)])
def test_the_rate_does_not_matter(up: int, down: int) -> None:
    signal = heart(1)
    other = resample_poly(signal.astype(np.float64), up, down, axis=1).astype(np.float32)
    assert bits(signal, other, 500 * up / down) < CLOSE


def test_other_recordings_are_far() -> None:
    prints = [compute_fingerprint(heart(seed), 500.0) for seed in range(30)]
    pairs = [(a, b) for i, a in enumerate(prints) for b in prints[:i]]
    assert differing_bits(*zip(*pairs, strict=True))[0].min() > 60


def test_the_format_stays() -> None:
    """Fingerprints are kept in manifests and checkpoints: these digits must not change."""
    time = np.arange(1000) / 100.0
    signal = np.stack(
        [np.sin(2 * np.pi * (1 + 0.3 * lead) * time) ** 5 for lead in range(12)]
    ).astype(np.float32)
    text = compute_fingerprint(signal, 100.0)
    assert re.fullmatch(
        "d218b(?:[0-9a-f]{64}){4}", text
    )  # a lead that repeats itself; leads II, I, V2, V5
    assert re.fullmatch("2218b(?:[0-9a-f]{64}){4}", compute_fingerprint(heart(0), 500.0))
    assert (
        int(text[5:21], 16) ^ 0x8678033AE004BC9E
    ).bit_count() <= 1  # one for a sum that rounds to another side of zero


def test_what_tells_nothing_has_no_fingerprint() -> None:
    flat, step = np.full((12, 5000), 0.3, np.float32), np.zeros((12, 5000), np.float32)
    step[:, 2500:] = 1.0
    assert compute_fingerprint(flat, 500.0) == compute_fingerprint(step, 500.0) == ""
    assert compute_fingerprint(heart(0)[:, :900], 500.0) == ""
    assert find_copies(["", "", ""]) == [] and not FingerprintIndex([""]).contains([""]).any()


def test_dead_and_missing_leads_are_replaced_by_others() -> None:
    signal = heart(2)
    dead = signal.copy()
    dead[[1, 7]] = 0.0  # II and V2
    assert compute_fingerprint(dead, 500.0)[:5] == "271cb"
    one = np.zeros_like(signal)
    one[0] = signal[0]
    assert compute_fingerprint(one, 500.0)[:5] == "21111"
    limb = np.where(np.arange(12)[:, None] < 2, signal, 0).astype(np.float32)
    whole, part = compute_fingerprint(signal, 500.0), compute_fingerprint(limb, 500.0)
    assert [count.tolist() for count in differing_bits([whole], [part])] == [[0], [128]]
    assert find_copies([whole, part]) == [(0, 1)]


def beats(seed: int, fs: float = 500.0) -> Float32Array:
    """Return twelve leads of one beat again and again at a fixed rate, with a little noise that no
    other seed shares.
    """
    time = np.arange(round(10 * fs)) / fs
    beat = np.exp(-0.5 * (((time * 1.2) % 1 - 0.5) / 0.03) ** 2)
    noise = np.random.default_rng(seed).normal(scale=0.02, size=(12, len(time)))
    return (np.arange(1, 13)[:, None] / 6 * beat + noise).astype(np.float32)


def test_many_that_repeat_one_beat_are_no_copies_while_a_few_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    texts = [compute_fingerprint(beats(seed), 500.0) for seed in range(30)]
    assert {text[0] for text in texts} == {"d"}
    assert find_copies(texts) == [] and "30 recordings repeat themselves" in caplog.text
    assert find_copies([texts[0]] * 30) == []
    assert (
        not FingerprintIndex(texts[:8]).contains(texts[8:10]).any()
        and not FingerprintIndex(texts[:1] * 8).contains(texts[:1]).any()
    )
    assert find_copies(texts[:8]) == [
        tuple(range(8))
    ]  # what several collections hold of one recording
    assert FingerprintIndex(texts[:3]).contains(texts[3:5]).all()


def test_any_number_of_copies_of_an_irregular_rhythm_is_found() -> None:
    text = compute_fingerprint(heart(0), 500.0)
    assert (
        find_copies([text] * 30) == [tuple(range(30))]
        and FingerprintIndex([text] * 30).contains([text]).all()
    )


def test_gaps_are_bridged() -> None:
    signal = heart(3)
    gap = signal.copy()
    gap[:, 1000:1010] = np.nan
    gap[5] = np.nan
    assert bits(signal, gap) < CLOSE


def test_copies_are_found_among_many_and_chained() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**63, (5000, 4), dtype=np.uint64)
    flips = np.packbits(rng.random((500, 256)) < 0.04, axis=1).view(np.uint64).reshape(-1, 4)
    flips[np.bitwise_count(flips).sum(axis=1) > CLOSE] = 0
    texts = [
        "1218b" + row.astype(">u8").tobytes().hex()
        for row in np.concatenate([words, words[:500] ^ flips, words[:1]])
    ]
    expected = [(0, 5000, 5500), *((i, 5000 + i) for i in range(1, 500))]
    assert sorted(find_copies(texts)) == expected
    found = FingerprintIndex(texts[:5000]).contains(texts[5000:])
    assert found.all() and not FingerprintIndex(texts[:1000]).contains(texts[1000:5000]).any()


def test_fingerprints_of_another_kind_match_nothing() -> None:
    assert find_copies(["0123456789abcdef"] * 2 + ["1218b", "3" * 69, "3" * 69]) == []
    assert FingerprintIndex([]).contains(["1" * 69]).tolist() == [False]


@pytest.mark.slow
def test_every_copy_in_real_collections_is_found_and_no_other(
    real_data: Callable[[str], Path],
) -> None:
    """Challenge 2021's HR records and the 500 Hz sample are PTB-XL's by number, but 00459, which
    was 00460's double.
    """
    names, prints = [], []
    for path in sorted(
        [
            *real_data("ptbxl100").rglob("*.hea"),
            *real_data("ptbxl500").rglob("*.hea"),
            *real_data("challenge2021").glob("*.hea"),
        ]
    ):
        record = read_record(path)
        names.append(
            f"{path.parents[0 if path.parent.name == 'challenge2021' else 2].name}/{path.stem}"
        )
        prints.append(
            compute_fingerprint(
                order_leads(record.signal, record.leads, STANDARD_LEADS).signal, record.fs
            )
        )
    number = {name: int(re.findall(r"\d+", name.split("/")[1])[0]) for name in names}
    number["ptbxl500/00459_hr"] = 460
    ours = [name for name in names if "/HR" in name or name.startswith("ptbxl")]
    homes: dict[int, list[str]] = {}
    for name in ours:
        homes.setdefault(number[name], []).append(name)
    expected = {tuple(sorted(copies)) for copies in homes.values() if len(copies) > 1}
    expected.add(("challenge2021/E07509", "challenge2021/E07510"))  # sample by sample the same
    assert {tuple(sorted(names[i] for i in group)) for group in find_copies(prints)} == expected
    assert (
        len(names) == 19_601 + 40 + 141 and sum(len(copies) for copies in expected) == 61 + 62 + 2
    )


def test_texts_that_are_no_fingerprints_match_nothing() -> None:
    broken = ["1" + "z" * 68, "x" * 69, "", "1218b"]
    assert find_copies(broken * 2) == []
    assert not FingerprintIndex(broken).contains(broken).any()


def found_again(signals: list[Float32Array], copies: list[Float32Array]) -> float:
    """Return the share of recordings at 500 Hz of which a copy is recognised."""
    found = [
        FingerprintIndex([compute_fingerprint(signal, 500.0)])
        .contains([compute_fingerprint(copy, 500.0)])
        .all()
        for signal, copy in zip(signals, copies, strict=True)
    ]
    return float(np.mean(found))


def without(signal: Float32Array, row: int, value: float = 0.0) -> Float32Array:
    """Return a recording with one lead that is flat, or missing for NaN."""
    changed = signal.copy()
    changed[row] = value
    return changed


@pytest.mark.parametrize("row", [0, 1, 7, 10, 3])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_copy_that_lacks_a_lead_is_found(row: int, value: float) -> None:
    signals = [heart(seed) for seed in range(6)]
    assert found_again(signals, [without(signal, row, value) for signal in signals]) == 1


@pytest.mark.parametrize(("start", "stop"), [(0, 4500), (1, 5000), (137, 5000), (500, 5000)])
def test_a_copy_that_is_cut_is_found(start: int, stop: int) -> None:
    signals = [heart(seed) for seed in range(6)]
    assert found_again(signals, [signal[:, start:stop] for signal in signals]) == 1


def test_prints_of_version_1_are_compared_by_their_first_seconds() -> None:
    now = compute_fingerprint(heart(0), 500.0)
    before = "1" + now[1:69]
    assert FingerprintIndex([before]).contains(
        [now, compute_fingerprint(heart(1), 500.0)]
    ).tolist() == [
        True,
        False,
    ]
    assert find_copies([before, now]) == [(0, 1)]
    cut = compute_fingerprint(heart(0)[:, :4500], 500.0)
    assert not FingerprintIndex([before]).contains([cut]).any()
    n_differing, n_compared = differing_bits([now, before], [cut, cut])
    assert n_differing[0] <= 7 and n_compared.tolist() == [256, 256] and n_differing[1] > CLOSE


@pytest.mark.slow
def test_copies_that_are_cut_or_lack_a_lead_are_found(real_data: Callable[[str], Path]) -> None:
    signals = []
    for path in [
        *sorted(real_data("ptbxl500").rglob("*.hea")),
        *sorted(real_data("challenge2021").glob("*.hea")),
    ]:
        record = read_record(path)
        if record.fs == 500.0 and record.n_samples >= 5000:
            ordered = order_leads(record.signal, record.leads, STANDARD_LEADS).signal
            signals.append(ordered[:, :5000])
    assert len(signals) > 100
    for row in (0, 1, 7, 10):
        # One of them has few leads that live.
        assert found_again(signals, [without(signal, row) for signal in signals]) > 0.99
    for start, stop in ((0, 4500), (0, 4750), (3, 5000), (137, 5000), (500, 5000)):
        assert found_again(signals, [signal[:, start:stop] for signal in signals]) > 0.97
