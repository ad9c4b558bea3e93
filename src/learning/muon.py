"""Muon: momentum with orthogonalized steps, for convolution kernels (Jordan et al., 2024).

``torch.optim.Muon`` takes matrices only. Here a kernel (n_out, n_in, width) counts as the matrix
(n_out, n_in * width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

_STEPS = 5

# Coefficients of the quintic of Jordan et al., which maps singular values from 0 to 1 to about 1
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix near the given one whose singular values are all about 1.

    Parameters
    ----------
    matrix
        Shape (m, n).

    Returns
    -------
    Tensor
        Shape (m, n).

    Notes
    -----
    This takes five Newton-Schulz steps ``x = factor @ x``. All factors are polynomials of the first
    ``x @ x.T``, so they are computed and multiplied as square matrices of the shorter side.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if is_tall else matrix
    # The steps converge for singular values up to 1.
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
    """Return the factor of a step, for ``gram = x @ x.T``."""
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
        Learning rate. Steps of tall matrices are longer by the root of height over width.
    momentum
        Share of the old momentum kept.
    weight_decay
        Decoupled weight decay, scaled by `lr`.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; a closure is not supported."""
        if closure is not None:
            raise ValueError("closure is given: expected None, since Muon does not re-evaluate")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        """Change one parameter by its gradient."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        # Nesterov: look ahead along the new momentum.
        ahead = torch.lerp(gradient, momentum, group["momentum"])
        step = orthogonalize(ahead.flatten(1))  # (n_out, n_in * width)
        stretch = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(step.view_as(parameter), alpha=-group["lr"] * stretch)
