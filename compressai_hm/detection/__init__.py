"""OpenMMLab side: ``custom_imports = dict(imports=['compressai_hm.detection'])``."""

from ..compat import (
    index_instances_anywhere,
    install_mmcv_ops,
    load_checkpoints_safely,
    quiet_imports,
)

index_instances_anywhere()
install_mmcv_ops()
load_checkpoints_safely()
with quiet_imports():
    import mmdet.datasets
    import mmdet.evaluation
    import mmdet.models  # noqa: F401

from mmdet.registry import MODELS  # noqa: E402

from ..codecs import LatentBackbone  # noqa: E402
from . import hooks  # noqa: E402
from .attention import Attention  # noqa: E402
from .checkpoint import AtomicLocalBackend, load_codec_weights  # noqa: E402
from .datasets import (  # noqa: E402
    CheckedCocoDataset,
    DrawnCocoDataset,
    PictureFolder,
)
from .detector import HumanMachineDetector  # noqa: E402
from .distilled_detector import DistilledRTMDet  # noqa: E402
from .latent_detector import LatentHumanMachineDetector  # noqa: E402
from .losses import (  # noqa: E402
    DetectorLoss,
    FeatureLoss,
    MachineLoss,
    ObjectFeatureLoss,
    PseudoLabelLoss,
)
from .metrics import RateDistortionMetric  # noqa: E402
from .optim import HumanMachineOptimWrapperConstructor  # noqa: E402
from .preprocessor import HumanMachineDataPreprocessor  # noqa: E402
from .soap import SOAP  # noqa: E402
from .transforms import LoadCachedImage, RandomDownscale  # noqa: E402
from .view import DetectorView  # noqa: E402

MODELS.register_module(module=LatentBackbone)

__all__ = [
    "SOAP",
    "AtomicLocalBackend",
    "Attention",
    "CheckedCocoDataset",
    "DetectorLoss",
    "DetectorView",
    "DistilledRTMDet",
    "DrawnCocoDataset",
    "FeatureLoss",
    "HumanMachineDataPreprocessor",
    "HumanMachineDetector",
    "HumanMachineOptimWrapperConstructor",
    "LatentHumanMachineDetector",
    "LoadCachedImage",
    "MachineLoss",
    "ObjectFeatureLoss",
    "PictureFolder",
    "PseudoLabelLoss",
    "RandomDownscale",
    "RateDistortionMetric",
    "hooks",
    "load_codec_weights",
]
