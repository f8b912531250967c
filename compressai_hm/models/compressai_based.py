"""HM models based on CompressAI's codecs."""

import torch.nn as nn
from compressai.layers import MaskedConv2d, conv3x3
from compressai.models import (
    Cheng2020Anchor,
    Cheng2020AnchorCheckerboard,
    Cheng2020Attention,
    Elic2022Official,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from compressai.models.utils import deconv
from compressai.zoo.image import cfgs as _BASE
from torch import Tensor

from .adaptation import ResidualBlock
from .entries import EVERY_RATE, zoo_entry
from .gain import Gain, GainsMixin
from .human_machine import HumanMachineMixin


@zoo_entry("hm-bmshj2018-hyperprior", _BASE["bmshj2018-hyperprior"])
class HMScaleHyperprior(HumanMachineMixin, ScaleHyperprior):
    """Scale hyperprior (Ballé 2018) with g_t."""


@zoo_entry("hm-mbt2018-mean", _BASE["mbt2018-mean"])
class HMMeanScaleHyperprior(HumanMachineMixin, MeanScaleHyperprior):
    """Mean-scale hyperprior (Minnen 2018) with g_t."""


@zoo_entry("hm-mbt2018", _BASE["mbt2018"])
class HMJointAutoregressiveHierarchicalPriors(
    HumanMachineMixin, JointAutoregressiveHierarchicalPriors
):
    """Autoregressive context model and hyperprior (Minnen 2018) with g_t."""


@zoo_entry(
    "hm-mbt2018-vbr-s-v2",
    dict.fromkeys(EVERY_RATE, (64, 256)),
    g_t=dict(g_t_width=0),
    steps=EVERY_RATE,
    released=("mse", "person"),
)
class HMSmallVariableRate(
    GainsMixin, HumanMachineMixin, JointAutoregressiveHierarchicalPriors
):
    """One set of weights for every rate: mbt2018's entropy model with few weights.

    The latent is wide: even without quantization, 96 channels for 16x16x3 values would
    limit natural pictures to 29 or 30 dB, and 192 channels to 35 dB. The entropy model
    is narrow: its widths depend on N, not M. The transforms are bottleneck residual
    blocks behind a pixel unshuffle, which train in about half the time of those with
    GDN. The gains of the channels depend on the step. It has no g_t: it is for people,
    and readers are trained on its streams.

    Args:
        N: Half the channels of the entropy model; those of the transforms are 1.5 N,
            2 N and M. Even. Defaults to 64.
        M: Channels of the latent. Even. Defaults to 256.
        **kwargs: Arguments of :class:`HumanMachineMixin`.
    """

    blocks = (3, 5, 3)
    """Residual blocks at a quarter, an eighth and a sixteenth of the resolution."""

    def __init__(self, N: int = 64, M: int = 256, **kwargs):
        super().__init__(N=N, M=M, **kwargs)
        high, middle = N * 3 // 2, N * 2
        of_high, of_middle, of_latent = self.blocks
        self.g_a = nn.Sequential(
            nn.PixelUnshuffle(4),
            conv3x3(48, high),
            *(ResidualBlock(high) for _ in range(of_high)),
            conv3x3(high, middle, stride=2),
            *(ResidualBlock(middle) for _ in range(of_middle)),
            conv3x3(middle, M, stride=2),
            *(ResidualBlock(M) for _ in range(of_latent)),
        )
        self.g_s = nn.Sequential(
            *(ResidualBlock(M) for _ in range(of_latent)),
            deconv(M, middle, kernel_size=3),
            *(ResidualBlock(middle) for _ in range(of_middle)),
            deconv(middle, high, kernel_size=3),
            *(ResidualBlock(high) for _ in range(of_high)),
            conv3x3(high, 48),
            nn.PixelShuffle(4),
        )
        self.h_s = nn.Sequential(
            deconv(N, N),
            nn.LeakyReLU(inplace=True),
            deconv(N, N * 3 // 2),
            nn.LeakyReLU(inplace=True),
            conv3x3(N * 3 // 2, N * 2),
        )
        self.context_prediction = MaskedConv2d(M, N, kernel_size=5, padding=2)
        self.entropy_parameters = nn.Sequential(
            nn.Conv2d(N * 3, N * 4, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(N * 4, N * 4, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(N * 4, M * 2, 1),
        )
        self.gain, self.inverse_gain = Gain(M), Gain(M, shifts=True)

    @classmethod
    def _base_from_state_dict(cls, state_dict: dict[str, Tensor]):
        net = cls(*state_dict["h_a.0.weight"].shape[:2], g_t_width=0)
        net.load_state_dict(state_dict)
        return net


@zoo_entry("hm-cheng2020-anchor", _BASE["cheng2020-anchor"])
class HMCheng2020Anchor(HumanMachineMixin, Cheng2020Anchor):
    """Cheng 2020 without attention, with g_t: the paper's codec."""


@zoo_entry("hm-cheng2020-attn", _BASE["cheng2020-attn"])
class HMCheng2020Attention(HumanMachineMixin, Cheng2020Attention):
    """Cheng 2020 with attention, and g_t."""


@zoo_entry("hm-cheng2020-anchor-checkerboard", _BASE["cheng2020-anchor"])
class HMCheng2020AnchorCheckerboard(HumanMachineMixin, Cheng2020AnchorCheckerboard):
    """Cheng 2020 with a checkerboard context model (He 2021), and g_t."""


@zoo_entry("hm-elic2022", dict.fromkeys(range(1, 9), (192, 320)))
class HMElic2022(HumanMachineMixin, Elic2022Official):
    """ELIC (He 2022) with g_t."""

    @classmethod
    def _base_from_state_dict(cls, state_dict: dict[str, Tensor]):
        # CompressAI's from_state_dict infers neither M nor the groups.
        key = "latent_codec.y.latent_codec.y{}.context_prediction.weight"
        groups = []
        while key.format(len(groups)) in state_dict:
            groups.append(state_dict[key.format(len(groups))].size(1))
        net = cls(state_dict["g_a.0.weight"].size(0), sum(groups), groups)
        net.load_state_dict(state_dict)
        return net
