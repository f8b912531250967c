"""Runs the points of a sweep: codec x quality x set of pictures.

A point codes every picture of a set into a file of its own, decodes that file, measures
the decoded picture, and has every detector read it. It is kept as one JSON file, so an
interrupted sweep goes on where it stopped. Sets that share pictures share the files.

::

    <work_dir>/streams/<codec>/<quality>/<folder>/<picture>  the coded files
    <work_dir>/points/<codec>/<quality>/<set>.json           what was measured
    <work_dir>/times/<codec>/<quality>/<set>.json            seconds
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pytorch_msssim import ms_ssim
from torch import Tensor
from tqdm import tqdm

from ..codecs import HumanMachineMixin, container
from ..codecs.anchors import ANCHORS
from ..codecs.files import write_whole
from ..detection import DetectorView
from ..detection.build import detector_config, load_detector
from ..zoo import load_checkpoint, load_model

UNCOMPRESSED = "uncompressed"
"""The name of the point that codes nothing."""

_MS_SSIM_MIN_SIDE = 161


@dataclass(frozen=True)
class Point:
    """One codec at one quality on one set.

    Args:
        codec: Index of the codec in the config.
        quality: Its quality, or the place of its checkpoint.
        set: Index of the set in the config.
    """

    codec: int
    quality: int
    set: int


class Sweep:
    """What a config asks for.

    Args:
        cfg: With ``codecs`` (dicts: ``name``; ``type`` of an anchor or a zoo entry with
            ``qualities``, or ``checkpoints``, files of HM codecs), ``sets`` (dicts:
            ``name``; ``pictures``, a folder, or ``dataset``, an MMDetection config of
            COCO's format, with ``detectors`` (dicts: ``name``, ``config``,
            ``checkpoint``)) and ``anchor`` (name of a codec).
        work_dir: Folder for all results.

    Raises:
        ValueError: If the config asks for something that does not exist.
    """

    def __init__(self, cfg: Config, work_dir: str | Path):
        self.cfg, self.work_dir = cfg, Path(work_dir)
        for key in ("codecs", "sets"):
            names = [entry.get("name") for entry in cfg.get(key, ())]
            if not names or None in names or len(set(names)) != len(names):
                raise ValueError(f"{key} must be a list of dicts of different names")
        names = [codec.name for codec in cfg.codecs]
        if cfg.get("anchor") not in names:
            raise ValueError(f"anchor {cfg.get('anchor')!r} is none of {names}")
        for codec in cfg.codecs:
            known = set(ANCHORS) | {"checkpoint"} | set(_zoo())
            kind = codec.get("type", "checkpoint" if "checkpoints" in codec else None)
            if kind not in known:
                raise ValueError(
                    f"codec {codec.name!r}: type {kind!r} is unknown; there are "
                    f"{sorted(known)}"
                )
            for path in codec.get("checkpoints", ()):
                if not Path(path).is_file():
                    raise ValueError(f"codec {codec.name!r}: {path} does not exist")
            if not _qualities(codec):
                raise ValueError(f"codec {codec.name!r} names no qualities")
        self.sets = [PictureSet(entry) for entry in cfg.sets]
        self._check_identity()

    def _check_identity(self) -> None:
        """Refuses to mix results in the work folder with others of that name."""
        new = {}
        for codec in self.cfg.codecs:
            rest = {
                k: v
                for k, v in codec.items()
                if k not in ("name", "qualities", "checkpoints", "trained_for")
            }
            for quality in _qualities(codec):
                paths = codec.get("checkpoints")
                weights = _digest(paths[quality]) if paths else ""
                new[f"codec {codec.name!r} at {quality}"] = _json([rest, weights])
        for entry in self.cfg.sets:
            detectors = [_digest(d["checkpoint"]) for d in entry.get("detectors", ())]
            new[f"set {entry.name!r}"] = _json([entry, detectors])
        new = {name: f"{zlib.crc32(text):08x}" for name, text in new.items()}
        file = self.work_dir / "sweep.json"
        old = json.loads(file.read_text()) if file.exists() else {}
        for name, identity in new.items():
            if old.get(name, identity) != identity:
                raise ValueError(
                    f"{name} is not what was measured in {self.work_dir} before; name "
                    "it otherwise, or give another --work-dir"
                )
        write_whole(_json({**old, **new}), file)

    def points(self) -> list[Point]:
        """All points, the uncompressed ones of detection sets first."""
        sets = range(len(self.cfg.sets))
        reference = [Point(-1, 0, s) for s in sets if self.cfg.sets[s].get("detectors")]
        return reference + [
            Point(c, quality, s)
            for s in sets
            for c, codec in enumerate(self.cfg.codecs)
            for quality in _qualities(codec)
        ]

    def folder(self, point: Point, kind: str) -> Path:
        """Where a point's ``kind`` (streams, points, times) lies."""
        name = UNCOMPRESSED if point.codec < 0 else self.cfg.codecs[point.codec].name
        return self.work_dir / kind / name / str(point.quality)

    def stream_file(self, point: Point, picture: Path, suffix: str) -> Path:
        """The coded file of a picture."""
        folder = picture.parent.resolve()
        unique = f"{folder.name}-{zlib.crc32(str(folder).encode()):08x}"
        return self.folder(point, "streams") / unique / f"{picture.name}{suffix}"

    def result_file(self, point: Point, kind: str = "points") -> Path:
        """What was measured; with kind "times", the seconds."""
        return self.folder(point, kind) / f"{self.cfg.sets[point.set].name}.json"

    def run(self, jobs: int = 1) -> None:
        """Runs the points that are not finished.

        Args:
            jobs: Processes. Each takes one thread if there are several.
        """
        todo = [p for p in self.points() if not self.result_file(p).exists()]
        total = sum(len(self.sets[p.set].pictures) for p in todo)
        done = len(self.points()) - len(todo)
        if done:
            print(f"{done} of {len(self.points())} points are finished already")
        if not todo:
            return
        with tqdm(total=total, unit="picture", smoothing=0.05) as bar:
            if jobs == 1:
                for point in todo:
                    self.run_point(point, bar.update)
                return
            context = multiprocessing.get_context("spawn")
            with (
                context.Manager() as manager,
                ProcessPoolExecutor(
                    jobs, context, _start_worker, (self.cfg, self.work_dir)
                ) as pool,
            ):
                ticks = manager.Queue()
                futures = {pool.submit(_work, p, ticks) for p in todo}
                try:
                    while futures:
                        finished = {f for f in futures if f.done()}
                        for future in as_completed(finished):
                            future.result()
                        futures -= finished
                        while not ticks.empty():
                            bar.update(ticks.get())
                        time.sleep(0.2)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

    @torch.no_grad()
    def run_point(self, point: Point, tick=lambda n: None) -> None:
        """Codes, decodes, measures and detects; then writes the point's file."""
        entry = self.cfg.sets[point.set]
        coder = _coder(self.cfg, point)
        readers = {
            d["name"]: reader(json.dumps(d["config"]), d["checkpoint"])
            for d in entry.get("detectors", ())
        }
        ids = self.sets[point.set].categories
        rows: list[dict] = []
        detections: dict[str, dict[str, list]] = {name: {} for name in readers}
        seconds: dict[str, list[float]] = {"encode": [], "decode": []}
        for number, path in self.sets[point.set].pictures:
            x = read(path)
            stream = self.stream_file(point, path, coder.suffix)
            if coder.codec is None:
                data = coder.encode(x)
            else:
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
                "id": number,
                "size": list(x.shape[-2:]),
                "bytes": len(data),
                "container_bytes": coder.overhead(data),
            }
            for view, picture in views.items():
                measured = distortion(x, picture, with_ms_ssim=not readers)
                row.update({f"{k}_{view}": v for k, v in measured.items()})
                for name, read_by in readers.items():
                    found = read_by.detect(picture, number, ids)
                    detections[name].setdefault(view, []).extend(found)
            rows.append(row)
            tick(1)
        result = {"pictures": rows, "detections": detections}
        write_whole(_json(seconds), self.result_file(point, "times"))
        write_whole(_json(result), self.result_file(point))


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


