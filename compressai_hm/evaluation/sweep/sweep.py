"""What a config asks for: points, and where they are kept.

::

    <work_dir>/streams/<codec>/<quality>-<digest>/<picture>-<digest>    coded files
    <work_dir>/points/<codec>/<quality>/<set>.json                      measurements
    <work_dir>/times/<codec>/<quality>/<set>.json                       seconds

A stream's digests are of its codec's settings and of its picture.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from ...codecs.classical import find_classical
from .checks import check_device
from .coders import Coder, Uncompressed, build_coder, check_codec, codec_digest
from .digests import value_digest
from .picture_set import PictureSet

UNCOMPRESSED = "uncompressed"
"""The name of the point that codes nothing."""


@dataclass(frozen=True)
class Point:
    """One codec at one quality on one set.

    Args:
        codec: Index of the codec in the config; -1 codes nothing.
        quality: Its quality, or the place of its checkpoint.
        set: Index of the set in the config.
    """

    codec: int
    quality: int
    set: int


class Sweep:
    """What a config asks for.

    Args:
        cfg: With ``codecs`` (dicts: ``name``; ``type`` of a classical codec or a zoo
            entry with ``qualities``, or ``checkpoints``, files of HM codecs, also of
            one's own that ``custom_imports`` registers; ``steps`` of quantisation of
            one checkpoint or quality, which make a curve of it; ``attention``,
            arguments of :class:`Attention`; ``trained_for``, a
            detector's name; ``curve=False``, the points are repetitions: no BD values,
            no plots),
            ``sets`` (dicts: ``name``; ``pictures``, a folder, or ``dataset``, an
            MMDetection config of COCO's format, with ``detectors`` (dicts: ``name``,
            ``config``, ``checkpoint``, and ``classes`` where they are not the set's)),
            ``anchor`` (name of a codec) and, if wanted, ``differences`` (dicts: ``of``
            and ``against``, names of codecs), ``seeds`` (dicts: ``name``, ``of`` and
            ``against``, lists of codecs' names, trainings that differ by their seed and
            what each is measured against) and ``table1`` (``anchor``, ``columns``;
            see ``tables.table1``); what a report reads besides, see ``report.write``.
        work_dir: Folder for all results.
        device: Where HM codecs, detectors and measures compute. What is finished stays
            so on another: floating point differs there, as between CPUs, and no more.

    Raises:
        ValueError: If the config asks for something that does not exist, or there is no
            such device.
    """

    def __init__(self, cfg: Config, work_dir: str | Path, device: str = "cpu"):
        self.cfg, self.work_dir, self.device = cfg, Path(work_dir), device
        check_device(device)
        if cfg.get("custom_imports"):  # in every process that works
            import_modules_from_strings(**cfg.custom_imports)
        _check_names(cfg)
        self.qualities = [check_codec(codec) for codec in cfg.codecs]
        self.sets = [PictureSet(entry) for entry in cfg.sets]
        _check_references(cfg)
        self._of_sets = [own.digest() for own in self.sets]
        self._of_codecs = {
            (c, q): codec_digest(codec, q)
            for c, codec in enumerate(cfg.codecs)
            for q in self.qualities[c]
        }

    def points(self) -> list[Point]:
        """All points, the uncompressed ones of detection sets first."""
        sets = range(len(self.sets))
        reference = [Point(-1, 0, s) for s in sets if self.sets[s].detectors]
        return reference + [
            Point(c, quality, s)
            for s in sets
            for c, qualities in enumerate(self.qualities)
            for quality in qualities
        ]

    def coder(self, point: Point) -> Coder:
        """What codes a point's pictures."""
        if point.codec < 0:
            return Coder(Uncompressed())
        return build_coder(self.cfg.codecs[point.codec], point.quality, self.device)

    def name(self, point: Point) -> str:
        """Of a point's codec."""
        return UNCOMPRESSED if point.codec < 0 else self.cfg.codecs[point.codec].name

    def stream_file(self, point: Point, picture: Path) -> Path:
        """The coded file of a picture."""
        settings = self._of_codecs[point.codec, point.quality]
        folder = self.work_dir / "streams" / self.name(point)
        digest = self.sets[point.set].digests[picture]
        return folder / f"{point.quality}-{settings}" / f"{picture.name}-{digest:08x}"

    def result_file(self, point: Point, kind: str = "points") -> Path:
        """What was measured; with kind "times", the seconds."""
        folder = self.work_dir / kind / self.name(point) / str(point.quality)
        return folder / f"{self.cfg.sets[point.set].name}.json"

    def digest(self, point: Point) -> str:
        """Differs where a point would be measured otherwise."""
        codec = self._of_codecs.get((point.codec, point.quality), UNCOMPRESSED)
        return value_digest([codec, self._of_sets[point.set]])

    def result(self, point: Point) -> dict | None:
        """What was measured, if it was, and under these settings."""
        result = read_json(self.result_file(point))
        return result if result.get("identity") == self.digest(point) else None

    def finished(self) -> Iterator[tuple[Point, dict]]:
        """The finished points and what was measured."""
        for point in self.points():
            result = self.result(point)
            if result:
                yield point, result


def read_json(path: Path) -> dict:
    """What a file of a work folder holds; nothing if it is not there, or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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


def _check_references(cfg: Config) -> None:
    names = [codec.name for codec in cfg.codecs]
    for pair in cfg.get("differences", ()):
        for name in (pair["of"], pair["against"]):
            if name not in names or find_classical(
                cfg.codecs[names.index(name)].get("type")
            ):
                raise ValueError(f"differences names {name!r}, which is no HM codec")
    for group in cfg.get("seeds", ()):
        unknown = {*group["of"], *group["against"]}.difference(names)
        if unknown or len(group["of"]) != len(group["against"]):
            raise ValueError(
                f"seeds: {group['name']!r} needs as many names in of as in against, of "
                f"codecs; got {group['of']} and {group['against']}"
            )
