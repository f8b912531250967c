"""Learned image compression for humans and machines with one bitstream.

Importing this package adds the HM models to CompressAI's registry and zoo. It needs
only torch and compressai; ``compressai_hm.detection`` also needs OpenMMLab.
"""

from . import zoo
from .bitstream.coding import FileCodec, decode, decode_to_latent, encode
from .bitstream.format import Bitstream
from .bitstream.picture_codec import PictureCodec
from .bitstream.reader import StreamReader, find_reader, load_reader
from .classical import CLASSICAL, ClassicalCodec
from .encoder.rate_control import encode_to_size
from .encoder.refinement import refine
from .encoder.regions import boxes_to_mask, importance_to_steps, mask_to_importance
from .entropy import BitstreamError, Family, Group, QuantSteps
from .models.adaptation import AttentionBlock, DynamicAdaptation, ResidualBlock
from .models.checkpoint import make_checkpoint, read_checkpoint
from .models.compact import HMCompact
from .models.compressai_based import (
    HMCheng2020Anchor,
    HMCheng2020AnchorCheckerboard,
    HMCheng2020Attention,
    HMElic2022,
    HMJointAutoregressiveHierarchicalPriors,
    HMMeanScaleHyperprior,
    HMScaleHyperprior,
)
from .models.entries import (
    DEFAULT_MODEL,
    DEFAULT_QUALITY,
    ENTRIES,
    HM_MODELS,
    ZooEntry,
)
from .models.human_machine import HumanMachineMixin, picture_bits
from .models.latent_backbone import LatentBackbone

__version__ = "0.1.0"

__all__ = [
    "CLASSICAL",
    "DEFAULT_MODEL",
    "DEFAULT_QUALITY",
    "ENTRIES",
    "HM_MODELS",
    "AttentionBlock",
    "Bitstream",
    "BitstreamError",
    "ClassicalCodec",
    "DynamicAdaptation",
    "Family",
    "FileCodec",
    "Group",
    "HMCheng2020Anchor",
    "HMCheng2020AnchorCheckerboard",
    "HMCheng2020Attention",
    "HMCompact",
    "HMElic2022",
    "HMJointAutoregressiveHierarchicalPriors",
    "HMMeanScaleHyperprior",
    "HMScaleHyperprior",
    "HumanMachineMixin",
    "LatentBackbone",
    "PictureCodec",
    "QuantSteps",
    "ResidualBlock",
    "StreamReader",
    "ZooEntry",
    "__version__",
    "boxes_to_mask",
    "decode",
    "decode_to_latent",
    "encode",
    "encode_to_size",
    "find_reader",
    "importance_to_steps",
    "load_reader",
    "make_checkpoint",
    "mask_to_importance",
    "picture_bits",
    "read_checkpoint",
    "refine",
    "zoo",
]