def _digest(path: str) -> str:
    """Of a file's content; of a name such as a URL, the name."""
    if not Path(path).is_file():
        return path
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


_WORKER: dict[str, Sweep] = {}


def _start_worker(cfg: Config, work_dir: Path) -> None:
    torch.set_num_threads(1)
    _WORKER["sweep"] = Sweep(cfg, work_dir)


def _work(point: Point, ticks) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        _WORKER["sweep"].run_point(point, ticks.put)


def _zoo() -> list[str]:
    from ..zoo import cfgs

    return list(cfgs)


def _qualities(codec: dict) -> list[int]:
    return list(codec.get("qualities", range(len(codec.get("checkpoints", ())))))


_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


class PictureSet:
    """The pictures of a set, in a fixed order, and what is to be found in them.

    Args:
        entry: ``name``, and ``pictures`` (a folder) or ``dataset`` (an MMDetection
            data set config in COCO's format).

    Raises:
        ValueError: If there are none.
    """

    def __init__(self, entry: dict):
        self.truth, self.categories = None, []
        if entry.get("dataset"):
            init_default_scope("mmdet")
            with contextlib.redirect_stdout(io.StringIO()):
                dataset = DATASETS.build({**entry["dataset"], "test_mode": True})
                self.truth = COCO(dataset.ann_file)
            self.categories = dataset.cat_ids
            data = (dataset.get_data_info(i) for i in range(len(dataset)))
            found = sorted((d["img_id"], Path(d["img_path"])) for d in data)
        else:
            folder = Path(entry.get("pictures", ""))
            if not folder.is_dir():
                raise ValueError(f"set {entry['name']!r}: {folder} is no folder")
            paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
            found = list(enumerate(paths))
        self.pictures: list[tuple[int, Path]] = found[: entry.get("count")]
        if not self.pictures:
            raise ValueError(f"set {entry['name']!r} holds no pictures")


