"""Models that the command line and the app load once for all pictures."""

import logging
import sys
import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING

import torch
from torch import nn

from compressai_hm.zoo import load_checkpoint, load_model
from compressai_hm.zoo.released import RELEASED

if TYPE_CHECKING:
    from compressai_hm.detection import DetectorRegions

PEOPLE = "person/rtmdet_mobilenetv2.py,compressai_hm://person_detector.pth"
"""The package's detector, for --roi-detector people."""


def once(make: Callable) -> Callable:
    """Caches results of a function; concurrent calls wait for the first."""
    cached, lock = cache(make), threading.RLock()

    @wraps(make)
    def get(*args):
        with lock:
            return cached(*args)

    return get


@once
def load_weights(
    checkpoint: str | None, model: str | None, quality: int | None, metric: str
) -> nn.Module:
    """Loads a codec from a file or a zoo entry, onto a GPU if there is one."""
    if checkpoint:
        net = load_checkpoint(checkpoint, model)
    else:
        pretrained = True if model in RELEASED else "base"
        net = load_model(model, quality, metric, pretrained=pretrained)
    return net.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@once
def load_detector_regions(
    names: tuple[str, ...], gain: float, classes: tuple[str, ...]
) -> "DetectorRegions":
    """Loads the detectors of regions of interest.

    Args:
        names: Each is "people", CONFIG, or CONFIG,CHECKPOINT.
        gain: Quantization step outside of detections over the step inside.
        classes: Names of the classes that count; empty for all.
    """
    import _launch

    from compressai_hm.detection import DetectorRegions
    from compressai_hm.detection.configs import find_weights

    detectors = []
    for text in names:
        text = PEOPLE if text == "people" else text
        config, _, checkpoint = text.rpartition(",")
        if not config.endswith(".py"):
            config, checkpoint = text, ""
        if "::" not in config:
            config = str(_launch.find_config(config))
        checkpoint = checkpoint or find_weights(config)
        detectors.append(dict(config=config, checkpoint=checkpoint))
    quiet_openmmlab()
    regions = DetectorRegions(detectors, gain, only=classes or None)
    regions.load()
    return regions


def quiet_openmmlab() -> None:
    """Sends OpenMMLab's warnings to standard error, away from the results."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.setLevel("WARNING")
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.stream = sys.stderr
