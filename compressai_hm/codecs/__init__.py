"""Codecs: CompressAI models with a view for machines. Never imports OpenMMLab."""

from .adaptation import AttentionBlock, DynamicAdaptation, ResidualBlock
from .anchors import ANCHORS, Anchor
from .container import Bitstream, decode, encode
from .entropy import BitstreamError
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
from .latent_backbone import LatentBackbone
from .readers import StreamReader, find_reader, load_reader
from .refinement import refine

__all__ = [
    "ANCHORS",
    "HM_MODELS",
    "Anchor",
    "AttentionBlock",
    "Bitstream",
    "BitstreamError",
    "DynamicAdaptation",
    "HMCheng2020Anchor",
    "HMCheng2020AnchorCheckerboard",
    "HMCheng2020Attention",
    "HMElic2022",
    "HMJointAutoregressiveHierarchicalPriors",
    "HMMeanScaleHyperprior",
    "HMScaleHyperprior",
    "HumanMachineMixin",
    "LatentBackbone",
    "ResidualBlock",
    "StreamReader",
    "decode",
    "encode",
    "find_reader",
    "load_reader",
    "picture_bits",
    "refine",
]
