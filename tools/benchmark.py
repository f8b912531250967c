"""Measures the speed of two sides of a comparison in one run.

python tools/benchmark.py train
python tools/benchmark.py train --config mmdet_configs/hm_compact.py
python tools/benchmark.py codec
python tools/benchmark.py export
python tools/benchmark.py fixed-point
python tools/benchmark.py folder
python tools/benchmark.py latent
python tools/benchmark.py edges

The sides take turns. The first round warms up and is not counted.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
import unittest.mock
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import _command
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import compressai_hm.zoo
from compressai_hm import (
    DEFAULT_MODEL,
    ENTRIES,
    HM_MODELS,
    HumanMachineMixin,
    QuantSteps,
    decode_to_latent,
    encode,
    picture_bits,
)
from compressai_hm.bitstream.file_names import plan_outputs
from compressai_hm.entropy.mirrored_tables import TablesMixin
from compressai_hm.entropy.steps import OCTAVE, QUARTER
from compressai_hm.io.files import write_png
from compressai_hm.io.pictures import find_pictures, read_picture
from compressai_hm.models.export import RUNTIMES, export_transforms, load_onnx
from compressai_hm.zoo import load_checkpoint, load_model
from compressai_hm.zoo.released import RELEASED

DEMO_CODEC = Path(compressai_hm.zoo.__file__).parent / "weights/demo_codec.pth"
KODIM14 = Path(__file__).parent / "pictures/kodim14.png"
COMPARED = [n for n, entry in ENTRIES.items() if not (entry.steps or entry.released)]
"""The zoo entries that CompressAI has as well."""
EXPORTED = ["hm-compact", "hm-mbt2018-mean", "hm-cheng2020-anchor"]


def _take_turns(
    sides: dict[str, Callable], repeats: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Runs the sides in turns, each ``repeats`` times after a round that warms up.

    Returns:
        By side, the wall and CPU seconds of each round, ``(repeats, 2)``, and the last
        result.
    """
    seconds, results = {side: [] for side in sides}, {}
    for i in range(repeats + 1):
        for side in sorted(sides, reverse=bool(i % 2)):
            started = time.perf_counter(), time.process_time()
            results[side] = sides[side]()
            ended = time.perf_counter(), time.process_time()
            if i:
                seconds[side].append(np.subtract(ended, started))
    return {side: np.array(rounds) for side, rounds in seconds.items()}, results


def _print_rows(rows: dict[str, dict[str, Callable]], repeats: int) -> None:
    """Prints the median seconds of two sides for each row, and their ratio."""
    first, second = next(iter(rows.values()))
    heading = f"{first:>22}{second:>22}{'ratio':>8}"
    print(f"{'':10}{heading}   CPU:{heading}")
    for row, sides in rows.items():
        seconds, _ = _take_turns(sides, repeats)
        medians = [np.median(seconds[side], axis=0) for side in sides]
        for name, a, b in zip((f"{row:10}", " " * 7), *medians, strict=True):
            print(f"{name}{a:22.3f}{b:22.3f}{a / b:8.2f}", end="")
        print(flush=True)


