"""Makes weights of the package again: compressai_hm/zoo/weights.

    python tools/train_weights.py demo      the demo's, on drawn pictures: 1 to 2 hours
    python tools/train_weights.py person    the person detector, on COCO: over an hour
    python tools/train_weights.py compact   hm-compact, from scratch: 17 hours of a core
    python tools/train_weights.py compact_start   results/compact/undecayed.pth, of as
                                            far as that has come

on 2 cores. All but the demo's pictures: tools/coco_subsets.py; MOBILENETV2 names the
file of the detector's backbone, RTMDET_NANO that of its teacher. The same command goes
on where it was stopped. (hm-mbt2018-vbr-s-v2's training is no longer here.)
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _command
import _launch
import torch
from mmengine.config import Config
from torch import Tensor

from compressai_hm.codecs import HM_MODELS
from compressai_hm.zoo import load_checkpoint, released

ROOT = Path(__file__).resolve().parents[1]
WORK = Path("work_dirs")


def main() -> None:
    parser = _command.parser(__doc__)
    every = (demo, person, compact, compact_start)
    recipes = {recipe.__name__: recipe for recipe in every}
    parser.add_argument("which", choices=recipes)
    recipes[parser.parse_args().which]()


def demo() -> None:
    for part in ("detector", "codec"):
        config = f"mmdet_configs/demo/{part}.py"
        weights = trained(config)
        if part == "codec":
            weights = {k.removeprefix("codec."): v for k, v in weights.items()}
            net = HM_MODELS["hm-mbt2018-mean"].from_state_dict(weights)
            weights = released.rounded_codec(net)
        released.save(released.rounded(weights), released.WEIGHTS / f"demo_{part}.pth")
    released.write_sums()


def person() -> None:
    env = {"OMP_NUM_THREADS": "1"}
    own = dict(options=("--amp",), env=env)
    trained("mmdet_configs/person/rtmdet_mobilenetv2_distilled.py", **own)
    weights = trained("mmdet_configs/person/rtmdet_mobilenetv2_448.py", **own)
    path = released.WEIGHTS / "person_detector.pth"
    released.save({"state_dict": released.rounded(weights)}, path)
    released.write_sums()


def trained(config: str, **kwargs: Any) -> dict[str, Tensor]:
    """The last weights of a config after :func:`train`; averaged by an EMAHook."""
    train(config, **kwargs)
    checkpoint = _launch.latest_checkpoint(Config.fromfile(ROOT / config).work_dir)
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def compact() -> None:
    train("mmdet_configs/hm_compact.py", env={"OMP_NUM_THREADS": "1"})
    net = load_checkpoint(WORK / "hm_compact/codec.pth.tar")
    released.write_released("hm-compact", net)


def compact_start() -> None:
    """What another machine goes on from: --cfg-options load_from=..., EPOCHS the rest.

    Its optimizer begins anew.
    """
    path = _launch.latest_checkpoint(WORK / "hm_compact")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    done = {key: saved["meta"][key] for key in ("epoch", "iter")}
    weights = released.rounded(saved["state_dict"])
    target = ROOT / "results/compact/undecayed.pth"
    target.parent.mkdir(parents=True, exist_ok=True)
    released.save({"state_dict": weights, "meta": done}, target)


def train(
    config: str,
    python: Sequence[str] = (),
    options: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> None:
    """Trains by a config, or goes on; nothing where it is finished."""
    tool, config = ROOT / "tools/train.py", ROOT / config
    command = [sys.executable, *python, tool, config, "--resume", *options]
    print(*(f"{k}={v}" for k, v in (env or {}).items()), *command, flush=True)
    subprocess.run(
        list(map(str, command)), check=True, env={**os.environ, **(env or {})}
    )


if __name__ == "__main__":
    _command.run(main, "stopped; the same command goes on")
