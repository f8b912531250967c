"""Speed, both sides of a comparison in one run: python tools/benchmark.py train"""

import argparse
import statistics
import time

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import compressai_hm.detection  # noqa: F401
from compressai_hm.codecs import picture_bits


def train(args: argparse.Namespace) -> None:
    """A full training step against the codec's and the detector's own steps.

    The parts get the tensors of the full step: the codec its pictures, with the mean
    of x_bar in place of the detector; the detector its normalised input, whose gradient
    it computes as well. What lies between the two is in the full step alone.
    """
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    data = model.data_preprocessor(next(iter(loader)), training=True)
    x, samples = data["inputs"], data["data_samples"]
    sizes = [s.img_shape for s in samples]
    with torch.no_grad():
        view, view_samples = model._readable(model.codec(x)["x_bar"], samples)

    def codec_loss():
        out = model.codec(x)
        distortion = (out["x_hat"] - x).square().mean() + out["x_bar"].mean()
        bits = picture_bits(out["likelihoods"], sizes).sum()
        return bits + distortion + model.codec.aux_loss()

    def detector_loss():
        losses = model.detector.loss(
            view.clone().requires_grad_(), [s.clone() for s in view_samples]
        )
        return model.parse_losses(losses)[0]

    def full_loss():
        return model.parse_losses(model.loss(x, samples))[0]

    def step(loss, update: bool) -> float:
        started = time.perf_counter()
        value = loss()
        value.backward()
        if update:
            optim.step()
            optim.zero_grad()
        return time.perf_counter() - started

    rows = {"full step": (full_loss, True), "codec": (codec_loss, True)}
    rows["detector"] = (detector_loss, False)
    times = {name: [] for name in rows}
    for i in range(args.repeats + 1):
        for name, (loss, update) in rows.items():
            seconds = step(loss, update)
            if i:  # the first warms up
                times[name].append(seconds)
    medians = {name: statistics.median(t) for name, t in times.items()}
    own = medians["codec"] + medians["detector"]
    print(f"{args.config}, batch {tuple(x.shape)}, {torch.get_num_threads()} threads")
    for name, seconds in medians.items():
        print(f"{name:22}{seconds:8.3f} s")
    print(f"full / (codec + detector) {medians['full step'] / own:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help=train.__doc__.splitlines()[0])
    command.add_argument("--config", default="mmdet_configs/hm_faster_rcnn_demo.py")
    command.add_argument("--repeats", type=int, default=9)
    command.set_defaults(run=train)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
