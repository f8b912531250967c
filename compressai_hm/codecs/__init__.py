"""Codecs: CompressAI models with a view for machines. Never imports OpenMMLab."""

from .adaptation import AttentionBlock, DynamicAdaptation, ResidualBlock
from .human_machine import (
    HM_MODELS,
    HMCheng2020Anchor,
    HMCheng2020AnchorCheckerboard,
    HMCheng2020Attention,
    HMElic2022,
    HMJointAutoregressiveHierarchicalPriors,
    HMMeanScaleHyperprior,
    HMScaleHyperprior,
    HumanMachineMixin,
    picture_bits,
)

__all__ = [
    "HM_MODELS",
    "AttentionBlock",
    "DynamicAdaptation",
    "HMCheng2020Anchor",
    "HMCheng2020AnchorCheckerboard",
    "HMCheng2020Attention",
    "HMElic2022",
    "HMJointAutoregressiveHierarchicalPriors",
    "HMMeanScaleHyperprior",
    "HMScaleHyperprior",
    "HumanMachineMixin",
    "ResidualBlock",
    "picture_bits",
]
