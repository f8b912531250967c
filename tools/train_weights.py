"""Makes weights of the package again: compressai_hm/zoo/weights.

    python tools/train_weights.py demo     the demo's, on drawn pictures: 1 to 2 hours
    python tools/train_weights.py small    hm-mbt2018-s, on COCO: 3 hours

on 2 cores. The small models' pictures: tools/coco_subsets.py; MOBILENETV2 names the
file of the detector's backbone. All trainings are resumed where they ended.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config

from compressai_hm.codecs import HM_MODELS
from compressai_hm.detection import launch
from compressai_hm.zoo import load_checkpoint, released

ROOT = Path(__file__).resolve().parents[1]
WORK = Path("work_dirs")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("demo", "small"))
    parser.add_argument(
        "--processes", type=int, default=1, help="that train together; default: 1"
    )
    args = parser.parse_args()
    {"demo": demo, "small": small}[args.which](args.processes)


def demo(processes: int) -> None:
    for part in ("detector", "codec"):
        config = f"mmdet_configs/demo/{part}.py"
        train(config, processes)
        checkpoint = launch.latest_checkpoint(Config.fromfile(ROOT / config).work_dir)
        weights = torch.load(checkpoint, weights_only=True)["state_dict"]
        if part == "codec":
            weights = {k.removeprefix("codec."): v for k, v in weights.items()}
            net = HM_MODELS["hm-mbt2018-mean"].from_state_dict(weights)
            weights = released.rounded_codec(net)
        released.save(released.rounded(weights), released.WEIGHTS / f"demo_{part}.pth")
    released.write_sums()


def small(processes: int) -> None:
    train("mmdet_configs/small/pretrain.py", processes, 4)
    for quality in (4, 3, 2, 1):
        train("mmdet_configs/small/base.py", processes, quality)
    train("mmdet_configs/person/detector.py", processes)
    for name in ("control", "adapted"):
        for quality in (1, 2, 3, 4):
            train(f"mmdet_configs/small/{name}.py", processes, quality)
    for quality in (1, 2):
        for name in ("features", "reader", "without_g_t"):
            train(f"mmdet_configs/small/{name}.py", processes, quality)
        for name in ("adapted", "without_g_t"):
            train(f"mmdet_configs/small/{name}.py", processes, quality, seed=1)
    released.write_released(
        "hm-mbt2018-s",
        {
            quality: load_checkpoint(WORK / f"small_adapted_q{quality}/codec.pth.tar")
            for quality in (1, 2, 3, 4)
        },
    )
    # The others are measured as the released ones are: in half precision.
    for path in sorted(WORK.glob("small_*_q?*/codec.pth.tar")):
        released.save(
            released.rounded_codec(load_checkpoint(path)), path.with_name("codec.pth")
        )


def train(config: str, processes: int, quality: int = 0, seed: int = 0) -> None:
    """Trains by a config, or goes on; nothing where it is finished."""
    env = {**os.environ, "QUALITY": str(quality), "SEED": str(seed)}
    command = [ROOT / "tools/train.py", ROOT / config, "--resume"]
    if quality:
        command += ["--amp"]
    if processes > 1:
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        command = [*several, processes, *command, "--launcher", "pytorch"]
    command = [sys.executable, *map(str, command)]
    print(f"QUALITY={quality} SEED={seed}", *command, flush=True)
    subprocess.run(command, check=True, env=env)


if __name__ == "__main__":
    main()