def _build(config: str) -> tuple[Any, nn.Module]:
    """Returns a training config, and its model with the weights that it starts from."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import compressai_hm.detection  # noqa: F401

    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with contextlib.suppress(RuntimeError, OSError):  # random weights serve as well
        model.init_weights()
    return cfg, model


def train(args: argparse.Namespace) -> None:
    """Compares a training step with the codec's and the detector's separate steps.

    The codec's step takes the pictures, with the mean of x_bar in place of the
    detector's loss. The detector's step takes its normalized input, and computes the
    gradient of that as well. The operations between the two are in the full step only.

    For a config of a codec alone, the seconds of each part of a step are printed.
    """
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner

    cfg, model = _build(args.config)
    model.train()
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    print(f"{args.config}, {torch.get_num_threads()} threads")
    if model.detector is None:
        _train_codec(args.repeats, model, optim, loader)
        return
    data = model.data_preprocessor(next(iter(loader)), training=True)
    x, samples = data["inputs"], data["data_samples"]
    sizes = [s.img_shape for s in samples]
    with torch.no_grad():
        x_bar = model.codec(x)["x_bar"]
        view, view_samples = model.view.batch(model.detector, x_bar, samples, True)

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

    def step(compute_loss: Callable, update: bool = True) -> None:
        compute_loss().backward()
        if update:
            optim.step()
            optim.zero_grad()

    sides = {
        "full step": partial(
            step, lambda: model.parse_losses(model.loss(x, samples))[0]
        ),
        "codec": partial(step, codec_loss),
        "detector": partial(step, detector_loss, update=False),
    }
    seconds, _ = _take_turns(sides, args.repeats)
    medians = {side: np.median(rounds[:, 0]) for side, rounds in seconds.items()}
    for side, median in medians.items():
        print(f"{side:22}{median:8.3f} s")
    parts = medians["codec"] + medians["detector"]
    print(f"full / (codec + detector) {medians['full step'] / parts:.3f}")


def _train_codec(repeats: int, model: nn.Module, optim: Any, loader: Iterable) -> None:
    """Prints the mean seconds of each part of a step of a codec alone."""
    seconds: dict[str, list[float]] = {}

    def measure(part: str, run: Callable) -> Any:
        started = time.perf_counter()
        result = run()
        seconds.setdefault(part, []).append(time.perf_counter() - started)
        return result

    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for i in range(repeats + 2):
        raw = measure("data", lambda: next(batches))
        data = model.data_preprocessor(raw, training=True)
        losses = measure("forward", partial(model.loss, *data.values()))
        measure("backward", model.parse_losses(losses)[0].backward)
        measure(type(optim.optimizer).__name__, optim.step)
        optim.zero_grad()
        if i < 2:
            seconds.clear()
    # The mean, because SOAP updates its bases in some of the steps only.
    means = {part: statistics.fmean(values) for part, values in seconds.items()}
    for part, mean in means.items():
        print(f"{part:22}{mean:8.3f} s")
    print(f"steps a second {1 / sum(means.values()):.2f}")


@torch.no_grad()
def codec(args: argparse.Namespace) -> None:
    """Compares coding with HM models and with CompressAI's of the same weights.

    Without ``--pretrained`` the weights are random, but the entropy part predicts the
    scale of the latents, so that they cost 0.3 to 1 bpp.
    """
    print(f"{torch.get_num_threads()} threads, medians of {args.repeats}, seconds")
    x = _make_picture(args.size)
    padded = _pad(x)
    for name in args.models or COMPARED:
        ours, base = _load_pair(name, args.quality, args.pretrained)
        coded, base_coded = ours.compress(x), base.compress(padded)
        y_hat, _ = ours.decode_latent(**coded)
        print(f"{name}, {_count_bits(coded) / x[0, 0].numel():.2f} bpp")
        runs = {
            "encode": (partial(ours.compress, x), partial(base.compress, padded)),
            "decode": (
                partial(ours.decompress, **coded, views=("human",)),
                partial(base.decompress, **base_coded),
            ),
            "g_a": (partial(ours.analyze, x), partial(base.g_a, padded)),
            "g_s": (
                partial(ours.synthesize, y_hat, x.shape[-2:], ("human",)),
                partial(base.g_s, y_hat),
            ),
        }
        rows = {
            row: {"ours": ours_run, "CompressAI": base_run}
            for row, (ours_run, base_run) in runs.items()
        }
        _print_rows(rows, args.repeats)


@torch.no_grad()
def export(args: argparse.Namespace) -> None:
    """Compares the transforms in onnxruntime and OpenVINO with torch.

    All sides get the same tensors and threads. Each ratio is the median over the rounds
    of torch's seconds divided by the runtime's: above 1 the runtime is faster. The
    ratio of CPU seconds beside it depends little on other processes. The error is the
    largest difference from torch's result, for x_hat and x_bar in [0, 1]; for y it is
    divided by the largest value of y where that is above 1. Models that are not
    released have random weights.
    """
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads, medians of {args.repeats} rounds")
    print(f"{'':26}{'torch':>9}", end="")
    print("".join(f"{name:>14}{'CPU':>11}{'error':>9}" for name in RUNTIMES))
    for name in args.models:
        if name in RELEASED:
            net = load_model(name, args.quality, pretrained=True).eval()
        else:
            net, _ = _load_pair(name, args.quality, pretrained=False)
        x = _make_picture(args.size)
        y = net.analyze(x)
        inputs = {"g_a": x, "g_s": y.round(), "g_t": net.g_s(y.round()).clamp(0, 1)}
        with tempfile.TemporaryDirectory() as folder:
            for path in export_transforms(net, folder):
                transform, values = getattr(net, path.stem), inputs[path.stem]
                sides = {"torch": lambda f=transform, v=values: f(v).numpy()}
                for runtime in RUNTIMES:
                    run = load_onnx(path, runtime, args.threads)
                    sides[runtime] = partial(run, values.numpy())
                _print_runtimes(f"{name} {path.stem}", sides, args.repeats)


def _print_runtimes(row: str, sides: dict[str, Callable], repeats: int) -> None:
    """Prints a row of :func:`export`; torch is the first side."""
    seconds, results = _take_turns(sides, repeats)
    base, *runtimes = sides
    print(f"{row:26}{np.median(seconds[base][:, 0]):7.3f} s", end="")
    for side in runtimes:
        wall, processor = np.median(seconds[base] / seconds[side], axis=0)
        error = np.abs(results[side] - results[base]).max()
        error /= max(1, np.abs(results[base]).max())
        print(f"{wall:14.2f}{processor:11.2f}{error:9.0e}", end="")
    print(flush=True)


@torch.no_grad()
def fixed_point(args: argparse.Namespace) -> None:
    """Compares bits and PSNR of exact coding with CompressAI's floating point.

    Both sides write real bytes with the same weights.
    """
    ours = load_checkpoint(args.checkpoint).eval()
    base = _load_compressai(ours)
    figures = []
    for x in tqdm(_read_pictures(args), unit="picture", total=args.count):
        for net, picture in ((ours, x), (base, _pad(x))):
            coded = net.compress(picture)
            x_hat = net.decompress(**coded)["x_hat"][..., : x.shape[2], : x.shape[3]]
            mse = (x_hat - x).square().mean()
            bpp = _count_bits(coded) / x[0, 0].numel()
            figures.append((bpp, -10 * mse.log10().item()))
    means = np.array(figures).reshape(-1, 2, 2).mean(0)
    print(f"{type(ours).__name__}, {len(figures) // 2} pictures, bytes without header")
    for side, (bpp, psnr) in zip(("exact", "floating point"), means, strict=True):
        print(f"  {side:16}{bpp:8.4f} bpp {psnr:8.3f} dB")
    (bpp, psnr), (base_bpp, base_psnr) = means
    print(f"  {'cost':16}{100 * (bpp / base_bpp - 1):+8.3f} %   ", end="")
    print(f"{psnr - base_psnr:+8.4f} dB")


def folder(args: argparse.Namespace) -> None:
    """Compares encoding several pictures of a folder at a time with one by one.

    Both sides read, code and write with torch's default number of threads, each in a
    process of its own: one as Python starts it, the other as tools/codec.py sets it up.
    The files must be equal.
    """
    workers = min(4, torch.get_num_threads())
    sides = {"one by one": 1, f"{workers} at a time": workers}
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    files: list[list[bytes]] = []
    with tempfile.TemporaryDirectory() as work:
        pictures, streams = args.pictures or Path(work, "in"), Path(work, "out")
        for i in range(0 if args.pictures else args.count):
            x = sum(_make_picture((512, 768)) for _ in range(4)) / 4
            write_png(x, pictures / f"{i:02}.png")
        command = ["encode", pictures, "--checkpoint", args.checkpoint, "--out"]
        command = [*map(str, command), str(streams), "--overwrite"]
        for _ in range(args.repeats):
            for side, count in sides.items():
                policy = {"OMP_WAIT_POLICY": "PASSIVE"} if count > 1 else {}
                with (
                    unittest.mock.patch.dict(os.environ, policy),
                    multiprocessing.get_context("spawn").Pool(1) as pool,
                ):
                    job = command, args.count, count
                    seconds[side].append(pool.apply(_encode_folder, job))
                files.append([p.read_bytes() for p in sorted(streams.rglob("*.hmc"))])
                if files[-1] != files[0]:
                    raise RuntimeError(f"the files that were coded {side} differ")
    count = len(files[0])
    print(f"{args.checkpoint}, {count} pictures, medians of {args.repeats}")
    print(f"{'':16}{'pictures/s':>12}{'CPU s/picture':>15}")
    for side, rounds in seconds.items():
        wall, processor = np.median(rounds, axis=0)
        print(f"{side:16}{count / wall:12.2f}{processor / count:15.3f}")
    ratios = [a[0] / b[0] for a, b in zip(*seconds.values(), strict=True)]
    print(f"faster {np.median(ratios):.2f} times", end="")
    print(f" ({min(ratios):.2f} to {max(ratios):.2f} in turns)")


def _encode_folder(command: list[str], count: int, workers: int) -> tuple[float, float]:
    """Returns wall and CPU seconds of tools/codec.py on a folder's first pictures."""
    import codec as tool

    options = tool.parse(command)
    jobs = plan_outputs(options.inputs, options.out, True)[:count]
    tool.work(options, jobs[:1], 1)  # reads the weights
    started = time.perf_counter(), time.process_time()
    *_, failed = tool.work(options, jobs, workers)
    if failed:
        raise RuntimeError(failed[0])
    return time.perf_counter() - started[0], time.process_time() - started[1]


