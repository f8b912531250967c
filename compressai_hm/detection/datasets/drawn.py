"""A small detection set in COCO's format, drawn from a seed, which needs no download.

Backgrounds are dead-leaves pictures (occluding, textured shapes, whose statistics are
close to those of photographs). Objects differ from each other in their texture, not in
their color, so that a codec which blurs texture removes what the detector needs.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

CATEGORIES = {
    13: "stop sign",
    34: "frisbee",
    37: "sports ball",
    38: "kite",
    55: "orange",
    59: "pizza",
    60: "donut",
    85: "clock",
}
"""COCO's category ids and names."""

_MANIFEST = "drawn.json"
_SIZES = ((128, 192), (192, 128))


def make_coco(root: str | Path, num_train: int, num_val: int, seed: int) -> None:
    """Draws the set into ``root``: ``{train,val}2017/`` and ``annotations/``.

    The layout is COCO's. Validation pictures come from another seed and have
    backgrounds of another kind. If the function is interrupted, it leaves nothing under
    ``root``; if ``root`` already holds this set, it does nothing.

    Args:
        root: Folder to make.
        num_train: Number of training pictures.
        num_val: Number of validation pictures.
        seed: The same seed draws the same set.

    Raises:
        ValueError: If ``root`` holds something else.
    """
    root = Path(root)
    settings = {"num_train": num_train, "num_val": num_val, "seed": seed}
    if root.exists():
        _check(root, settings)
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for split, count in (("train", num_train), ("val", num_val)):
            _make_split(aside, split, count, seed)
        (aside / _MANIFEST).write_text(json.dumps(settings), encoding="utf-8")
        aside.chmod(0o755)
        try:
            os.rename(aside, root)
        except OSError:
            if not root.exists():
                raise
            _check(root, settings)  # another process was faster
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check(root: Path, settings: dict[str, int]) -> None:
    path = root / _MANIFEST
    present = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if present != settings:
        content = f"a set drawn with {present}" if present else "other data"
        raise ValueError(
            f"{root} holds {content}, not {settings}; remove it, or give another "
            "data_root"
        )


def _make_split(root: Path, split: str, count: int, seed: int) -> None:
    folder = root / f"{split}2017"
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, split == "val", i])
        picture, objects = draw(rng, ellipses=split == "train")
        image = {
            "id": i + 1,
            "file_name": f"{i + 1:012d}.png",
            "height": picture.shape[0],
            "width": picture.shape[1],
        }
        images.append(image)
        cv2.imwrite(str(folder / image["file_name"]), picture)
        for category_id, mask in objects:
            rle = coco_mask.encode(np.asfortranarray(mask))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category_id,
                    "bbox": [float(v) for v in coco_mask.toBbox(rle)],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {
                        "size": rle["size"],
                        "counts": rle["counts"].decode(),
                    },
                }
            )
    target = root / "annotations" / f"instances_{split}2017.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": i, "name": n} for i, n in CATEGORIES.items()],
            }
        ),
        encoding="utf-8",
    )


