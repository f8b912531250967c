"""The OpenMMLab part: datasets, models, losses, hooks and metrics for MMDetection.

Configs load it with ``custom_imports = dict(imports=['compressai_hm.detection'])``.
"""

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

from .datasets.coco import (  # noqa: E402
    CheckedCocoDataset,
    DrawnCocoDataset,
    PictureFolder,
)
from .datasets.transforms import LoadCachedImage, RandomDownscale  # noqa: E402
from .engine import hooks  # noqa: E402
from .engine.atomic_backend import AtomicLocalBackend  # noqa: E402
from .engine.optim import HumanMachineOptimWrapperConstructor  # noqa: E402
from .engine.soap import SOAP  # noqa: E402
from .load import load_codec_weights  # noqa: E402
from .losses import (  # noqa: E402
    DetectorLoss,
    FeatureLoss,
    HeadLoss,
    MachineLoss,
    ObjectFeatureLoss,
    PseudoLabelLoss,
)
from .models.detector import HumanMachineDetector  # noqa: E402
from .models.distilled_detector import DistilledRTMDet  # noqa: E402
from .models.latent_detector import LatentHumanMachineDetector  # noqa: E402
from .models.preprocessor import HumanMachineDataPreprocessor  # noqa: E402
from .models.staged_backbone import StagedLatentBackbone  # noqa: E402
from .rate_distortion_metric import RateDistortionMetric  # noqa: E402
from .regions import DetectorRegions  # noqa: E402
from .stream_detector import StreamDetector  # noqa: E402
from .view import DetectorView  # noqa: E402

__all__ = [
    "SOAP",
    "AtomicLocalBackend",
    "CheckedCocoDataset",
    "DetectorLoss",
    "DetectorRegions",
    "DetectorView",
    "DistilledRTMDet",
    "DrawnCocoDataset",
    "FeatureLoss",
    "HeadLoss",
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
    "StagedLatentBackbone",
    "StreamDetector",
    "hooks",
    "load_codec_weights",
]
