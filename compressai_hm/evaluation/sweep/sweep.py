"""The points that a config names, and their files.

::

    <work_dir>/streams/<codec>/<quality>-<digest>/<picture>-<digest>    coded files
    <work_dir>/points/<codec>/<quality>/<set>.json                      measurements
    <work_dir>/times/<codec>/<quality>/<set>.json                       seconds

The digests in a stream's path are of its codec's settings and of its picture.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from .config_checks import check_device
from .digests import value_digest
from .picture_set import PictureSet
from .sweep_codec import (
    SweepCodec,
    Uncompressed,
    build_coder,
    check_codec,
    codec_digest,
)

UNCOMPRESSED = "uncompressed"
"""Name of the points without a codec."""


@dataclass(frozen=True)
class Point:
    """One codec at one quality on one set.

    Args:
        codec: Index of the codec in the config; -1 for uncompressed pictures.
        quality: The codec's quality, or the index of its checkpoint or step.
        set: Index of the set in the config.
    """

    codec: int
    quality: int
    set: int


class Sweep:
    """The points of a config, and the codecs and sets that they name.

    The config has these entries:

    - ``codecs``: dicts with ``name``, and either ``type`` (a classical codec or a zoo
      entry) and ``qualities``, or ``checkpoints`` (files of HM codecs; a ``type`` that
      ``custom_imports`` registers). One checkpoint or quality of an HM codec can have
      ``steps``, quantization steps that make a curve. Further keys are ``metric``,
      ``pretrained``, ``refine`` (iterations), ``config`` (of the training whose loss
      they lower) and ``detector_regions`` (arguments of :class:`DetectorRegions`).
    - ``sets``: see :class:`PictureSet`. A detector of a set is a dict with ``name``,
      ``config`` and ``checkpoint``, and with ``classes`` if they are not the set's.
    - ``anchor``: name of the codec that all others are compared with.
    - ``seeds``: see :func:`.over_seeds`. Optional.
    - ``table1``: arguments of :func:`.table1`. Optional.
    - ``dial``: see :func:`.report.write`. Optional.

    Args:
        cfg: The config.
        work_dir: Folder for all results.
        device: Device of HM codecs, detectors and metrics. Defaults to "cpu". Points
            that were finished on another device remain finished, although floating
            point differs between devices.

    Raises:
        ValueError: If the config names something that does not exist, or the device
            cannot be used.
    """

    def __init__(self, cfg: Config, work_dir: str | Path, device: str = "cpu"):
        self.cfg, self.work_dir, self.device = cfg, Path(work_dir), device
        check_device(device)
        if cfg.get("custom_imports"):  # each worker's process needs them
            import_modules_from_strings(**cfg.custom_imports)
        _check_names(cfg)
        self.qualities = [check_codec(codec) for codec in cfg.codecs]
        self.sets = [PictureSet(entry) for entry in cfg.sets]
        _check_seeds(cfg)
        self._set_digests = [pictures.digest() for pictures in self.sets]
        self._codec_digests = {
            (c, q): codec_digest(codec, q)
            for c, codec in enumerate(cfg.codecs)
            for q in self.qualities[c]
        }

    def points(self) -> list[Point]:
        """Returns all points, first the uncompressed ones of sets with detectors."""
        sets = range(len(self.sets))
        reference = [Point(-1, 0, s) for s in sets if self.sets[s].detectors]
        return reference + [
            Point(c, quality, s)
            for s in sets
            for c, qualities in enumerate(self.qualities)
            for quality in qualities
        ]

    def coder(self, point: Point) -> SweepCodec:
        """Returns the codec that codes the pictures of a ``point``."""
        if point.codec < 0:
            return SweepCodec(Uncompressed())
        return build_coder(self.cfg.codecs[point.codec], point.quality, self.device)

    def name(self, point: Point) -> str:
        """Returns the name of the codec of a ``point``."""
        return UNCOMPRESSED if point.codec < 0 else self.cfg.codecs[point.codec].name

    def stream_file(self, point: Point, picture: Path) -> Path:
        """Returns the path of the coded file of a ``picture`` at a ``point``."""
        settings = self._codec_digests[point.codec, point.quality]
        folder = self.work_dir / "streams" / self.name(point)
        digest = self.sets[point.set].digests[picture]
        return folder / f"{point.quality}-{settings}" / f"{picture.name}-{digest:08x}"

    def result_file(self, point: Point, kind: str = "points") -> Path:
        """Returns the path of a point's results.

        Args:
            point: The point.
            kind: "points" for the measurements (default), "times" for the seconds.
        """
        folder = self.work_dir / kind / self.name(point) / str(point.quality)
        return folder / f"{self.cfg.sets[point.set].name}.json"

    def digest(self, point: Point) -> str:
        """Returns 8 characters that differ if a ``point`` is measured differently."""
        codec = self._codec_digests.get((point.codec, point.quality), UNCOMPRESSED)
        return value_digest([codec, self._set_digests[point.set]])

    def result(self, point: Point) -> dict | None:
        """Returns the measurements of a ``point``; None if none have its digest."""
        result = read_json(self.result_file(point))
        return result if result.get("digest") == self.digest(point) else None

    def finished(self) -> Iterator[tuple[Point, dict]]:
        """Yields the finished points and their measurements."""
        for point in self.points():
            result = self.result(point)
            if result:
                yield point, result


def read_json(path: Path) -> dict:
    """Returns the content of a JSON file; an empty dict if it is missing or damaged.

    Args:
        path: The file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_names(cfg: Config) -> None:
    for key in ("codecs", "sets"):
        names = [entry.get("name") for entry in cfg.get(key, ())]
        if not names or None in names or len(set(names)) != len(names):
            raise ValueError(f"{key} must be a list of dicts of different names")
        for name in names:
            if name == UNCOMPRESSED or not re.fullmatch(r"\w[\w .,:+()-]*", name):
                raise ValueError(f"{name!r} is no name for one of {key}")
    names = [codec.name for codec in cfg.codecs]
    for anchor in (cfg.get("anchor"), cfg.get("table1", cfg).get("anchor")):
        if anchor not in names:
            raise ValueError(f"anchor {anchor!r} is none of {names}")


def _check_seeds(cfg: Config) -> None:
    names = [codec.name for codec in cfg.codecs]
    for group in cfg.get("seeds", ()):
        unknown = {*group["of"], *group["against"]}.difference(names)
        if unknown or len(group["of"]) != len(group["against"]):
            raise ValueError(
                f"seeds: {group['name']!r} needs as many names in of as in against, of "
                f"codecs; got {group['of']} and {group['against']}"
            )
