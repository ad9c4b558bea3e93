"""Muon: momentum whose steps are orthogonalized, for the kernels of a network (Jordan et al.,
2024).

``torch.optim.Muon`` takes matrices only; here a kernel (n_out, n_in, width) counts as the matrix
(n_out, n_in * width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

_STEPS = 5
_A, _B, _C = (
    3.4445,
    -4.7750,
    2.0315,
)  # the quintic of Jordan et al., which takes singular values of 0 to 1 to about 1


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return about the nearest matrix whose singular values are all 1, by five Newton-Schulz steps.

    Parameters
    ----------
    matrix
        Shape (m, n).

    Notes
    -----
    A step is ``x = factor @ x``, and all factors are polynomials of the first ``x @ x.T``. So they
    are worked out, and multiplied, on square matrices of the shorter side alone.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    product = factor = _factor(gram)
    for _ in range(_STEPS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    x = product @ x
    return x.T if is_tall else x


def _factor(gram: torch.Tensor) -> torch.Tensor:
    """Return what a step multiplies x by, for ``gram = x @ x.T``."""
    factor = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
    factor.diagonal().add_(_A)
    return factor


class Muon(torch.optim.Optimizer):
    """Stochastic gradient descent with Nesterov momentum and orthogonalized steps.

    Parameters
    ----------
    params
        Tensors of two dimensions or more, or groups of them.
    lr
        Size of a step; tall kernels step further by the root of height over width.
    momentum
        Share of the old momentum kept.
    weight_decay
        Decoupled, times `lr`.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; a closure is not supported."""
        if closure is not None:
            raise ValueError("closure is given: expected None, since Muon evaluates nothing anew")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        step = orthogonalize(torch.lerp(gradient, state["momentum"], group["momentum"]).flatten(1))
        stretch = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(step.view_as(parameter), alpha=-group["lr"] * stretch)
