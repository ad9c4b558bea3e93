"""Losses of training: their choice, unknown classes, label smoothing, and auxiliary outputs.

A loss function of one's own takes three tensors of shape (B, n_classes): logits, targets without
NaN, and which targets are known. It returns the loss of each entry, which is averaged here over
those that are known, or one number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from src.config import SINGLE_LABEL_LOSSES
from src.learning.distributed import Processes
from src.utils import import_object, import_path, printable, restore_rng_state, rng_state

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A loss of logits (B, n_outputs) and targets (B, n_outputs), which are NaN where not annotated."""

LossFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, targets and mask of the known, each (B, n_classes), to (B, n_classes) or one number.

Targets lie between 0 and 1, and are of no meaning where the mask is False.
"""

FOCAL_GAMMA = 2.0
BALANCED_POWER = 0.3
ASYMMETRIC_GAMMA_NEGATIVE, ASYMMETRIC_GAMMA_POSITIVE, ASYMMETRIC_CLIP = 4.0, 1.0, 0.05


# Functions ----------------------------------------------------------------------------------------


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy; logits of unknown classes are left out of the softmax."""
    return nn.functional.cross_entropy(_leave_out_unknown(logits, known), target)


def balanced_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy in which rare classes weigh more, averaged over the batch.

    The weight of a class is its share of the batch to the power of -0.3: a class that is a hundred
    times rarer weighs four times as much. Weights of the inverse share would give a class of a few
    records as much weight as all others.
    """
    weights = target.mean(dim=0).clamp(min=0.5 / len(target)) ** -BALANCED_POWER
    of_record = (target * weights).sum(dim=1)
    known_logits = _leave_out_unknown(logits, known)
    losses = nn.functional.cross_entropy(known_logits, target, reduction="none")
    return (losses * of_record).sum() / of_record.sum().clamp(min=1e-6)


def _leave_out_unknown(logits: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return logits of which those of unknown classes add nothing to a softmax."""
    # Half of the most negative number: minus infinity times a share of 0 would be NaN.
    return logits.masked_fill(~known, torch.finfo(logits.dtype).min / 2)


