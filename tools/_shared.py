"""Models that the command line and the app load once for all pictures."""

import logging
import sys
import threading
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from compressai_hm import DEFAULT_MODEL, ENTRIES, Bitstream, BitstreamError, find_reader
from compressai_hm.zoo import cfgs, load_checkpoint, load_model
from compressai_hm.zoo.released import RELEASED, SCHEME, WEIGHTS, weights_file

if TYPE_CHECKING:
    from compressai_hm.detection import DetectorRegions, StreamDetector

READERS = [Path("work_dirs")]
"""Folders that are searched for readers."""

LATENT_PEOPLE = "person/rtmdet_latent.py"
_LATENT_SCORES = 0.15, 0.3
"""Thresholds for regions: on the latent the detector is less sure than on pictures."""

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


def load_for_stream(
    stream: Bitstream,
    checkpoint: str | None = None,
    model: str | None = None,
    quality: int | None = None,
    metric: str | None = None,
) -> nn.Module:
    """Loads the codec that decodes a file; what is not given is the file's.

    Args:
        stream: The file's content.
        checkpoint: File of weights. Defaults to None.
        model: Zoo entry, or the registered name of the checkpoint's model.
        quality: Quality of the zoo entry.
        metric: Metric of the zoo entry.

    Raises:
        BitstreamError: If the file does not say which weights it needs.
    """
    metric = metric or stream.metric
    if checkpoint or model:
        return load_weights(checkpoint, model, quality, metric)
    if not stream.quality or stream.model not in cfgs:
        raise BitstreamError(f"give the weights with --checkpoint: {stream.weights()}")
    quality = 1 if ENTRIES[stream.model].steps else stream.quality
    return load_weights(None, stream.model, quality, metric)


@once
def load_stream_detector(
    model: str | None,
    metric: str,
    reader: str | None = None,
    detector: str | None = None,
    score_thr: float = 0.0,
) -> "StreamDetector":
    """Loads a detector that reads streams.

    Args:
        model: Zoo entry that coded the streams.
        metric: What its weights were trained for.
        reader: Name or file of a reader; None for the package's for these weights.
        detector: Its detector, CONFIG,CHECKPOINT; None for the package's.
        score_thr: The lowest score of detections.
    """
    from compressai_hm.detection import StreamDetector
    from compressai_hm.detection.configs import raise_threshold

    if reader is None:
        reader, config, checkpoint = _find_latent_people(model, metric)
    else:
        config, checkpoint = _split_detector(detector)
    quiet_openmmlab()
    found = StreamDetector(find_reader(reader, READERS), config, checkpoint)
    raise_threshold(found.module, score_thr)
    return found


def _find_latent_people(model: str | None, metric: str) -> tuple[str, str, str]:
    """Returns the package's reader of people for a codec, and its detector."""
    name = weights_file(model or "", metric).removesuffix(".npz")
    path = WEIGHTS / f"{name}.people.reader"
    if not path.is_file():
        others = sorted(p.name.split(".")[0] for p in WEIGHTS.glob("*.people.reader"))
        raise ValueError(
            f"the package has no reader of people for the latents of {name or 'these'}"
            f"; it has those for {', '.join(others) or 'none'}"
        )
    config, _ = _split_detector(f"{LATENT_PEOPLE},")
    return str(path), config, f"{SCHEME}{model}.people.pth"


def _split_detector(text: str) -> tuple[str, str]:
    """Returns the path or name of CONFIG[,CHECKPOINT]'s config, and the checkpoint."""
    import _launch

    config, _, checkpoint = text.rpartition(",")
    if not config.endswith(".py"):
        config, checkpoint = text, ""
    if "::" not in config:
        config = str(_launch.find_config(config))
    return config, checkpoint


@once
def load_detector_regions(
    names: tuple[str, ...],
    gain: float,
    classes: tuple[str, ...],
    model: str = DEFAULT_MODEL,
    metric: str = "mse",
) -> "DetectorRegions":
    """Loads the detectors of regions of interest.

    Args:
        names: Each is "people", "latent", CONFIG, or CONFIG,CHECKPOINT.
        gain: Quantization step outside of detections over the step inside.
        classes: Names of the classes that count; empty for all.
        model: Zoo entry of the codec, for "latent".
        metric: What its weights were trained for, for "latent".
    """
    from compressai_hm.detection import DetectorRegions
    from compressai_hm.detection.configs import find_weights

    detectors = []
    for text in names:
        if text == "latent":
            reader, config, checkpoint = _find_latent_people(model, metric)
            entry = dict(
                config=config,
                checkpoint=checkpoint,
                reader=reader,
                score_thr=_LATENT_SCORES,
            )
        else:
            config, checkpoint = _split_detector(PEOPLE if text == "people" else text)
            checkpoint = checkpoint or find_weights(config)
            entry = dict(config=config, checkpoint=checkpoint)
        detectors.append(entry)
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
