"""Makes weights of the package again: compressai_hm/zoo/weights.

    python tools/train_weights.py demo      the demo's, on drawn pictures: 1 to 2 hours
    python tools/train_weights.py small     hm-mbt2018-s, on COCO: many hours
    python tools/train_weights.py person    the person detector, on COCO: over an hour
    python tools/train_weights.py vbr       hm-mbt2018-vbr-s, from hm-mbt2018-s: hours;
                                            then what changes it, below, again
    python tools/train_weights.py vbr_v2    hm-mbt2018-vbr-s-v2, from that: 40 minutes
    python tools/train_weights.py vbr_v2_person   its metric person: 26 minutes

    python tools/train_weights.py compact   hm-compact, from scratch: 17 hours of a core
    python tools/train_weights.py compact_start   results/compact/undecayed.pth, of as
                                            far as that has come

on 2 cores. All but the demo's pictures: tools/coco_subsets.py; MOBILENETV2 names the
file of the detectors' backbone, RTMDET_NANO that of the person detector's teacher,
DETECTORS the folder of those that vbr_v2_person is for. The same command goes on where
it was stopped.
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
from torch import Tensor, nn

from compressai_hm.codecs import ENTRIES, HM_MODELS
from compressai_hm.zoo import load_checkpoint, released

ROOT = Path(__file__).resolve().parents[1]
WORK = Path("work_dirs")


def main() -> None:
    parser = _command.parser(__doc__)
    every = (demo, small, vbr, vbr_v2, vbr_v2_person, person, compact, compact_start)
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


def small() -> None:
    train_small("small/pretrain")
    for quality in (4, 3, 2, 1):
        train_small("small/base", quality)
    for quality in (1, 2, 3, 4):
        train_small("small/mixed", quality)
    # Of each process: the config's 4 are meant for one.
    train_small("person/detector", options=("train_dataloader.batch_size=2",))
    for name in ("control", "adapted"):
        for quality in (1, 2, 3, 4):
            train_small(f"small/{name}", quality)
    for quality in (1, 2):
        for name in ("labels", "features", "reader", "without_g_t"):
            train_small(f"small/{name}", quality)
        for name in ("adapted", "without_g_t"):
            train_small(f"small/{name}", quality, seed=1)
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
    released.write_released("hm-compact", {1: net})


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


def vbr() -> None:
    name = "hm-mbt2018-vbr-s"
    train("mmdet_configs/small/all_rates.py", options=("--amp",))
    start = WORK / "small_vbr_start.pth"
    if not start.exists():
        net = ENTRIES[name].model(*ENTRIES[name].channels[1], **ENTRIES[name].g_t)
        grow(load_checkpoint(WORK / "small_all_rates/codec.pth.tar"), net)
        released.save(net.state_dict(), start)
    train("mmdet_configs/small/vbr.py", options=("--amp",))
    net = load_checkpoint(WORK / "small_vbr/codec.pth.tar")
    released.write_released(name, {1: net})


def vbr_v2() -> None:
    train("mmdet_configs/small/vbr_v2.py", options=("--amp",), env={"SEED": "0"})
    net = load_checkpoint(WORK / "small_vbr_v2/codec.pth.tar")
    released.write_changes("hm-mbt2018-vbr-s-v2", "mse", net)


def vbr_v2_person() -> None:
    own = dict(options=("--amp",), env={"SEED": "0"})
    train("mmdet_configs/small/vbr_v2_person.py", **own)
    net = load_checkpoint(WORK / "small_vbr_v2_person_0/codec.pth.tar")
    released.write_changes("hm-mbt2018-vbr-s-v2", "person", net)


def grow(old: nn.Module, new: nn.Module) -> None:
    """Gives a codec of hm-mbt2018-s's kind the weights of a smaller one.

    Blocks that it has beyond it, at the end of each row, and channels that its latent
    has, change nothing of the picture until they are trained.
    """
    own = old.state_dict()
    for name in ("g_a", "g_s"):
        rest = list(getattr(old, name))
        for place, layer in enumerate(getattr(new, name)):
            if rest and type(rest[0]) is type(layer):
                weights = rest.pop(0).state_dict()
            else:
                nn.init.zeros_(layer.body[-1].weight)
                nn.init.zeros_(layer.body[-1].bias)
                weights = layer.state_dict()
            own.update({f"{name}.{place}.{k}": v for k, v in weights.items()})
    transposed = {
        f"{name}.weight"
        for name, layer in new.named_modules()
        if isinstance(layer, nn.ConvTranspose2d)
    }
    parts = new.entropy_parameters[-1].out_channels // 2
    for key, value in new.state_dict().items():
        if key not in own or key.endswith(".mask") or key.startswith("g_t."):
            continue
        if key.startswith("entropy_parameters.4."):  # scales, then means
            halves = own[key].chunk(2)
            value[:] = 0
            if value.ndim == 1:
                value[:parts] = 0.15  # little of what is new is coded at first
            for new_half, old_half in zip(value.chunk(2), halves, strict=True):
                new_half[: len(old_half)] = old_half
        elif value.shape == own[key].shape:
            value[:] = own[key]
        elif value.ndim == 4:
            if key.startswith("g_a.") and len(value) > len(own[key]):
                value.mul_(0.15)
            outs, ins = own[key].shape[:2]
            # What is new reads of what is old, and not the other way round.
            if key in transposed:
                value[outs:, :ins] = 0
            else:
                value[:outs, ins:] = 0
            value[:outs, :ins] = own[key]
        elif value.ndim == 1 and value.numel() and own[key].numel():
            value[: len(own[key])] = own[key]


def train_small(
    name: str, quality: int = 0, seed: int = 0, options: Sequence[str] = ()
) -> None:
    """As the shipped ones were: two processes of a thread each, in mixed precision.

    On two GPUs, or on the CPU where there are not as many.
    """
    processes = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    if options:
        options = ("--cfg-options", *options)
    env = {"QUALITY": str(quality), "SEED": str(seed), "OMP_NUM_THREADS": "1"}
    if torch.cuda.device_count() == 1:
        print("the two processes share no GPU: they train on the CPU")
        env["CUDA_VISIBLE_DEVICES"] = ""
    train(
        f"mmdet_configs/{name}.py",
        processes,
        ("--launcher", "pytorch", "--amp", *options),
        env,
    )


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
