"""What a sweep is made of: sets of pictures, coders, and readers of the decoded."""

import contextlib
import hashlib
import importlib.metadata
import inspect
import io
import json
import zlib
from functools import lru_cache
from pathlib import Path

from .. import detection  # noqa: F401, before mmdet: offers mmcv's ops

# isort: split
import mmcv
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pytorch_msssim import ms_ssim
from torch import Tensor

from .. import __version__
from ..codecs import CLASSICAL, PictureCodec, container
from ..codecs.classical import find_classical
from ..codecs.pictures import OPENCV, find_pictures
from ..detection import DetectorView
from ..detection.build import build_model, detector_config, load_detector
from ..detection.checkpoint import WEIGHTS
from ..zoo import cfgs, is_hm, load_checkpoint, load_model
from ..zoo.released import RELEASED

_MS_SSIM_MIN_SIDE = 161


class PictureSet:
    """The pictures of a set, in a fixed order, and what is to be found in them.

    Args:
        entry: ``name``, and ``pictures`` (a folder) or ``dataset`` (an MMDetection
            data set config in COCO's format).

    Raises:
        ValueError: If there are none.
    """

    def __init__(self, entry: dict):
        name = entry["name"]
        check_keys(
            f"set {name!r}",
            entry,
            {"name", "pictures", "dataset", "detectors", "count"},
        )
        if ("pictures" in entry) == ("dataset" in entry):
            raise ValueError(f"set {name!r} needs pictures or dataset, and not both")
        self.truth, self.classes, self.categories = None, (), []
        if "dataset" in entry:
            init_default_scope("mmdet")
            with contextlib.redirect_stdout(io.StringIO()):
                dataset = DATASETS.build({**entry["dataset"], "test_mode": True})
                self.truth = COCO(dataset.ann_file)
            self.classes, self.categories = dataset.metainfo["classes"], dataset.cat_ids
            data = (dataset.get_data_info(i) for i in range(len(dataset)))
            found = sorted((d["img_id"], Path(d["img_path"])) for d in data)
        else:
            folder = Path(entry["pictures"])
            if not folder.is_dir():
                raise ValueError(f"set {name!r}: {folder} is no folder")
            if entry.get("detectors"):
                raise ValueError(f"set {name!r}: detectors need a dataset")
            paths = find_pictures(folder, OPENCV, deep=False)
            found = list(enumerate(paths))
        self.pictures: list[tuple[int, Path]] = found[: entry.get("count")]
        if not self.pictures:
            raise ValueError(f"set {name!r} holds no pictures")
        self.checksums = {p: zlib.crc32(p.read_bytes()) for _, p in self.pictures}
        self.detectors = list(entry.get("detectors", ()))
        for detector in self.detectors:
            check_keys(
                f"a detector of set {name!r}",
                detector,
                {"name", "config", "checkpoint", "classes"},
            )

    def identity(self) -> str:
        """Differs where other pictures, objects or detectors are measured."""
        truth = self.truth.dataset if self.truth else None
        detectors = [
            [d["name"], detector_config(d["config"], None), digest(d["checkpoint"])]
            for d in self.detectors
        ]
        pictures = [(n, p.name, self.checksums[p]) for n, p in self.pictures]
        return identity([pictures, truth, self.categories, detectors])

    def category_of(
        self, detector: dict, trained_for: tuple[str, ...] | None = None
    ) -> list[int | None]:
        """COCO's category of each of a detector's labels; None is not in this set.

        Args:
            detector: The set's entry; its ``classes`` come first.
            trained_for: What its checkpoint names. Defaults to the set's classes.

        Raises:
            ValueError: If the set has none of them.
        """
        names = detector.get("classes", trained_for or self.classes)
        if names == "coco":
            names = CocoDataset.METAINFO["classes"]
        found = self.truth.loadCats(self.categories)
        own = {category["name"]: category["id"] for category in found}
        if not own.keys() & set(names):
            raise ValueError(
                f"detector {detector['name']!r} knows {list(names)}, and the set only "
                f"{list(own)}: give it classes=... (names, or 'coco')"
            )
        return [own.get(name) for name in names]