def read(path: Path) -> Tensor:
    """As MMDetection reads it: 8 bits, ``(1, 3, H, W)`` RGB."""
    picture = mmcv.imread(path, flag="color")
    if picture is None:
        raise ValueError(f"{path} is not a readable picture")
    picture = np.ascontiguousarray(picture[..., ::-1])
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def distortion(
    x: Tensor, picture: Tensor, with_ms_ssim: bool
) -> dict[str, float | None]:
    """PSNR (dB) and MS-SSIM of 8-bit pictures; None where there is none."""
    mse = float((x.double() - picture.double()).square().mean())
    out: dict[str, float | None] = {
        "psnr": 10 * float(np.log10(255**2 / mse)) if mse else None
    }
    if with_ms_ssim:
        large = min(x.shape[-2:]) >= _MS_SSIM_MIN_SIDE
        views = x.float(), picture.float()
        out["ms_ssim"] = float(ms_ssim(*views, data_range=255)) if large else None
    return out


class Coder:
    """A codec that turns 8-bit pictures into files and back.

    Args:
        codec: An HM codec, an anchor, or None, which codes nothing.
    """

    def __init__(self, codec: torch.nn.Module | None, quality: int = 0):
        self.codec, self.quality = codec, quality
        learned = isinstance(codec, HumanMachineMixin)
        self.suffix = ".hmc" if learned else ".bin"

    def encode(self, x: Tensor) -> bytes:
        if self.codec is None:
            return x[0].numpy().tobytes()
        if isinstance(self.codec, HumanMachineMixin):
            return container.encode(self.codec, x.float() / 255, self.quality)
        return self.codec.compress(x.float() / 255)["strings"][0][0]

    def decode(self, data: bytes, size: tuple[int, int]) -> dict[str, Tensor]:
        if self.codec is None:
            flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return {"x_hat": flat.view(1, 3, *size)}
        if isinstance(self.codec, HumanMachineMixin):
            views = container.decode(self.codec, data)
        else:
            views = self.codec.decompress([[data]], size, ("human",))
        return {name: (v * 255).round().byte().cpu() for name, v in views.items()}

    def overhead(self, data: bytes) -> int:
        """Bytes of the file that are container."""
        if isinstance(self.codec, HumanMachineMixin):
            return container.HEADER_BYTES
        return self.codec.overhead(data) if self.codec is not None else 0


@lru_cache(maxsize=2)
def _built(kind: str | None, quality: int, checkpoint: str | None, metric: str, pre):
    if checkpoint:
        return load_checkpoint(checkpoint).eval()
    if kind in ANCHORS:
        return ANCHORS[kind](quality=quality)
    return load_model(kind, quality, metric, pretrained=pre).eval()


def _coder(cfg: Config, point: Point) -> Coder:
    if point.codec < 0:
        return Coder(None)
    entry, quality = cfg.codecs[point.codec], point.quality
    checkpoints = entry.get("checkpoints")
    codec = _built(
        entry.get("type"),
        quality,
        checkpoints[quality] if checkpoints else None,
        entry.get("metric", "mse"),
        entry.get("pretrained", True),
    )
    return Coder(codec, 0 if checkpoints else quality)


class Reader:
    """A detector with its own test pipeline after the decoder.

    Args:
        config: MMDetection's: a file, a name such as "mmdet::yolox/...", or a dict
            with ``model`` and ``test_pipeline``.
        checkpoint: Its weights.
    """

    def __init__(self, config: str | dict, checkpoint: str):
        init_default_scope("mmdet")
        cfg, resize = detector_config(config, None)
        self.model = MODELS.build(cfg).eval()
        load_detector(self.model, checkpoint)
        self.view = DetectorView(**resize)

    @torch.no_grad()
    def detect(self, picture: Tensor, number: int, ids: list[int]) -> list[dict]:
        """COCO results on an 8-bit picture.

        Args:
            picture: RGB, ``(1, 3, H, W)``.
            number: Its id.
            ids: COCO's category of each of the detector's labels.
        """
        sample = DetDataSample(metainfo={"img_id": number})
        data = self.view.for_testing(picture[0].float() / 255, sample)
        data = self.model.data_preprocessor({k: [v] for k, v in data.items()}, False)
        (found,) = self.model.predict(data["inputs"], data["data_samples"])
        found = found.pred_instances.cpu()
        out = []
        for i in range(len(found)):
            left, top, right, bottom = found.bboxes[i].tolist()
            record = {
                "image_id": number,
                "category_id": ids[found.labels[i]],
                "bbox": [left, top, right - left, bottom - top],
                "score": float(found.scores[i]),
            }
            if "masks" in found:
                (mask,) = encode_mask_results([found.masks[i].numpy()])
                record["segmentation"] = {**mask, "counts": mask["counts"].decode()}
            out.append(record)
        return out


@lru_cache
def reader(config: str, checkpoint: str) -> Reader:
    """A reader, made once; its config as JSON."""
    return Reader(json.loads(config), checkpoint)


def finished(sweep: Sweep) -> Iterator[tuple[Point, dict]]:
    """The finished points and what was measured."""
    for point in sweep.points():
        path = sweep.result_file(point)
        if path.exists():
            yield point, json.loads(path.read_text())
