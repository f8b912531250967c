"""Runs the points of a sweep: codec x quality x set of pictures.

A point codes every picture of a set into a file of its own, decodes that file, measures
the decoded picture, and has every detector read it. It is kept as one JSON file, so an
interrupted sweep goes on where it stopped; what was measured under other settings is
measured again. Sets that share pictures share the coded files.

::

    <work_dir>/streams/<codec>/<quality>-<settings>/<picture>-<checksum>   coded files
    <work_dir>/points/<codec>/<quality>/<set>.json                         measurements
    <work_dir>/times/<codec>/<quality>/<set>.json                          seconds
"""

import contextlib
import fcntl
import json
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from torch import Tensor
from tqdm import tqdm

from ..codecs.classical import find_classical
from ..codecs.files import write_whole
from .parts import (
    Coder,
    PictureSet,
    Uncompressed,
    build_coder,
    check_codec,
    codec_identity,
    distortion,
    identity,
    read,
    reader,
)

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
            one's own that ``custom_imports`` registers; ``trained_for``, a detector's
            name; ``curve=False``, the points are repetitions: no BD figures, no plots),
            ``sets`` (dicts: ``name``; ``pictures``, a folder, or ``dataset``, an
            MMDetection config of COCO's format, with ``detectors`` (dicts: ``name``,
            ``config``, ``checkpoint``, and ``classes`` where they are not the set's)),
            ``anchor`` (name of a codec) and, if wanted, ``differences`` (dicts: ``of``
            and ``against``, names of codecs) and ``table1`` (``anchor``, ``columns``;
            see ``results.table1``).
        work_dir: Folder for all results.

    Raises:
        ValueError: If the config asks for something that does not exist.
    """

    def __init__(self, cfg: Config, work_dir: str | Path):
        self.cfg, self.work_dir = cfg, Path(work_dir)
        if cfg.get("custom_imports"):  # in every process that works
            import_modules_from_strings(**cfg.custom_imports)
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
        self.qualities = [check_codec(codec) for codec in cfg.codecs]
        self.sets = [PictureSet(entry) for entry in cfg.sets]
        for pair in cfg.get("differences", ()):
            for name in (pair["of"], pair["against"]):
                if name not in names or find_classical(
                    cfg.codecs[names.index(name)].get("type")
                ):
                    raise ValueError(
                        f"differences names {name!r}, which is no HM codec"
                    )
        for name in cfg.get("published", {}):
            if name not in [entry.name for entry in cfg.sets]:
                raise ValueError(f"published names {name!r}, which is none of the sets")
        self._of_sets = [own.identity() for own in self.sets]
        self._of_codecs = {
            (c, q): codec_identity(codec, q)
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
        return build_coder(self.cfg.codecs[point.codec], point.quality)

    def _name(self, point: Point) -> str:
        return UNCOMPRESSED if point.codec < 0 else self.cfg.codecs[point.codec].name

    def stream_file(self, point: Point, picture: Path) -> Path:
        """The coded file of a picture."""
        settings = self._of_codecs[point.codec, point.quality]
        folder = self.work_dir / "streams" / self._name(point)
        checksum = self.sets[point.set].checksums[picture]
        return folder / f"{point.quality}-{settings}" / f"{picture.name}-{checksum:08x}"

    def result_file(self, point: Point, kind: str = "points") -> Path:
        """What was measured; with kind "times", the seconds."""
        folder = self.work_dir / kind / self._name(point) / str(point.quality)
        return folder / f"{self.cfg.sets[point.set].name}.json"

    def identity(self, point: Point) -> str:
        """Differs where a point would be measured otherwise."""
        codec = self._of_codecs.get((point.codec, point.quality), UNCOMPRESSED)
        return identity([codec, self._of_sets[point.set]])

    def result(self, point: Point) -> dict | None:
        """What was measured, if it was, and under these settings."""
        path = self.result_file(point)
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return result if result.get("identity") == self.identity(point) else None

    def finished(self) -> Iterator[tuple[Point, dict]]:
        """The finished points and what was measured."""
        for point in self.points():
            result = self.result(point)
            if result:
                yield point, result

    def run(self, jobs: int = 1) -> None:
        """Runs the points that are not finished.

        Args:
            jobs: Processes. Each takes one thread if there are several.

        Raises:
            RuntimeError: If another sweep runs in the same folder, or a picture fails.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        with open(self.work_dir / ".lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RuntimeError(
                    f"another sweep is running in {self.work_dir}"
                ) from None
            done = {point for point, _ in self.finished()}
            todo = [p for p in self.points() if p not in done]
            stale = sum(self.result_file(p).exists() for p in todo)
            if done:
                print(f"{len(done)} of {len(self.points())} points are finished")
            if stale:
                print(f"{stale} were measured under other settings: measured again")
            total = sum(len(self.sets[p.set].pictures) for p in todo)
            with tqdm(total=total, unit="picture", smoothing=0.05) as bar:
                if jobs == 1:
                    for point in todo:
                        self.run_point(point, bar.update)
                else:
                    self._run_parallel(todo, jobs, bar)

    def _run_parallel(self, todo: list[Point], jobs: int, bar: tqdm) -> None:
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager:
            ticks = manager.Queue()
            start = (self.cfg, self.work_dir, os.getpid())
            with ProcessPoolExecutor(jobs, context, _start_worker, start) as pool:
                futures = [pool.submit(_work, p, ticks) for p in todo]
                try:
                    while not all(f.done() for f in futures):
                        for future in futures:
                            if future.done():
                                future.result()
                        while not ticks.empty():
                            bar.update(ticks.get())
                        time.sleep(0.2)
                    for future in futures:
                        future.result()
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    @torch.no_grad()
    def run_point(self, point: Point, tick=lambda n: None) -> None:
        """Codes, decodes, measures and detects; then writes the point's file.

        Raises:
            RuntimeError: If a picture fails; says which.
        """
        own, coder = self.sets[point.set], self.coder(point)
        readers = {}
        for d in own.detectors:
            loaded = reader(json.dumps(d["config"]), d["checkpoint"])
            readers[d["name"]] = loaded, own.category_of(d, loaded.classes)
        rows: list[dict] = []
        detections: dict[str, dict[str, list]] = {name: {} for name in readers}
        seconds: dict[str, list[float]] = {"encode": [], "decode": []}
        for number, path in own.pictures:
            try:
                x = read(path)
                row, views = self._code(point, coder, path, x, seconds)
                before = None
                for view, picture in views.items():
                    if before is None or not torch.equal(picture, before):
                        measured = distortion(x, picture, not readers)
                        found = {
                            name: read_by.detect(picture, number, categories)
                            for name, (read_by, categories) in readers.items()
                        }
                    before = picture  # without g_t the views are one
                    row.update({f"{k}_{view}": v for k, v in measured.items()})
                    for name in readers:
                        detections[name].setdefault(view, []).extend(found[name])
            except (ValueError, RuntimeError, OSError) as e:
                raise RuntimeError(
                    f"{self._name(point)} at {point.quality}, {path}: {e}"
                ) from e
            rows.append({"id": number, **row})
            tick(1)
        result = {"identity": self.identity(point), "pictures": rows}
        write_whole(_json(seconds), self.result_file(point, "times"))
        write_whole(
            _json({**result, "detections": detections}), self.result_file(point)
        )

    def _code(
        self, point: Point, coder: Coder, path: Path, x: Tensor, seconds: dict
    ) -> tuple[dict, dict[str, Tensor]]:
        """What the picture's file says of itself, and its decoded views."""
        if point.codec < 0:
            data = coder.encode(x)
        else:
            stream = self.stream_file(point, path)
            if not stream.exists():
                started = time.perf_counter()
                write_whole(coder.encode(x), stream)
                seconds["encode"].append(time.perf_counter() - started)
            data = stream.read_bytes()
        started = time.perf_counter()
        views = coder.decode(data, tuple(x.shape[-2:]))
        seconds["decode"].append(time.perf_counter() - started)
        row: dict[str, Any] = {
            "name": path.name,
            "size": list(x.shape[-2:]),
            "bytes": len(data),
            "container_bytes": coder.overhead(data),
        }
        return row, views


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


_WORKER: dict[str, Sweep] = {}


def _start_worker(cfg: Config, work_dir: Path, parent: int) -> None:
    def leave_with_parent():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _WORKER["sweep"] = Sweep(cfg, work_dir)


def _work(point: Point, ticks) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        _WORKER["sweep"].run_point(point, ticks.put)
