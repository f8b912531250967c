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

_LONGEST = 2.0
"""Most that a weight moves in one step, in learning rates. In the basis the bound is
about 1; but where an input that was silent begins to speak, all directions that hold it
may add up to twenty in one weight, step after step: trainings of codecs ended so."""


@OPTIMIZERS.register_module()
class SOAP(torch.optim.Optimizer):
    """Adam in a basis of its own for each convolution.

    The weight of a convolution, ``(C_out, C_in, kh, kw)``, has one basis for its
    outputs and one for its inputs. Sides of more than ``max_precondition_dim``, and
    other tensors, among them depthwise convolutions, stay in the basis that they have.
    Statistics begin with the first step, which moves nothing.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Of the mean and the square of the gradient. Defaults to 0.95 and 0.95.
        precondition_frequency: Steps from one update of the bases to the next. Defaults
            to 25.
        max_precondition_dim: Defaults to 256.
        eps: Added to the root of the square. Defaults to 1e-8.
        weight_decay: Decoupled, as AdamW's. Defaults to 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        precondition_frequency: int = 25,
        max_precondition_dim: int = 256,
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
            max_precondition_dim=max_precondition_dim,
            eps=eps,
            weight_decay=weight_decay,
            step=0,
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves the parameters; see torch's optimizers."""
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
        grad = _as_matrices(p.grad)
        if not state:
            largest = group["max_precondition_dim"]
            self._begin(state, grad, largest, _is_dense(p))
        beta1, beta2 = group["betas"]
        if number % _STATISTICS_EVERY == 0:
            _take_statistics(state, grad, beta2**_STATISTICS_EVERY)
        if number % group["precondition_frequency"] == 0:
            _turn(state)
        grad = _changed(grad, state.get("basis_out"), state.get("basis_in"))
        mean = state["mean"].lerp_(grad, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        if number == 1:
            return
        bias = math.sqrt(1 - beta2**number) / (1 - beta1**number)
        move = mean / square.sqrt().add_(group["eps"])
        if beta1**2 < beta2:  # Adam's own bound, which a turn of the basis may pass
            most = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
            move.clamp_(-most, most)
        move = _changed(move, _t(state.get("basis_out")), _t(state.get("basis_in")))
        move.clamp_(-_LONGEST, _LONGEST)
        if group["weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(_as_weight(move, p), alpha=-group["lr"] * bias)

    def _begin(
        self, state: dict[str, Any], grad: Tensor, largest: int, dense: bool
    ) -> None:
        state["mean"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
        for side, dim in (("out", 1), ("in", 2)) if dense else ():
            if grad.shape[dim] <= largest:
                state[f"statistics_{side}"] = own = _statistics(grad, side)
                basis = torch.linalg.eigh(own).eigenvectors
                state[f"basis_{side}"] = basis.contiguous()


def _is_dense(weight: Tensor) -> bool:
    return weight.ndim == 4 and min(weight.shape[:2]) > 1


def _as_matrices(grad: Tensor) -> Tensor:
    """Of a convolution, one matrix for each place of its kernel: (kh kw, out, in)."""
    if not _is_dense(grad):
        return grad
    return grad.permute(2, 3, 0, 1).reshape(-1, *grad.shape[:2])


def _as_weight(move: Tensor, p: Tensor) -> Tensor:
    if move.shape == p.shape:
        return move
    return move.view(*p.shape[2:], *p.shape[:2]).permute(2, 3, 0, 1)


def _statistics(grad: Tensor, side: str) -> Tensor:
    """Of outputs, sum of G G^T; of inputs, of G^T G."""
    rows = grad.transpose(0, 1) if side == "out" else grad.permute(2, 0, 1)
    rows = rows.reshape(len(rows), -1)
    return rows @ rows.t()


def _take_statistics(state: dict[str, Any], grad: Tensor, beta: float) -> None:
    for side in ("out", "in"):
        if f"basis_{side}" in state:
            own = state[f"statistics_{side}"]
            own.lerp_(_statistics(grad, side), 1 - beta)


def _turn(state: dict[str, Any]) -> None:
    """Turns the bases by one round of power iteration, and both moments with them.

    Columns are orthogonalized in falling order of their eigenvalues: of a small one,
    rounding leaves a vector of any direction, which would push a large one aside.
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
    state["mean"] = _changed(state["mean"], *turns)
    # The components in the basis are hardly correlated: their squares simply mix.
    squares = (None if turn is None else turn.square() for turn in turns)
    state["square"] = _changed(state["square"], *squares)


def _changed(x: Tensor, out: Tensor | None, into: Tensor | None) -> Tensor:
    """out^T x in, where there are such."""
    if out is not None:
        x = out.t() @ x
    return x if into is None else x @ into


def _t(basis: Tensor | None) -> Tensor | None:
    return None if basis is None else basis.t()