def check_keys(what: str, entry: dict, known: set[str]) -> None:
    """A misspelt key would be silently without effect."""
    unknown = set(entry) - known
    if unknown:
        raise ValueError(f"{what} has no {sorted(unknown)}; there are {sorted(known)}")


def digest(path: str) -> str:
    """Of a file's content, also of one in the package; of a URL, the URL."""
    if path.startswith("compressai_hm://"):
        path = str(WEIGHTS / path.removeprefix("compressai_hm://"))
    if not Path(path).is_file():
        return path
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def identity(value) -> str:
    """8 characters that tell values from each other."""
    text = json.dumps(value, default=str, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


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


class Uncompressed:
    """A picture codec that codes nothing: its file is the samples."""

    learned = False

    def encode(self, x: Tensor) -> bytes:
        return (x[0] * 255).round().byte().numpy().tobytes()

    def decode(self, data: bytes, size: tuple[int, int], views=()) -> dict[str, Tensor]:
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return {"x_hat": flat.view(1, 3, *size).float() / 255}

    def overhead(self, data: bytes) -> int:
        return 0


class Coder:
    """A codec that turns 8-bit pictures into files and back.

    Args:
        codec: Any picture codec.
        refine: Gradient steps on each picture's latent.
        config: The training config whose loss they lower.
        **options: Of the codec's ``encode``, such as the ``quality`` of its zoo entry.
    """

    def __init__(
        self,
        codec: PictureCodec,
        refine: int = 0,
        config: str | None = None,
        **options,
    ):
        self.codec, self.refine, self.options = codec, refine, options
        self.model = build_model(config) if refine else None

    def encode(self, x: Tensor) -> bytes:
        """The file of a picture, uint8 RGB, ``(1, 3, H, W)``."""
        x, options = x.float() / 255, self.options
        if self.refine:
            options = {**options, "y": self.model.refine(x, self.refine, self.codec)}
        return self.codec.encode(x, **options)

    def decode(self, data: bytes, size: tuple[int, int]) -> dict[str, Tensor]:
        """Its different views, uint8; of a codec that has one, ``x_hat``."""
        views = ("human", "machine") if self.codec.learned else ("human",)
        decoded = self.codec.decode(data, size, views)
        return {name: (v * 255).round().byte().cpu() for name, v in decoded.items()}

    def overhead(self, data: bytes) -> int:
        """Bytes of the file that are container."""
        return self.codec.overhead(data)


OF_THE_SWEEP = {"name", "qualities", "checkpoints", "trained_for", "curve"}
"""Keys of a config's codec that change none of its files."""
CODEC_KEYS = OF_THE_SWEEP | {"type", "metric", "pretrained", "refine", "config"}


def codec_identity(entry: dict, quality: int) -> str:
    """Differs where other files would be coded."""
    rest = {k: v for k, v in entry.items() if k not in OF_THE_SWEEP}
    if entry.get("checkpoints"):
        rest["weights"] = digest(entry["checkpoints"][quality])
    elif entry.get("type") in RELEASED:
        rest["weights"] = digest(f"compressai_hm://{entry['type']}-{quality}.pth")
    if find_classical(entry.get("type")):
        versions = ("pillow", "imageio-ffmpeg")
        rest["versions"] = [importlib.metadata.version(v) for v in versions]
    else:
        rest["versions"] = [__version__, container.VERSION]
        if entry.get("refine"):
            model = Config.fromfile(entry["config"]).model
            rest["config"] = {k: v for k, v in model.items() if k != "codec"}
            if model.get("detector_checkpoint"):
                rest["detector"] = digest(model.detector_checkpoint)
    return identity(rest)


def build_coder(entry: dict, quality: int) -> Coder:
    """The coder of a config's codec at one of its qualities.

    Raises:
        ValueError: If there is no such codec or quality.
    """
    return _built_coder(json.dumps(entry), quality)


@lru_cache(maxsize=2)
def _built_coder(entry: str, quality: int) -> Coder:
    entry = json.loads(entry)
    kind = entry.get("type")
    refinement = entry.get("refine", 0), entry.get("config")
    if entry.get("checkpoints"):
        net = load_checkpoint(entry["checkpoints"][quality], kind)
        return Coder(net.eval(), *refinement)
    if classical := find_classical(kind):
        rest = {k: v for k, v in entry.items() if k not in CODEC_KEYS}
        return Coder(classical(quality=quality, **rest))
    metric, pretrained = entry.get("metric", "mse"), entry.get("pretrained", True)
    net = load_model(kind, quality, metric, pretrained=pretrained)
    return Coder(net.eval(), *refinement, quality=quality)


def check_codec(entry: dict) -> list[int]:
    """The qualities of a config's codec.

    Raises:
        ValueError: If it names something that does not exist.
    """
    name, kind = entry["name"], entry.get("type")
    classical = find_classical(kind)
    checkpoints = entry.get("checkpoints", ())
    if checkpoints and kind is not None and not is_hm(kind):
        raise ValueError(
            f"codec {name!r}: checkpoints are of HM codecs; type {kind!r} is none"
        )
    if not checkpoints and not classical and kind not in cfgs:
        raise ValueError(
            f"codec {name!r}: type {kind!r} is unknown; there are "
            f"{sorted({*CLASSICAL, *cfgs})}, or give checkpoints"
        )
    own = inspect.signature(classical).parameters if classical else ()
    check_keys(f"codec {name!r}", entry, CODEC_KEYS | (set(own) - {"quality"}))
    steps, config = entry.get("refine"), entry.get("config")
    if steps is not None or config is not None:
        whole = isinstance(steps, int) and steps > 0 and Path(str(config)).is_file()
        if not whole or classical:
            raise ValueError(
                f"codec {name!r}: refine={steps!r}, config={config!r}; for an HM codec "
                "give a number of steps and a training config"
            )
    for path in checkpoints:
        if not Path(path).is_file():
            raise ValueError(f"codec {name!r}: {path} does not exist")
    qualities = list(range(len(checkpoints)) or entry.get("qualities", ()))
    if not qualities or len(set(qualities)) != len(qualities):
        raise ValueError(f"codec {name!r} names no qualities, or one twice")
    for quality in qualities:
        try:
            if classical:
                build_coder(entry, quality)
            elif not checkpoints and quality not in cfgs[kind]:
                raise ValueError(f"there is no quality {quality}")
        except (TypeError, ValueError) as e:
            raise ValueError(f"codec {name!r}: {e}") from e
    return qualities


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
        self.classes = load_detector(self.model, checkpoint)
        self.view = DetectorView(**resize)

    @torch.no_grad()
    def detect(
        self, picture: Tensor, number: int, categories: list[int | None]
    ) -> list[dict]:
        """COCO results on an 8-bit picture.

        Args:
            picture: RGB, ``(1, 3, H, W)``.
            number: Its id.
            categories: COCO's category of each label; None drops it.

        Raises:
            ValueError: If the detector has more labels than that.
        """
        sample = DetDataSample(metainfo={"img_id": number})
        data = self.view.for_testing(picture[0].float() / 255, sample)
        data = self.model.data_preprocessor({k: [v] for k, v in data.items()}, False)
        (found,) = self.model.predict(data["inputs"], data["data_samples"])
        found = found.pred_instances.cpu()
        out = []
        for i in range(len(found)):
            label = int(found.labels[i])
            if label >= len(categories):
                raise ValueError(
                    f"the detector found label {label}, but its classes are "
                    f"{len(categories)}: say classes=... (names, or 'coco') beside its "
                    "config"
                )
            if categories[label] is None:
                continue
            left, top, right, bottom = found.bboxes[i].tolist()
            record = {
                "image_id": number,
                "category_id": categories[label],
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
