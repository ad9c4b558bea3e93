"""Augmentation of training batches, on the device of the batch, with torch's random numbers.

The transforms run in one order, whatever the order of their names: crop, limb-swap, gain,
lead-gain, shift; then wander, noise, hum and offset, which are added; then transforms of the
user's; then lead-subset, lead-dropout and mixup.

Padding and absent leads stay as they are, since networks tell by the zeros what is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from src.config import TrainConfig, parse_augment
from src.learning.interference import (
    LEAD_SUBSETS,
    draw_hum,
    draw_noise,
    draw_offset,
    draw_wander,
    limb_swap_maps,
    mains_below,
)
from src.utils import import_object, import_path, printable, restore_rng_state, rng_state

# The packed cache restores zeros within half a step of its codes, far below this.
_SILENCE = 1e-3
# A compiled network is compiled again for a new length, but not for each of many.
_N_LENGTHS = 8


@dataclass(frozen=True)
class SignalFacts:
    """What a transform may know of the signals of a batch.

    Attributes
    ----------
    fs
        Hz.
    leads
        Names of the leads, in their order.
    per_mv
        What 1 mV is in the unit of the signals, shape (B, 1, 1) or (1, 1, 1); 1 with the
        normalization ``zscore``, where the unit is the standard deviation of the lead.
    """

    fs: float
    leads: tuple[str, ...]
    per_mv: torch.Tensor


Transform = Callable[[torch.Tensor, torch.Tensor, SignalFacts], tuple[torch.Tensor, torch.Tensor]]
"""Signals (B, n_leads, T), targets (B, n_outputs) and facts to signals and targets as large.