@torch.no_grad()
def edges(args: argparse.Namespace) -> None:
    """Measures what the edges of a map of quantization steps cost.

    y's bits by the map are divided by the sum of the shares that its two regions have
    of the bits at one step each. The maps are of two halves, one four times as fine as
    the other, and of a finer line that is one position wide.
    """
    net = load_model(args.model, 4, pretrained=True).eval()
    costs: dict[str, list[float]] = {}
    for x in tqdm(_read_pictures(args), unit="picture", total=args.count):
        y = net.analyze(x)

        def measure(steps: QuantSteps, y: torch.Tensor = y) -> torch.Tensor:
            """Returns y's bits at each position, ``(h, w)``."""
            coded = net.code_latent(y, [steps])["likelihoods"]["y"]
            return -coded[0].log2().sum(0)

        height, width = y.shape[-2:]
        rows, cols = torch.arange(height)[:, None], torch.arange(width)
        maps = {
            "across": rows < height // 2,
            "along": cols < width // 2,
            "line": rows == height // 2,
        }
        for step in args.steps:
            base = QuantSteps.nearest(step, (1, 1)).base
            coarse_bits = measure(QuantSteps(base))
            fine_bits = measure(QuantSteps(base - 2 * OCTAVE))
            for name, fine in maps.items():
                fine = fine.expand(height, width)
                offsets = np.where(fine, -2 * OCTAVE // QUARTER, 0).astype(np.int8)
                mapped = measure(QuantSteps(base, offsets)).sum()
                shares = torch.where(fine, fine_bits, coarse_bits).sum()
                key = f"{name}, step {step:g} and {step / 4:g}"
                costs.setdefault(key, []).append(float(mapped / shares))
    print(f"{args.model}, y's bits, map / shares: mean, range over the pictures")
    for key, ratios in costs.items():
        print(f"{key:28}{statistics.fmean(ratios):7.3f}", end="")
        print(f"  {min(ratios):.3f} to {max(ratios):.3f}")


@torch.no_grad()
def latent(args: argparse.Namespace) -> None:
    """Compares finding people in the latent with finding them in the picture.

    "detect" is from the file to detections; "encode" has a map of regions, which either
    finding draws, and is compared with encoding without a map.
    """
    from _shared import load_detector_regions, load_stream_detector

    net = load_model(DEFAULT_MODEL, args.quality, pretrained=True)
    x = read_picture(args.picture)
    data, size = encode(net, x), tuple(x.shape[-2:])
    regions = {n: load_detector_regions((n,), 1.41, ()) for n in ("latent", "people")}

    reads_latent = load_stream_detector(DEFAULT_MODEL, "mse", None, None, 0.3)
    (reads_picture,) = regions["people"].detectors

    def detect(name: str) -> None:
        _, y_hat = decode_to_latent(net, data)
        if name == "latent":
            reads_latent.detect(y_hat, size)
        else:
            x_hat = net.synthesize(y_hat, size, ("human",))["x_hat"].clamp(0, 1)
            reads_picture.view.detect(reads_picture.module, x_hat[0])

    def encode_with(name: str | None) -> None:
        y = net.analyze(x)
        steps = regions[name].step_map(x, net.step, net, y) if name else net.step
        encode(net, x, y=y, step=steps)

    sides = {f"detect {name}": partial(detect, name) for name in regions}
    for name in (None, *regions):
        sides[f"encode {name or 'without a map'}"] = partial(encode_with, name)
    seconds, _ = _take_turns(sides, args.repeats)
    medians = {name: np.median(rounds[:, 1]) for name, rounds in seconds.items()}
    for name, base in zip(
        sides,
        2 * ["detect people"] + 3 * ["encode without a map"],
        strict=True,
    ):
        ratio = medians[name] / medians[base]
        print(f"{name:22}{medians[name]:8.3f} CPU s   {ratio:.2f} of {base}")


def _make_picture(size: tuple[int, int]) -> torch.Tensor:
    """Returns smooth noise, RGB in [0, 1], ``(1, 3, H, W)``."""
    x = torch.rand(1, 3, size[0] // 8, size[1] // 8)
    return F.interpolate(x, size, mode="bicubic").clamp(0, 1)


def _read_pictures(args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """Yields the first pictures of a folder, or drawn ones, ``(1, 3, H, W)``."""
    if args.pictures:
        paths = find_pictures(args.pictures, deep=False)
        yield from map(read_picture, itertools.islice(paths, args.count))
        return
    from compressai_hm.detection.datasets.drawn import draw

    for seed in range(args.count):
        picture, *_ = draw(np.random.default_rng(seed), ellipses=bool(seed % 2))
        yield torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def _pad(x: torch.Tensor) -> torch.Tensor:
    """Pads a picture to multiples of 64, which CompressAI's models need."""
    pad = (0, -x.shape[3] % 64, 0, -x.shape[2] % 64)
    return F.pad(x, pad, mode="replicate")


def _count_bits(coded: dict) -> int:
    return 8 * sum(len(s) for part in coded["strings"] for s in part)


@torch.no_grad()
def _load_pair(
    name: str, quality: int, pretrained: bool
) -> tuple[nn.Module, nn.Module]:
    """Returns an HM model, and CompressAI's with the same weights."""
    torch.manual_seed(0)
    weights = "base" if pretrained else False
    ours = load_model(name, quality, pretrained=weights, g_t_width=0).eval()
    if not pretrained:
        sigma = 0.35
        scale = sigma / ours.analyze(_make_picture((256, 256))).std()
        *_, last = (m for m in ours.g_a.modules() if isinstance(m, nn.Conv2d))
        last.weight *= scale
        last.bias *= scale
        for net in _find_parameter_nets(ours):
            *_, last = (m for m in net.modules() if isinstance(m, nn.Conv2d))
            last.weight *= 0.01
            last.bias.zero_()
            scales = len(last.bias) // (1 if "hyperprior" in name else 2)
            last.bias[:scales] = sigma
    ours.update(force=True)
    return ours, _load_compressai(ours)


def _find_parameter_nets(net: nn.Module) -> list[nn.Module]:
    """Returns the networks that predict scales and means."""
    named = [m for n, m in net.named_modules() if n.endswith("entropy_parameters")]
    return [m for m in named if list(m.children())] or [net.h_s]


def _load_compressai(net: HumanMachineMixin) -> nn.Module:
    """Returns CompressAI's model with the weights of an HM model."""
    net.update()
    mro = type(net).__mro__
    base = mro[mro.index(TablesMixin) + 1]  # the class that HumanMachineMixin extends
    weights = {k: v for k, v in net.state_dict().items() if not k.startswith("g_t.")}
    if isinstance(net, HM_MODELS["hm-elic2022"]):  # from_state_dict lacks the groups
        groups = net.latent_codec["y"].groups
        base = base(net.g_a[0].out_channels, sum(groups), groups)
        base.load_state_dict(weights)
        return base.eval()
    return base.from_state_dict(weights).eval()


def _parse_size(text: str) -> tuple[int, int]:
    """Returns (H, W) of WIDTHxHEIGHT."""
    width, height = map(int, text.split("x"))
    return height, width


def main() -> None:
    """Runs the comparison that the command line names."""
    parser = _command.parser(__doc__)
    commands = parser.add_subparsers(required=True)

    def add(run: Callable, *shared: str, repeats: int = 0) -> argparse.ArgumentParser:
        """Adds a command with options that several commands have."""
        name, about = run.__name__.replace("_", "-"), run.__doc__.splitlines()[0]
        command = commands.add_parser(name, help=about)
        command.set_defaults(run=run)
        if "pictures" in shared:
            text = "folder; default: drawn pictures"
            command.add_argument("--pictures", type=Path, help=text)
            command.add_argument("--count", type=int, default=24)
        if "checkpoint" in shared:
            command.add_argument("--checkpoint", type=Path, default=DEMO_CODEC)
        if "size" in shared:
            text = "WIDTHxHEIGHT; default: %(default)s"
            command.add_argument(
                "--size", type=_parse_size, default="768x512", help=text
            )
        if "quality" in shared:
            command.add_argument("--quality", type=int, default=3)
        if repeats:
            command.add_argument("--repeats", type=int, default=repeats)
        return command

    demo = "mmdet_configs/hm_faster_rcnn_demo.py"
    add(train, repeats=9).add_argument("--config", default=demo)
    command = add(codec, "size", "quality", repeats=3)
    command.add_argument("--models", nargs="+", choices=COMPARED)
    text = "load CompressAI's weights"
    command.add_argument("--pretrained", action="store_true", help=text)
    command = add(export, "size", "quality", repeats=9)
    command.add_argument("--models", nargs="+", choices=HM_MODELS, default=EXPORTED)
    command.add_argument("--threads", type=int, default=2)
    add(fixed_point, "pictures", "checkpoint")
    add(folder, "pictures", "checkpoint", repeats=5)
    command = add(latent, repeats=9)
    command.add_argument("--quality", type=int, default=2)
    command.add_argument("--picture", type=Path, default=KODIM14)
    command = add(edges, "pictures")
    command.add_argument("--model", choices=RELEASED, default="hm-compact")
    command.add_argument("--steps", nargs="+", type=float, default=[5.6, 2.7, 1.9])
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    _command.run(main)
