"""OpenMMLab side: ``custom_imports = dict(imports=['compressai_hm.detection'])``."""

from ..compat import install_mmcv_ops, load_checkpoints_safely

install_mmcv_ops()
load_checkpoints_safely()

from . import hooks  # noqa: E402
from .checkpoint import AtomicLocalBackend, load_codec_weights  # noqa: E402
from .datasets import CheckedCocoDataset, EmbeddedCocoDataset  # noqa: E402
from .detector import HumanMachineDetector  # noqa: E402
from .metrics import RateDistortionMetric  # noqa: E402
from .optim import HumanMachineOptimWrapperConstructor  # noqa: E402
from .preprocessor import HumanMachineDataPreprocessor  # noqa: E402
from .view import DetectorView  # noqa: E402

__all__ = [
    "AtomicLocalBackend",
    "CheckedCocoDataset",
    "DetectorView",
    "EmbeddedCocoDataset",
    "HumanMachineDataPreprocessor",
    "HumanMachineDetector",
    "HumanMachineOptimWrapperConstructor",
    "RateDistortionMetric",
    "hooks",
    "load_codec_weights",
]
