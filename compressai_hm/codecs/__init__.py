"""Codecs: CompressAI models with a view for machines. Never imports OpenMMLab."""

from .adaptation import AttentionBlock, DynamicAdaptation, ResidualBlock
from .human_machine import (
    HM_MODELS,
    HumanMachineMixin,
    HMCheng2020Anchor,
    HMCheng2020AnchorCheckerboard,
    HMCheng2020Attention,
    HMElic2022,
    HMJointAutoregressiveHierarchicalPriors,
    HMMeanScaleHyperprior,
    HMScaleHyperprior,
    picture_bits,
)

__all__ = [
    "AttentionBlock",
    "DynamicAdaptation",
    "ResidualBlock",
    "HM_MODELS",
    "HumanMachineMixin",
    "HMCheng2020Anchor",
    "HMCheng2020AnchorCheckerboard",
    "HMCheng2020Attention",
    "HMElic2022",
    "HMJointAutoregressiveHierarchicalPriors",
    "HMMeanScaleHyperprior",
    "HMScaleHyperprior",
    "picture_bits",
]