def binary_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, _: torch.Tensor
) -> torch.Tensor:
    """Return the binary cross-entropy of each entry."""
    return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def focal_loss(logits: torch.Tensor, target: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return the focal loss of each entry (Lin et al., ICCV 2017; gamma 2, classes alike).

    Between 0 and 1, targets weigh by their distance from the probability (Li et al., NeurIPS 2020),
    which is the same at 0 and 1.
    """
    loss = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (target - logits.sigmoid()).abs() ** FOCAL_GAMMA * loss


def asymmetric_loss(logits: torch.Tensor, target: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return the asymmetric loss of each entry (Ridnik et al., ICCV 2021).

    Its gammas are 4 for absent and 1 for present classes. Probabilities of absent classes are
    lowered by 0.05 first, so that those below it do not count.
    """
    probability = logits.sigmoid()
    lowered = (probability - ASYMMETRIC_CLIP).clamp(min=0)
    present = (1 - probability) ** ASYMMETRIC_GAMMA_POSITIVE * nn.functional.logsigmoid(logits)
    absent = lowered**ASYMMETRIC_GAMMA_NEGATIVE * torch.log1p(-lowered)
    return -(target * present + (1 - target) * absent)


_FUNCTIONS: dict[str, LossFunction] = {
    "bce": binary_cross_entropy,
    "cross-entropy": cross_entropy,
    "balanced": balanced_cross_entropy,
    "focal": focal_loss,
    "asymmetric": asymmetric_loss,
}


def choose_loss(name: str, single_label: bool) -> LossFunction:
    """Return the loss function of a name or an import path.

    Parameters
    ----------
    name
        ``auto`` is cross-entropy with one label per record, else the binary cross-entropy. Or
        ``bce``, ``cross-entropy``, ``balanced``, ``focal``, ``asymmetric``, or
        ``package.module:function``.
    single_label
        Whether each record carries exactly one class.

    Raises
    ------
    ValueError
        If there is no such function, or it is a cross-entropy with several labels per record.
    """
    if name == "auto":
        name = "cross-entropy" if single_label else "bce"
    if name in SINGLE_LABEL_LOSSES and not single_label:
        raise ValueError(
            f"loss is {name}, but records carry several labels: expected bce, focal, "
            "asymmetric or auto, or --target single"
        )
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    # What it takes and returns is tried before the first epoch.
    function: LossFunction = import_object(name)  # type: ignore[assignment]
    return function


def try_loss(function: LossFunction, name: str, n_classes: int, device: str) -> None:
    """Try a loss function on two records, of which one class is unknown.

    Parameters
    ----------
    function
        The function. The random numbers of the run stay as they were.
    name
        Its name for the error message.
    n_classes
        Number of classes.
    device
        Where training computes it. Validation computes it on the CPU.

    Raises
    ------
    ValueError
        If it fails, or returns something else than losses with finite gradients.
    """
    before = rng_state()
    for where in dict.fromkeys((device, "cpu")):
        logits = torch.linspace(-1, 1, 2 * n_classes, device=where).reshape(2, n_classes)
        logits.requires_grad_()
        target = torch.zeros_like(logits, requires_grad=False)
        target[0, 0] = 1
        known = torch.ones_like(target, dtype=torch.bool)
        known[1, -1] = False
        try:
            problem = _find_loss_problem(function(logits, target, known), logits)
        # A function of the user's may fail in any way.
        except Exception as error:  # noqa: BLE001
            problem = f"failed with {printable(f'{type(error).__name__}: {error}')}"
        if problem:
            raise ValueError(
                f"loss {name}: {problem}; expected function(logits, targets, known), each of "
                f"shape (2, {n_classes}), to return the losses (2, {n_classes}) or one number"
            )
    restore_rng_state(before)


def _find_loss_problem(values: object, logits: torch.Tensor) -> str:
    """Return what is wrong with the losses that a function returned, or an empty string."""
    if not isinstance(values, torch.Tensor):
        return f"returned a {type(values).__name__}"
    if values.shape not in (logits.shape, ()):
        return f"returned the shape {tuple(values.shape)}"
    if not torch.isfinite(values).all():
        return "returned numbers that are not finite"
    if not values.requires_grad:
        return "returned numbers without a gradient"
    (gradient,) = torch.autograd.grad(values.sum(), logits, allow_unused=True)
    if gradient is None or not torch.isfinite(gradient).all():
        return "has no finite gradient by the logits"
    return ""


def prepare_loss(
    loss: str | LossFunction, single_label: bool, n_classes: int, device: str
) -> LossFunction:
    """Return a loss function by its name, or a given one; one from elsewhere is tried first.

    Raises
    ------
    ValueError
        As from `choose_loss` and `try_loss`.
    """
    function = choose_loss(loss, single_label) if isinstance(loss, str) else loss
    if function not in _FUNCTIONS.values():
        try_loss(function, name_loss(loss, single_label), n_classes, device)
    return function


def name_loss(loss: str | LossFunction, single_label: bool) -> str:
    """Return the name of a loss for logs and reports."""
    if not isinstance(loss, str):
        return import_path(loss)
    if loss == "auto":
        return "cross-entropy" if single_label else "binary cross-entropy"
    return "binary cross-entropy" if loss == "bce" else loss


# The loss of a run --------------------------------------------------------------------------------


def make_loss(
    single_label: bool,
    label_smoothing: float = 0.0,
    processes: Processes | None = None,
    function: LossFunction | None = None,
) -> Loss:
    """Return the loss for targets (B, n_classes) that are NaN where not annotated.

    Parameters
    ----------
    single_label
        Whether each record carries exactly one class.
    label_smoothing
        Share of the target that is spread evenly over the annotated classes with one label per
        record, else over yes and no (Szegedy et al., CVPR 2016).
    processes
        The processes of a distributed run, which must all compute the loss at the same time. Losses
        of entries are averaged over the annotated entries of the whole batch: the mean of the
        losses of all processes is the loss that one process would have, and so are the gradients.
    function
        The loss function; by default that of ``auto``.
    """
    everyone = processes or Processes()
    chosen = function or choose_loss("auto", single_label)

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        known = ~target.isnan()
        soft = _smooth(target.nan_to_num(), known, label_smoothing, single_label)
        values = chosen(logits, soft, known)
        if not values.ndim:
            return values
        return values.masked_fill(~known, 0).sum() / everyone.mean_count(known.sum())

    return loss


def _smooth(
    target: torch.Tensor, known: torch.Tensor, share: float, single_label: bool
) -> torch.Tensor:
    """Return targets (B, n_classes) of which a share is spread evenly."""
    if not single_label:
        return target * (1 - share) + 0.5 * share
    # One-hot, or two classes where mixup blends two records
    uniform = known / known.sum(dim=1, keepdim=True).clamp(min=1)
    return target * (1 - share) + uniform * share


def with_auxiliary(
    main: Loss, n_classes: int, weight: float, processes: Processes | None = None
) -> Loss:
    """Return `main` on the first `n_classes` outputs plus a loss of the auxiliary ones.

    Parameters
    ----------
    main
        Loss of the classes.
    n_classes
        Number of classes; the outputs after them are auxiliary.
    weight
        Weight of the binary cross-entropy of the auxiliary outputs.
    processes
        As for `make_loss`.
    """
    auxiliary = make_loss(single_label=False, processes=processes)

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        main_loss = main(logits[:, :n_classes], target[:, :n_classes])
        return main_loss + weight * auxiliary(logits[:, n_classes:], target[:, n_classes:])

    return loss
