"""HM models based on CompressAI's codecs."""

from compressai.models import (
    Cheng2020Anchor,
    Cheng2020AnchorCheckerboard,
    Cheng2020Attention,
    Elic2022Official,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from compressai.zoo.image import cfgs as _BASE
from torch import Tensor

from .entries import zoo_entry
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
