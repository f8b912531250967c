"""The rival of attention: a detector's output sent beside the stream.

    python results/boxes_beside.py work_dirs/machines people

For the detector that draws the map, its boxes could be sent instead: how many bits they
take, and their AP, at any rate of the picture. Reads what a sweep found in the
uncompressed pictures; a box costs 4 coordinates in whole pixels and a score in 32
steps, and each picture a byte for their count.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from mmengine.config import Config

from compressai_hm.evaluation.statistics.average_precision import Matches
from compressai_hm.evaluation.sweep import PictureSet

SCORE_BITS, COUNT_BITS = 5, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir", type=Path, help="of a sweep that was run")
    parser.add_argument("set", help="name of one of its sets")
    parser.add_argument("--config", default="results/sweeps/machines.py")
    args = parser.parse_args()
    sets = {own["name"]: own for own in Config.fromfile(args.config).sets}
    own = PictureSet(sets[args.set])
    (path,) = args.work_dir.glob(f"points/uncompressed/*/{args.set}.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    sizes = {row["id"]: row["size"] for row in result["pictures"]}
    for name, views in result["detections"].items():
        for least in (0.05, 0.1, 0.3):
            sent = [
                {
                    **o,
                    "bbox": np.round(o["bbox"]).tolist(),
                    "score": _coarse(o["score"]),
                }
                for o in views["x_hat"]
                if o["score"] >= least
            ]
            bits = dict.fromkeys(sizes, COUNT_BITS)
            for o in sent:
                height, width = sizes[o["image_id"]]
                bits[o["image_id"]] += SCORE_BITS + 2 * sum(
                    int(np.ceil(np.log2(side))) for side in (height, width)
                )
            matches = Matches(own.truth, sent, list(sizes), own.categories)
            ap = float(matches.average_precision()[0])
            bpp = np.mean([bits[i] / (h * w) for i, (h, w) in sizes.items()])
            print(
                f"{name}, scores from {least}: {len(sent) / len(sizes):.1f} boxes and "
                f"{bpp:.5f} bpp a picture, AP {ap:.4f}"
            )


def _coarse(score: float) -> float:
    return round(score * 2**SCORE_BITS) / 2**SCORE_BITS


if __name__ == "__main__":
    main()
