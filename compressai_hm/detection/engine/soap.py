"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

N. Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024. Codecs train
in far fewer steps with it than with Adam (Y. Zhang and F. Zhu, "Leveraging Second-Order
Curvature for Efficient Learned Image Compression", 2026). A step here costs about a
fifth of a codec's forward and backward pass on one core: the first moment is kept in
the eigenbasis, so that a step needs two changes of basis in place of three, and the
statistics of the basis take every fourth gradient.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.registry import OPTIMIZERS
from torch import Tensor

_STATISTICS_EVERY = 4
_LONGEST_SIDE = 256

_LONGEST_MOVE = 2.0
"""Largest move of a weight in one step, in learning rates. In the basis the bound is
about 1. But when an input that was always 0 becomes active, the moves of all directions
that contain it may add up to 20 in one weight, step after step. Trainings of codecs
diverged this way."""


@OPTIMIZERS.register_module()
class SOAP(torch.optim.Optimizer):
    """Adam in a basis of its own for each convolution.

    The weight of a convolution, ``(C_out, C_in, kh, kw)``, has one basis for its
    outputs and one for its inputs. A side of more than 256 channels keeps
    its original basis, and so do other tensors, among them depthwise convolutions. The
    first step only initializes the statistics, and moves nothing.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate. Defaults to 1e-3.
        betas: Decay of the means of the gradient and of its square. Defaults to 0.95
            and 0.95.
        precondition_frequency: Steps from one update of the bases to the next. Defaults
            to 25.
        eps: Added to the root of the square. Defaults to 1e-8.
        weight_decay: Decoupled weight decay, as AdamW's. Defaults to 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        precondition_frequency: int = 25,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        if lr < 0 or eps < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"SOAP: lr={lr}, betas={betas} or eps={eps} is no such")
        if precondition_frequency < 1:
            raise ValueError(
                f"SOAP: precondition_frequency must be 1 or more, got "
                f"{precondition_frequency}"
            )
        defaults = dict(
            lr=lr,
            betas=tuple(betas),
            precondition_frequency=precondition_frequency,
            eps=eps,
            weight_decay=weight_decay,
            step=0,
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves the parameters; see torch's optimizers.

        Args:
            closure: Computes the loss again. Defaults to None.

        Returns:
            The closure's loss; None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["step"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group)
        return loss

    def _move(self, p: Tensor, group: dict[str, Any]) -> None:
        state, number = self.state[p], group["step"]
        grad = _to_matrices(p.grad)
        if not state:
            self._begin(state, grad, _is_dense(p))
        beta1, beta2 = group["betas"]
        if number % _STATISTICS_EVERY == 0:
            _update_statistics(state, grad, beta2**_STATISTICS_EVERY)
        if number % group["precondition_frequency"] == 0:
            _turn_bases(state)
        grad = _change_basis(grad, state.get("basis_out"), state.get("basis_in"))
        mean = state["mean"].lerp_(grad, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        if number == 1:
            return
        bias = math.sqrt(1 - beta2**number) / (1 - beta1**number)
        move = mean / square.sqrt().add_(group["eps"])
        if beta1**2 < beta2:  # Adam's bound, which a turn of the basis may exceed
            most = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
            move.clamp_(-most, most)
        bases = (state.get(f"basis_{side}") for side in ("out", "in"))
        move = _change_basis(move, *(None if b is None else b.t() for b in bases))
        move.clamp_(-_LONGEST_MOVE, _LONGEST_MOVE)
        if group["weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(_to_weight(move, p), alpha=-group["lr"] * bias)

    def _begin(self, state: dict[str, Any], grad: Tensor, dense: bool) -> None:
        state["mean"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
        for side, dim in (("out", 1), ("in", 2)) if dense else ():
            if grad.shape[dim] <= _LONGEST_SIDE:
                statistics = _compute_statistics(grad, side)
                basis = torch.linalg.eigh(statistics).eigenvectors
                state[f"statistics_{side}"] = statistics
                state[f"basis_{side}"] = basis.contiguous()


def _is_dense(weight: Tensor) -> bool:
    return weight.ndim == 4 and min(weight.shape[:2]) > 1


def _to_matrices(grad: Tensor) -> Tensor:
    """Turns a convolution's weight into (kh kw, out, in); leaves others as they are."""
    if not _is_dense(grad):
        return grad
    return grad.permute(2, 3, 0, 1).reshape(-1, *grad.shape[:2])


def _to_weight(move: Tensor, p: Tensor) -> Tensor:
    """Turns matrices back into the shape of a weight."""
    if move.shape == p.shape:
        return move
    return move.view(*p.shape[2:], *p.shape[:2]).permute(2, 3, 0, 1)


def _compute_statistics(grad: Tensor, side: str) -> Tensor:
    """Returns the sum of G G^T for the outputs, or of G^T G for the inputs."""
    rows = grad.transpose(0, 1) if side == "out" else grad.permute(2, 0, 1)
    rows = rows.reshape(len(rows), -1)
    return rows @ rows.t()


def _update_statistics(state: dict[str, Any], grad: Tensor, beta: float) -> None:
    for side in ("out", "in"):
        if f"basis_{side}" in state:
            state[f"statistics_{side}"].lerp_(_compute_statistics(grad, side), 1 - beta)


def _turn_bases(state: dict[str, Any]) -> None:
    """Turns the bases by one round of power iteration, and both moments with them.

    Columns are orthogonalized in falling order of their eigenvalues. Rounding leaves a
    vector of arbitrary direction for a small eigenvalue, which must not displace the
    vector of a large one.
    """
    turns = []
    for side in ("out", "in"):
        if f"basis_{side}" not in state:
            turns.append(None)
            continue
        old = state[f"basis_{side}"]
        powers = state[f"statistics_{side}"] @ old
        order = (old * powers).sum(0).argsort(descending=True)
        new = torch.linalg.qr(powers[:, order]).Q
        state[f"basis_{side}"] = new
        turns.append(old.t() @ new)
    state["mean"] = _change_basis(state["mean"], *turns)
    # The components in the basis are hardly correlated, so their squares simply mix.
    squares = (None if turn is None else turn.square() for turn in turns)
    state["square"] = _change_basis(state["square"], *squares)


def _change_basis(x: Tensor, out: Tensor | None, into: Tensor | None) -> Tensor:
    """Returns out^T x into, leaving out the bases that are None."""
    if out is not None:
        x = out.t() @ x
    return x if into is None else x @ into
