"""Notes on a prediction: how much of the recording was used, absent leads, and quality flags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from src.classifier.inputs import InputFacts, NoInput
from src.learning.checkpoints import ModelCard


def list_notes(
    facts: Sequence[InputFacts], failures: Sequence[NoInput], card: ModelCard, long: str
) -> tuple[str, ...]:
    """Return the notes on a recording, each as ``kind:detail`` or ``kind``.

    Parameters
    ----------
    facts
        Of the inputs that its windows gave.
    failures
        Its windows that gave no input.
    card
        Card of the model.
    long
        As for `src.classifier.inputs.iter_parts`.
    """
    notes = _length_notes(facts, len(facts) + len(failures), card, long)
    if len(facts) > 1 or (facts and failures):
        unfit = [each.unfit for each in facts if each.unfit]
        # Where all are unfit, the reason of the row says so.
        if 0 < len(unfit) < len(facts):
            notes.append(f"unfit_windows:{len(unfit)} ({unfit[0]})")
        if failures:
            notes.append(f"rejected_windows:{len(failures)} ({failures[0].reason})")
    absent = _count(each.absent for each in facts)
    if absent:
        notes.append(f"absent:{' '.join(absent)}")
    for flag, n_windows in _count(each.flags for each in facts).items():
        is_everywhere = n_windows == len(facts)
        notes.append(flag if is_everywhere else f"{flag} in {n_windows} of {len(facts)} windows")
    return tuple(notes)


def _count(lists: Iterable[Sequence[str]]) -> Counter[str]:
    """Return in how many of the lists each text is, in the order of their appearance."""
    counts: Counter[str] = Counter()
    for texts in lists:
        # A set would lose the order.
        counts.update(list(dict.fromkeys(texts)))
    return counts


def _length_notes(
    facts: Sequence[InputFacts], n_windows: int, card: ModelCard, long: str
) -> list[str]:
    """Return the note on a recording longer or shorter than the input, if it is."""
    if n_windows > 1:
        return [f"windows:{n_windows} ({long})"]
    if not facts:
        return []
    settings = card.preprocess
    length_s = settings.window_s or settings.n_samples / settings.fs
    duration_s = facts[0].duration_s
    if facts[0].n_valid < round(length_s * settings.fs) - 1:
        return [f"short:{duration_s:.3g} of {length_s:g} s"]
    if long == "first" and duration_s * settings.fs > settings.n_samples + 1:
        return [f"cut:{length_s:g} of {duration_s:.4g} s"]
    return []
