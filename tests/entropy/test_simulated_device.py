"""The coder on a device: what it gives, and how often the host waits for it."""

import numpy as np
import pytest
import torch

from compressai_hm.entropy import LatentCoder, QuantSteps, find_family, places
from compressai_hm.entropy.order import ORDERS

from ..families import drawn_latents, families, portable
from ..simulated_device import DEVICE, simulated_device

STEPS = QuantSteps(150, np.arange(-48, 48).reshape(8, 12).astype(np.int8) // 8)


def coder_on(net, device):
    return LatentCoder(find_family(net), net._present_tables(), device)


@families
@pytest.mark.parametrize(
    ("float64", "steps"),
    [(True, None), (True, [STEPS, QuantSteps()]), (False, [STEPS, QuantSteps()])],
)
def test_a_device_codes_what_the_cpu_codes(name, float64, steps):
    net = portable(name)
    y, z = drawn_latents(net, 2, 3, batch=2)
    on_cpu = net.latent_coder()
    coded, measured = on_cpu.encode(y, z, steps), on_cpu.measure(y, z, steps)
    with simulated_device(float64):
        coder = coder_on(net, DEVICE)
        assert coder.device.type == ("cuda" if float64 else "cpu")
        assert coder.fingerprint() == on_cpu.fingerprint()
        there = y.to(DEVICE), z.to(DEVICE)
        again = coder.encode(*there, steps)
        assert again.strings == coded.strings
        y_hat, symbols = coder.decode(*coded.strings, (2, 3), steps)
        out = coder.measure(*there, steps)
        assert out["y_hat"].device == out["likelihoods"]["z"].device == DEVICE
        assert torch.equal(y_hat.cpu().float(), measured["y_hat"])
        assert torch.equal(out["y_hat"].cpu(), measured["y_hat"])
        for key, p in measured["likelihoods"].items():
            assert torch.equal(out["likelihoods"][key].cpu(), p)
    for found, also, expected in zip(
        symbols, again.symbols, coded.symbols, strict=True
    ):
        assert (found == expected).all() and (also == expected).all()


@families
def test_the_host_seldom_waits(name):
    """To code, as often for any size; to decode, twice a step.

    Also with a map of steps, and at the first picture of a size.
    """
    net = portable(name)
    y, z = drawn_latents(net, 4, 3)
    height, width = y.shape[-2:]
    steps = [QuantSteps(150, np.ones((height, width), np.int8))]
    with simulated_device() as device:
        coder, there = coder_on(net, DEVICE), (y.to(DEVICE), z.to(DEVICE))
        count = sum(
            len([*ORDERS[group.order](height, width)]) for group in coder.groups
        )

        def cost(do, *args):
            places._places.cache_clear()
            launches, waits = device.launches, device.waits
            do(*args, steps)
            return (device.launches - launches) / count, device.waits - waits

        strings = coder.encode(*there, steps).strings
        # For each kernel of a context, and for which width z has.
        most = 2 + len({group.taps for group in coder.groups}) + coder.tells
        assert cost(coder.encode, *there)[1] <= most
        assert cost(coder.measure, *there)[1] <= most
        launches, waits = cost(coder.decode, *strings, (4, 3))
        assert waits <= 2 * count + 1 + 2 * len(coder.groups)
        if count > 30:  # else most are not of the steps
            assert launches <= 50


@families
def test_a_training_pass_waits_once(name):
    """Are the pictures in [0, 1]? And for the map of steps, if there is one.

    Once more where gains depend on it.
    """
    net = portable(name).train()
    x = torch.rand(2, 3, 128, 190)

    def trained(x, steps):
        torch.manual_seed(1)
        out = net.code_latent(net.analyze(x), steps)
        return [out["y_hat"], *out["likelihoods"].values()]

    every = [(None, 1), ([QuantSteps(100), STEPS], 2 + hasattr(net, "gain"))]
    expected = [trained(x, steps) for steps, _ in every]
    with simulated_device() as device:
        net.to(DEVICE)
        there = x.to(DEVICE)
        for (steps, most), on_cpu in zip(every, expected, strict=True):
            waits = device.waits
            out = trained(there, steps)
            assert device.waits - waits <= most
            for found, own in zip(out, on_cpu, strict=True):
                torch.testing.assert_close(found.detach().cpu(), own.detach())


def test_the_simulated_device_raises_and_counts():
    with simulated_device() as device:
        x = torch.arange(4.0).to(DEVICE)
        with pytest.raises(RuntimeError, match="on cuda:0 and on the CPU"):
            x + torch.ones(4)
        with pytest.raises(RuntimeError, match="numpy"):
            x.numpy()
        assert (device.launches, device.waits) == (0, 1)
        x[1:].add_(1)
        assert (device.launches, device.waits) == (1, 1)
        assert x.sum() == 9 and x.cpu().tolist() == x.tolist() == [0, 2, 3, 4]
        assert (device.launches, device.waits) == (3, 4)
        layer = torch.nn.Linear(4, 1).to(DEVICE)
        with pytest.raises(RuntimeError, match="on cuda:0 and on the CPU"):
            layer(torch.ones(4))
        assert layer(torch.tensor([0.0, 1, 2, 3], device=DEVICE)).device == DEVICE
    with simulated_device(float64=False), pytest.raises(TypeError, match="float64"):
        torch.zeros(1, dtype=torch.float64, device=DEVICE)
