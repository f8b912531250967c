"""Trains weights of the package (compressai_hm/zoo/weights) again.

    python tools/train_weights.py demo            on drawn pictures: 1 to 2 hours
    python tools/train_weights.py person          the person detector: over an hour
    python tools/train_weights.py compact         hm-compact, from scratch: 3 hours
    python tools/train_weights.py compact_person  then for persons: half an hour
    python tools/train_weights.py latent          the person detector on the latents of
                                                  each of hm-compact's weights: 10 hours

The times are for 2 cores. tools/coco_subsets.py builds the sets of COCO. MOBILENETV2
names the file of the person detector's backbone, RTMDET_NANO that of its teacher, and
DETECTORS the folder of those that hm-compact is trained for. The same command continues
a training that was stopped.
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

from compressai_hm import ENTRIES, HM_MODELS, load_reader
from compressai_hm.zoo import load_checkpoint, load_model, released

ROOT = Path(__file__).resolve().parents[1]
WORK = Path("work_dirs")


def main() -> None:
    """Runs the recipe that the command line names."""
    parser = _command.parser(__doc__)
    recipes = {f.__name__: f for f in (demo, person, compact, compact_person, latent)}
    parser.add_argument("weights", choices=recipes)
    recipes[parser.parse_args().weights]()


def demo() -> None:
    """Trains the demo's detector and codec."""
    for part in ("detector", "codec"):
        config = f"mmdet_configs/demo/{part}.py"
        weights = load_trained(config)
        if part == "codec":
            weights = {k.removeprefix("codec."): v for k, v in weights.items()}
            net = HM_MODELS["hm-mbt2018-mean"].from_state_dict(weights)
            weights = released.rounded_codec(net)
        released.save(released.rounded(weights), released.WEIGHTS / f"demo_{part}.pth")
    released.write_sums()


def person() -> None:
    """Trains the person detector."""
    settings = dict(options=("--amp",), env={"OMP_NUM_THREADS": "1"})
    load_trained("mmdet_configs/person/rtmdet_mobilenetv2_distilled.py", **settings)
    config = "mmdet_configs/person/rtmdet_mobilenetv2_448.py"
    weights = load_trained(config, **settings)
    path = released.WEIGHTS / "person_detector.pth"
    released.save({"state_dict": released.rounded(weights)}, path)
    released.write_sums()


def load_trained(config: str, **kwargs: Any) -> dict[str, Tensor]:
    """Trains by a config, and returns the last weights, averaged by an EMAHook."""
    train(config, **kwargs)
    checkpoint = _launch.latest_checkpoint(Config.fromfile(ROOT / config).work_dir)
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def compact() -> None:
    """Trains hm-compact from scratch, and then at a falling rate."""
    for name in ("hm_compact", "hm_compact_further"):
        train(f"mmdet_configs/{name}.py", env={"OMP_NUM_THREADS": "1"})
        net = load_checkpoint(WORK / name / "codec.pth.tar")
        released.write_released("hm-compact", net)


def compact_person() -> None:
    """Trains hm-compact further, for detectors of persons."""
    train("mmdet_configs/hm_compact_person.py", env={"OMP_NUM_THREADS": "1"})
    net = load_checkpoint(WORK / "hm_compact_person/codec.pth.tar")
    released.write_released("hm-compact", net, "person")


def latent() -> None:
    """Trains the person detector on latents, and a reader for each metric's weights."""
    config, env = "mmdet_configs/hm_person_latent.py", {"OMP_NUM_THREADS": "1"}
    weights, options = {}, ()
    for metric in ENTRIES["hm-compact"].released:
        os.environ["METRIC"] = metric  # for the config
        if weights:
            codec = load_model("hm-compact", 4, metric, pretrained=True).state_dict()
            weights.update({f"codec.{key}": value for key, value in codec.items()})
            start = WORK / f"person_latent_{metric}.pth"
            torch.save(dict(state_dict=weights), start)
            frozen = f"load_from={start}", "model.trainable=(latent_backbone,)"
            options = ("--cfg-options", *frozen)
        own = load_trained(config, options=options, env=env)
        reader = load_reader(WORK / f"person_latent_{metric}/people.reader")
        reader.net.half()
        name = released.weights_file("hm-compact", metric).removesuffix(".npz")
        reader.save(released.WEIGHTS / f"{name}.people.reader")
        if not weights:
            weights = own
            write_rest("hm-compact", weights)
    released.write_sums()


def write_rest(name: str, weights: dict[str, Tensor]) -> None:
    """Writes a detector without its reader, in half precision.

    Args:
        name: Name of the codec's entry.
        weights: Those of a LatentHumanMachineDetector.
    """
    rest = {
        key.removeprefix("detector."): value
        for key, value in released.rounded(weights).items()
        if key.startswith("detector.")
        and ".backbone.latent." not in key
        and not key.endswith("num_batches_tracked")
    }
    meta = dict(dataset_meta=dict(classes=("person",)))
    path = released.WEIGHTS / f"{name}.people.pth"
    released.save(dict(state_dict=rest, meta=meta), path)


def train(
    config: str, options: Sequence[str] = (), env: dict[str, str] | None = None
) -> None:
    """Trains by a config, or continues; does nothing if the training is finished."""
    command = [sys.executable, ROOT / "tools/train.py", ROOT / config, "--resume"]
    command, env = [*map(str, command), *options], env or {}
    print(*(f"{k}={v}" for k, v in env.items()), *command, flush=True)
    subprocess.run(command, check=True, env={**os.environ, **env})


if __name__ == "__main__":
    _command.run(main, "stopped; the same command continues")