def draw(
    rng: np.random.Generator, ellipses: bool
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draws one picture with its objects.

    Args:
        rng: Source of every random number.
        ellipses: Whether the background's shapes are ellipses or rectangles.

    Returns:
        The picture, BGR, ``(H, W, 3)`` uint8, and a list of (category id, visible mask
        ``(H, W)`` uint8).
    """
    height, width = _SIZES[rng.integers(len(_SIZES))]
    picture = _draw_background(rng, height, width, ellipses)
    objects: list[tuple[int, np.ndarray]] = []
    places: list[tuple[float, float, float]] = []
    for _ in range(rng.integers(2, 6)):
        category_id = int(rng.choice(list(CATEGORIES)))
        radius = float(np.exp(rng.uniform(np.log(9), np.log(30))))
        for _ in range(20):  # attempts to find a free place
            cx = rng.uniform(radius, width - radius)
            cy = rng.uniform(radius, height - radius)
            if all(np.hypot(cx - x, cy - y) > radius + r for x, y, r in places):
                texture, alpha = _draw_object(
                    rng, category_id, height, width, cx, cy, radius
                )
                picture += alpha[..., None] * (texture - picture)
                objects.append((category_id, (alpha > 0.5).astype(np.uint8)))
                places.append((cx, cy, radius))
                break
    picture += rng.normal(0, 0.01, picture.shape)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8), objects


def _draw_noise(
    rng: np.random.Generator, height: int, width: int, octaves: int = 4
) -> np.ndarray:
    """Sums octaves of smooth noise with a 1/f amplitude, (H, W), about -1 to 1."""
    total = np.zeros((height, width))
    for k in range(octaves):
        cells = 2 ** (k + 2)
        grid = rng.uniform(-1, 1, (cells, cells))
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**k
    return total / 1.5


def _draw_background(
    rng: np.random.Generator, height: int, width: int, ellipses: bool
) -> np.ndarray:
    base = rng.uniform(0.25, 0.75) + rng.uniform(-0.12, 0.12, 3)
    picture = np.ones((height, width, 3)) * base
    fields = [_draw_noise(rng, height, width, octaves=6)[..., None] for _ in range(4)]
    for _ in range(60):
        radius = 4 + 60 * rng.random() ** 4
        cx, cy = rng.integers(width), rng.integers(height)
        axes = (int(radius), max(2, int(radius * rng.uniform(0.4, 1))))
        angle = float(rng.uniform(0, 180))
        reach = int(radius * 1.5) + 2
        top, left = max(cy - reach, 0), max(cx - reach, 0)
        window = np.s_[top : cy + reach, left : cx + reach]
        center = (int(cx - left), int(cy - top))
        mask = np.zeros(picture[window].shape[:2], np.uint8)
        if ellipses:
            cv2.ellipse(mask, center, axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
        else:
            box = cv2.boxPoints((center, (2 * axes[0], 2 * axes[1]), angle))
            cv2.fillConvexPoly(mask, box.astype(np.int32), 255, cv2.LINE_AA)
        color = base + rng.normal(0, 0.15) + rng.normal(0, 0.06, 3)
        grain = rng.uniform(0.05, 0.35) * fields[rng.integers(4)][window]
        leaf = color.clip(0.05, 0.95) * (1 + grain)
        picture[window] += (mask / 255.0)[..., None] * (leaf - picture[window])
    light = 1 + 0.25 * _draw_noise(rng, height, width, octaves=1)[..., None]
    return picture * light


def _draw_object(
    rng: np.random.Generator,
    category_id: int,
    height: int,
    width: int,
    cx: float,
    cy: float,
    radius: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns an object's texture (H, W, 3) in [0, 1] and coverage (H, W) in [0, 1]."""
    y, x = np.mgrid[:height, :width]
    turn = rng.uniform(-0.3, 0.3)
    x, y = (x - cx) / radius, (y - cy) / radius
    u = np.cos(turn) * x + np.sin(turn) * y
    v = np.cos(turn) * y - np.sin(turn) * x
    r, phi = np.hypot(u, v), np.arctan2(v, u)
    name = CATEGORIES[category_id]
    shape = {
        "stop sign": np.maximum(np.abs(u), np.abs(v)) * 0.5
        + (np.abs(u) + np.abs(v)) * 0.36,
        "kite": np.abs(u) * 1.3 + np.abs(v),
        "donut": np.maximum(r, 1.4 - r),
    }.get(name, r)
    pattern = {
        "stop sign": np.abs(v) < 0.25,
        "frisbee": np.cos(13 * r) > 0,
        "sports ball": (np.cos(7 * u) > 0) ^ (np.cos(7 * v) > 0),
        "kite": (u > 0) ^ (v > 0),
        "orange": np.cos(9 * u) > 0,
        "pizza": np.cos(8 * phi) > 0,
        "donut": np.cos(10 * phi) > 0.5,
        "clock": (r > 0.75) & (np.cos(12 * phi) > 0.2)
        | (np.abs(v) < 0.12) & (u > 0) & (r < 0.7)
        | (np.abs(u) < 0.12) & (v < 0) & (r < 0.5),
    }[name]
    base = rng.uniform(0.25, 0.75) + rng.uniform(-0.15, 0.15, 3)
    contrast = rng.uniform(0.12, 0.35) * rng.choice([-1, 1])
    soft = cv2.GaussianBlur(pattern.astype(np.float64), (3, 3), 0.7)[..., None]
    shade = 1 + 0.15 * (-u - v)[..., None].clip(-1, 1)
    texture = (base + contrast * (soft - 0.5)) * shade
    alpha = ((1 - shape) * radius + 0.5).clip(0, 1)
    return texture.clip(0, 1), alpha
