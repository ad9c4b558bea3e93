"""Checks that the networks share: of their arguments, and of the signals that they get."""

from __future__ import annotations

from torch import Tensor

MAX_LEADS = 4096
MAX_CLASSES = 65536


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError unless an argument is a whole number from `low` to `high`."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}: expected a whole number from {low} to {high}")


def check_outside(n_leads: int, n_classes: int) -> None:
    """Raise ValueError unless there are leads and classes, in numbers that are no mistake."""
    check_whole("n_leads", n_leads, 1, MAX_LEADS)
    check_whole("n_classes", n_classes, 1, MAX_CLASSES)


def check_dropout(name: str, value: float) -> None:
    """Raise ValueError unless an argument is a share that dropout can take."""
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}: expected a number from 0 to less than 1")


def check_flag(name: str, value: bool) -> None:
    """Raise ValueError unless an argument is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: expected true or false")


def check_signal(x: Tensor, n_leads: int, min_samples: int) -> None:
    """Raise ValueError unless a signal has shape (B, n_leads, `min_samples` or more)."""
    if x.ndim != 3 or x.shape[1] != n_leads or x.shape[2] < min_samples:
        raise ValueError(
            f"input has shape {tuple(x.shape)}: expected (batch, {n_leads} leads, "
            f"{min_samples} samples or more)"
        )
