"""Codecs: CompressAI models with a view for machines. Never imports OpenMMLab."""

from .adaptation import AttentionBlock, DynamicAdaptation, ResidualBlock
from .checkpoint import checkpoint_of, read_checkpoint
from .classical import CLASSICAL, ClassicalCodec
from .container import Bitstream, decode, encode
from .entropy import BitstreamError, Family, Group, Steps
from .human_machine import HumanMachineMixin, picture_bits
from .latent_backbone import LatentBackbone
from .models import *  # noqa: F403
from .models import __all__ as _models
from .picture_codec import PictureCodec
from .rate import encode_to_size
from .readers import StreamReader, find_reader, load_reader
from .refinement import refine
from .regions import importance_of_mask, map_of_importance, mask_of_boxes

__all__ = [
    "AttentionBlock",
    "Bitstream",
    "BitstreamError",
    "CLASSICAL",
    "ClassicalCodec",
    "DynamicAdaptation",
    "Family",
    "Group",
    "HumanMachineMixin",
    "LatentBackbone",
    "PictureCodec",
    "ResidualBlock",
    "Steps",
    "StreamReader",
    "checkpoint_of",
    "decode",
    "encode",
    "encode_to_size",
    "find_reader",
    "load_reader",
    "importance_of_mask",
    "map_of_importance",
    "mask_of_boxes",
    "picture_bits",
    "read_checkpoint",
    "refine",
    *_models,
]
