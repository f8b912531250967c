import copy

import pytest
import torch

from compressai_hm.detection import SOAP


def convolution(*shape):
    torch.manual_seed(0)
    return torch.nn.Parameter(torch.randn(shape))


def tilted(weight, steep):
    """A quadratic whose axes lie across outputs and inputs."""
    out, into = (torch.linalg.qr(torch.randn(n, n)).Q for n in weight.shape[:2])
    curvature = steep ** torch.linspace(0, 1, weight[..., 0, 0].numel())

    def loss(w):
        turned = torch.einsum("oihw,op,iq->pqhw", w, out, into)
        return (turned.flatten(0, 1).square() * curvature[:, None, None]).sum()

    return loss


def after(optimizer, weight, loss, steps=200):
    for _ in range(steps):
        optimizer.zero_grad()
        loss(weight).backward()
        optimizer.step()
    return float(loss(weight).detach())


@pytest.mark.parametrize("kernel", [1, 3])
def test_it_finds_the_axes_that_adam_does_not(kernel):
    start = convolution(12, 8, kernel, kernel)
    loss, ends = tilted(start, 1e4), {}
    for make in (SOAP, torch.optim.Adam):
        weight = torch.nn.Parameter(start.detach().clone())
        ends[make] = after(make([weight], lr=0.02), weight, loss)
    assert ends[SOAP] < 0.1 * ends[torch.optim.Adam]


@pytest.mark.parametrize("shape", [(7,), (5, 3, 3), (6, 1, 3, 3), (300, 300, 1, 1)])
def test_what_has_no_basis_is_adams(shape):
    """A bias, a prior's matrices, a depthwise convolution, too many channels."""
    start, ends = convolution(*shape), []
    target = torch.randn(shape)
    for make in (SOAP, torch.optim.Adam):
        weight = torch.nn.Parameter(start.detach().clone())
        optimizer = make([weight], lr=0.01, betas=(0.9, 0.95))
        for step in range(9):
            optimizer.zero_grad()
            (3 * weight - target).square().sum().backward()
            optimizer.step()
            if not step and make is SOAP:
                assert torch.equal(weight, start)
            elif not step:  # Adam's first step is taken back
                weight.detach().copy_(start.detach())
        ends.append(weight.detach())
    assert (ends[0] - start).abs().mean() > 1e-3
    assert torch.allclose(*ends, atol=1e-4)


def test_a_turn_leaves_the_moments_in_proportion():
    """Of silent inputs, and of outputs whose gradients are rounding beside others'."""
    weight = convolution(24, 16, 1, 1)
    out, into = (torch.linalg.qr(torch.randn(n, n)).Q for n in (24, 16))
    scales = 10.0 ** torch.linspace(-8, 0, 24)[:, None]
    optimizer = SOAP([weight], precondition_frequency=5)
    for step in range(1, 201):
        grad = out @ (scales * torch.randn(24, 16)) @ into
        grad[:, :6] = 0
        before = weight.detach().clone()
        weight.grad = grad[..., None, None]
        optimizer.step()
        state = optimizer.state[weight]
        if step % 5 == 0:
            ratio = state["mean"].abs() / (state["square"].sqrt() + 1e-8)
            assert ratio.max() < 1.5
        assert (weight - before).abs().max() < 2.3e-3


def test_it_resumes_exactly():
    start = convolution(6, 4, 3, 3)
    loss, results = tilted(start, 100.0), []
    for resumed in (False, True):
        weight = torch.nn.Parameter(start.detach().clone())
        optimizer = SOAP([weight], lr=0.01, precondition_frequency=7)
        after(optimizer, weight, loss, 40)
        if resumed:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = SOAP([weight], lr=0.5)
            optimizer.load_state_dict(state)
        after(optimizer, weight, loss, 40)
        results.append(weight.detach().clone())
    assert torch.equal(*results)


def test_weights_decay_and_numbers_are_checked():
    weight = convolution(4, 4, 1, 1)
    before = weight.detach().clone()
    optimizer = SOAP([weight], lr=0.1, weight_decay=0.5)
    for _ in range(2):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert torch.allclose(weight, before * 0.95)
    for wrong in (
        dict(lr=-1.0),
        dict(betas=(0.9, 1.0)),
        dict(precondition_frequency=0),
    ):
        with pytest.raises(ValueError, match="SOAP"):
            SOAP([weight], **wrong)