Targets are NaN where not annotated.
"""

_ADDED: Mapping[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "wander": draw_wander,
    "noise": draw_noise,
    "hum": draw_hum,
    "offset": draw_offset,
}


# The pipeline -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """The transforms of a training run; call it with the signals, targets and rows of a batch.

    Attributes
    ----------
    strengths
        Name -> strength, of those in `src.config.AUGMENTATIONS`.
    transforms
        Transforms of the user's, by their import path.
    fs, leads
        As in `SignalFacts`.
    per_mv
        As in `SignalFacts`, of each record of the training dataset, or a single one for all.
    is_same_scale
        Whether all leads of a record have one unit.
    device
        The torch device of the batches.
    """

    strengths: Mapping[str, float] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    fs: float = 0.0
    leads: tuple[str, ...] = ()
    per_mv: torch.Tensor = field(default_factory=lambda: torch.ones(1))
    is_same_scale: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.strengths.get("hum") and not mains_below(self.fs):
            raise ValueError(
                f"augment has hum, but signals of {self.fs:g} Hz hold none of 50 or 60 Hz: "
                "expected a higher --fs of preprocess, or no hum"
            )
        if self.strengths.get("limb-swap") and not len(self._limb_swaps):
            raise ValueError(
                f"augment has limb-swap, but the network has the leads {', '.join(self.leads)}: "
                "expected I and II among them, or all six limb leads with zscore"
            )

    def __call__(
        self, signal: torch.Tensor, target: torch.Tensor, row: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented signals (B, n_leads, T) and targets (B, n_outputs) of a batch.

        Parameters
        ----------
        signal, target
            Of the batch, on its device.
        row
            Row of each record in the training dataset, on the CPU.
        """
        strength = self.strengths.get
        signal = cut_lengths(signal, round(strength("crop", 0.0) * self.fs))
        if share := strength("limb-swap", 0.0):
            signal = swap_limbs(signal, share, self._limb_swaps)
        signal = scale_records(signal, strength("gain", 0.0))
        signal = scale_leads(signal, strength("lead-gain", 0.0))
        signal = shift_in_time(signal, round(strength("shift", 0.0) * self.fs))
        if self._added or self.transforms:
            signal, target = self._disturb(signal, target, self.facts(row))
        if share := strength("lead-subset", 0.0):
            signal = keep_subsets(signal, share, self._subsets)
        signal = drop_leads(signal, strength("lead-dropout", 0.0))
        return mix_records(signal, target, strength("mixup", 0.0))

    def facts(self, row: torch.Tensor) -> SignalFacts:
        """Return what transforms may know of the records of a batch."""
        per_mv = self.per_mv if len(self.per_mv) == 1 else self.per_mv[row]
        return SignalFacts(
            self.fs, self.leads, per_mv[:, None, None].to(self.device, non_blocking=True)
        )

    def _disturb(
        self, signal: torch.Tensor, target: torch.Tensor, facts: SignalFacts
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch with disturbances added, and through the transforms of the user's."""
        exists = find_samples(signal)
        if self._added:
            drawn = [_ADDED[name](signal, most, self.fs) for name, most in self._added.items()]
            # Offsets have one sample, which stands for all.
            total = sum(drawn[1:], drawn[0]) * facts.per_mv
            signal = torch.addcmul(signal, total, exists.to(signal.dtype))
        for transform in self.transforms.values():
            changed, target = transform(signal, target, facts)
            signal = torch.where(exists, changed, signal)
        return signal, target

    @cached_property
    def _added(self) -> dict[str, float]:
        """The disturbances that are added, with their strengths."""
        return {name: self.strengths[name] for name in _ADDED if self.strengths.get(name)}

    @cached_property
    def _limb_swaps(self) -> torch.Tensor:
        return limb_swap_maps(self.leads, self.is_same_scale).to(self.device)

    @cached_property
    def _subsets(self) -> torch.Tensor:
        """Masks (n_subsets, n_leads) of the sets of leads that are part of the network's."""
        masks = []
        for names in LEAD_SUBSETS:
            mask = torch.tensor([lead in names.split() for lead in self.leads])
            if mask.any() and not mask.all():
                masks.append(mask)
        found = torch.stack(masks) if masks else torch.ones(1, len(self.leads), dtype=torch.bool)
        return found.to(self.device)

    def try_transforms(self, n_samples: int, n_outputs: int) -> None:
        """Try the transforms of the user's on two records; the random numbers stay as they were.

        Raises
        ------
        ValueError
            If one fails or returns something else.
        """
        if not self.transforms:
            return
        before = rng_state()
        shape = (2, len(self.leads), n_samples)
        for name, transform in self.transforms.items():
            signal = torch.randn(shape, device=self.device)
            target = torch.zeros(2, n_outputs, device=self.device)
            facts = self.facts(torch.zeros(2, dtype=torch.long))
            try:
                problem = _find_problem(transform(signal, target, facts), signal, target)
            # A function of the user's may fail in any way.
            except Exception as error:  # noqa: BLE001
                problem = f"failed with {printable(f'{type(error).__name__}: {error}')}"
            if problem:
                raise ValueError(
                    f"augment {name}: {problem}; expected transform(signal, target, facts) to "
                    f"return a signal {shape} and a target {(2, n_outputs)}"
                )
        restore_rng_state(before)


def _find_problem(found: object, signal: torch.Tensor, target: torch.Tensor) -> str:
    """Return what is wrong with what a transform returned, or an empty string."""
    if not isinstance(found, tuple) or len(found) != 2:
        return f"returned a {type(found).__name__}"
    for name, value, given in (("signal", found[0], signal), ("target", found[1], target)):
        if not isinstance(value, torch.Tensor):
            return f"returned a {type(value).__name__} as {name}"
        if (value.shape, value.dtype) != (given.shape, given.dtype):
            dtype = str(value.dtype).removeprefix("torch.")
            return f"returned a {name} of shape {tuple(value.shape)} and type {dtype}"
        if value.device != given.device:
            return f"returned a {name} on {value.device} where it was on {given.device}"
        if not torch.isfinite(value).all():
            return f"returned a {name} that is not finite"
    return ""


def build_augmentation(
    config: TrainConfig,
    transform: Transform | None = None,
    *,
    fs: float = 0.0,
    per_mv: torch.Tensor | None = None,
    device: str = "cpu",
) -> Augmentation:
    """Return the augmentation of the settings.

    Parameters
    ----------
    config
        `augment`, and the older settings of two of its transforms.
    transform
        A transform of the user's that runs after those of the settings.
    fs
        Hz.
    per_mv
        As in `Augmentation`; by default 1.
    device
        The torch device of the batches.

    Raises
    ------
    ValueError
        If a transform cannot be imported, or the signals cannot hold one.
    """
    strengths, paths = parse_augment(config.augment)
    strengths = {"lead-dropout": config.lead_dropout, "mixup": config.mixup, **strengths}
    # What they take and return is tried before the first epoch.
    transforms: dict[str, Transform] = {
        path: import_object(path)  # type: ignore[misc]
        for path in paths
    }
    if transform is not None:
        transforms[import_path(transform)] = transform
    return Augmentation(
        strengths,
        transforms,
        fs,
        config.leads,
        torch.ones(1) if per_mv is None else per_mv,
        config.normalization != "zscore",
        device,
    )


def find_samples(signal: torch.Tensor) -> torch.Tensor:
    """Return a mask (B, n_leads, T) of samples that are neither padding nor of an absent lead."""
    is_present = (signal != 0).any(dim=2, keepdim=True)  # (B, n_leads, 1)
    position = torch.arange(signal.shape[2], device=signal.device)
    return is_present & (position < _count_samples(signal)[:, None])[:, None]


def _count_samples(signal: torch.Tensor) -> torch.Tensor:
    """Return the number of samples before the padding of each record, shape (B,)."""
    is_loud = signal.abs().amax(dim=1) > _SILENCE  # (B, T)
    position = torch.arange(1, signal.shape[2] + 1, device=signal.device)
    return (is_loud * position).amax(dim=1)


# Time ---------------------------------------------------------------------------------------------


def cut_lengths(signal: torch.Tensor, shortest: int) -> torch.Tensor:
    """Cut a batch to a random length from `shortest` to its own, at a random place in each record.

    Parameters
    ----------
    signal
        Shape (B, n_leads, T).
    shortest
        Samples; 0 changes nothing.
    """
    n_records, n_leads, longest = signal.shape
    if not 0 < shortest < longest:
        return signal
    step = int(torch.randint(_N_LENGTHS, ()))
    length = longest - (longest - shortest) * step // (_N_LENGTHS - 1)
    span = (_count_samples(signal) - length).clamp(min=0)
    start = (torch.rand(n_records, device=signal.device) * (span + 1)).long()
    columns = start[:, None, None] + torch.arange(length, device=signal.device)
    return signal.gather(2, columns.expand(-1, n_leads, -1))


def shift_in_time(signal: torch.Tensor, most: int) -> torch.Tensor:
    """Shift each record by up to `most` samples; what leaves it at one end enters at the other.

    Padding stays at the end.
    """
    if not most:
        return signal
    shift = torch.randint(-most, most + 1, (len(signal), 1), device=signal.device)
    position = torch.arange(signal.shape[2], device=signal.device).expand(len(signal), -1)
    n_valid = _count_samples(signal)[:, None]
    source = torch.where(
        position < n_valid, (position - shift).remainder(n_valid.clamp(min=1)), position
    )
    return signal.gather(2, source[:, None].expand(-1, signal.shape[1], -1))


# Voltages -----------------------------------------------------------------------------------------


def scale_records(signal: torch.Tensor, most: float) -> torch.Tensor:
    """Multiply each record by a factor from 1 - `most` to 1 + `most`."""
    if not most:
        return signal
    return signal * (1 + most * (2 * torch.rand(len(signal), 1, 1, device=signal.device) - 1))


def scale_leads(signal: torch.Tensor, most: float) -> torch.Tensor:
    """Multiply each lead by a factor of its own from 1 - `most` to 1 + `most`."""
    if not most:
        return signal
    return signal * (1 + most * (2 * torch.rand(*signal.shape[:2], 1, device=signal.device) - 1))


# Leads --------------------------------------------------------------------------------------------


def swap_limbs(signal: torch.Tensor, share: float, maps: torch.Tensor) -> torch.Tensor:
    """Swap two limb electrodes of a share of the records; see `limb_swap_maps`.

    Records that lack a lead which a swap concerns are left as they are.
    """
    device, n_records = signal.device, len(signal)
    number = torch.randint(len(maps), (n_records,), device=device)
    is_chosen = torch.rand(n_records, device=device) < share
    identity = torch.eye(signal.shape[1], device=device)
    concerned = (maps != identity).any(dim=0).any(dim=1)  # (n_leads,)
    is_complete = ((signal != 0).any(dim=2) | ~concerned).all(dim=1)
    chosen = (is_chosen & is_complete)[:, None, None]
    return torch.where(chosen, maps[number], identity) @ signal


def keep_subsets(signal: torch.Tensor, share: float, subsets: torch.Tensor) -> torch.Tensor:
    """Zero all leads but those of a device with fewer, in a share of the records.

    Parameters
    ----------
    signal
        Shape (B, n_leads, n_samples).
    share
        Probability that a record loses leads. One that would have none left keeps all.
    subsets
        Masks of the sets of leads, shape (n_subsets, n_leads), one of which is drawn.
    """
    n_records, device = len(signal), signal.device
    kept = subsets[torch.randint(len(subsets), (n_records,), device=device)]  # (B, n_leads)
    is_chosen = torch.rand(n_records, 1, device=device) < share
    has_any = ((signal != 0).any(dim=2) & kept).any(dim=1, keepdim=True)
    lost = ~kept & is_chosen & has_any
    return signal.masked_fill(lost[:, :, None], 0.0)


def drop_leads(signal: torch.Tensor, share: float) -> torch.Tensor:
    """Zero some leads of a share of the records, to train for records that lack leads.

    Parameters
    ----------
    signal
        Shape (B, n_leads, n_samples).
    share
        Probability that a record loses leads: a random number of them, at least one and never all.
    """
    n_records, n_leads = signal.shape[:2]
    if not share or n_leads == 1:
        return signal
    device = signal.device
    # A random order of the leads of each record, of which the first `n_lost` are dropped
    order = torch.rand(n_records, n_leads, device=device).argsort(dim=1)
    n_lost = torch.randint(1, n_leads, (n_records, 1), device=device)
    is_chosen = torch.rand(n_records, 1, device=device) < share
    lost = (order < n_lost) & is_chosen  # (B, n_leads)
    return signal.masked_fill(lost[:, :, None], 0.0)


# Records ------------------------------------------------------------------------------------------


def mix_records(
    signal: torch.Tensor, target: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend records and targets with others of the batch (mixup: Zhang et al., ICLR 2018).

    Parameters
    ----------
    signal
        Shape (B, n_leads, n_samples).
    target
        Shape (B, n_classes). An entry that is NaN in either record is NaN in the blend.
    alpha
        Both parameters of the beta distribution of the share; 0 changes nothing.
    """
    if not alpha:
        return signal, target
    # Two gamma draws make a beta draw. They come from torch's generator, so a resumed run repeats
    # them.
    draws = torch._standard_gamma(torch.full((2,), alpha))
    share = float(draws[0] / draws.sum().clamp(min=1e-12))
    partner = torch.randperm(len(signal), device=signal.device)
    return torch.lerp(signal[partner], signal, share), torch.lerp(target[partner], target, share)
