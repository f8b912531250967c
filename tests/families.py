"""Tiny models of every family, whose weights are the same on every machine."""

import numpy as np
import pytest
import torch
from torch import nn

from compressai_hm import HM_MODELS

NAMES = tuple(HM_MODELS)

families = pytest.mark.parametrize("name", NAMES)
WIDTHS = {"hm-elic2022": (16, 24, [4, 4, 8, 8])}


def tiny(name, **kwargs):
    """Untrained; g_t of 8 channels at half resolution."""
    kwargs = {"g_t_width": 8, "g_t_downscale": 2, **kwargs}
    default = (16,) if "cheng2020" in name else (16, 24)
    return HM_MODELS[name](*WIDTHS.get(name, default), **kwargs)


def busy(name, **kwargs):
    """Tiny, with latents that are not all zero."""
    net = tiny(name, **kwargs).eval()
    last = [m for m in net.g_a.modules() if isinstance(m, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight *= 100
    return net


def portable(name):
    """Tiny, of weights made from integers: NumPy promises RandomState's stream."""
    net = tiny(name).eval()
    rng = np.random.RandomState(0)
    with torch.no_grad():
        for key, p in sorted(net.named_parameters()):
            drawn = torch.from_numpy(rng.randint(-64, 65, p.shape)).float()
            if "entropy_bottleneck" in key:
                if "biases" in key:
                    p.copy_(drawn / 128)
            elif p.ndim == 4:
                bits = 4 + (p[0].numel() // 16).bit_length() // 2
                bits += 3 * key.startswith(("g_", "groups"))
                bits += 4 * ("predict.4" in key)  # logarithms of scales
                bits += 7 * ("gate" in key)  # it is squared
                p.copy_(drawn * 2.0**-bits)
            elif "beta" not in key and "gamma" not in key:
                p.copy_(drawn / 256)
    return net


def drawn_latents(net, height, width, batch=1, seed=0):
    """y and z for pictures of 64 height x 64 width, with some outliers."""
    rng = np.random.RandomState(seed)
    coder = net.latent_coder()
    channels = coder.groups[-1].channels.stop

    def draw(c, h, w, spread):
        x = rng.randint(-(2**12), 2**12, (batch, c, h, w)) / 2**12
        x = x**3 * spread
        x.flat[:: max(1, x.size // 5)] *= 40
        return torch.from_numpy(x).float()

    return (
        draw(channels, 4 * height, 4 * width, 12),
        draw(len(coder.medians), height, width, 6),
    )
