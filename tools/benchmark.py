"""Speed, both sides of a comparison in one run.

python tools/benchmark.py train
python tools/benchmark.py train --config mmdet_configs/hm_compact.py
python tools/benchmark.py codec
python tools/benchmark.py entries
python tools/benchmark.py sweep
python tools/benchmark.py folder
python tools/benchmark.py latent
python tools/benchmark.py polite
python tools/benchmark.py export
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
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
from tqdm import tqdm

import compressai_hm.zoo
from compressai_hm.codecs import (
    ENTRIES,
    HM_MODELS,
    Bitstream,
    HumanMachineMixin,
    Steps,
    decode,
    encode,
    encode_to_size,
    importance_of_mask,
    map_of_importance,
    mask_of_boxes,
    picture_bits,
)
from compressai_hm.codecs.entropy.steps import OCTAVE, QUARTER
from compressai_hm.codecs.export import RUNTIMES, export_transforms, load_onnx
from compressai_hm.codecs.files import write_png
from compressai_hm.codecs.pictures import find_pictures, read_picture
from compressai_hm.codecs.tables import TablesMixin
from compressai_hm.zoo import load_checkpoint, load_model
from compressai_hm.zoo.released import RELEASED

DEMO_CODEC = Path(compressai_hm.zoo.__file__).parent / "weights/demo_codec.pth"


def _training(config: str) -> tuple:
    """Model, optimizer and loader of a training config."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    import compressai_hm.detection  # noqa: F401

    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    return model, build_optim_wrapper(model, cfg.optim_wrapper), loader


def train(args: argparse.Namespace) -> None:
    """A full training step against the codec's and the detector's own steps.

    The parts get the tensors of the full step: the codec its pictures, with the mean
    of x_bar in place of the detector; the detector its normalised input, whose gradient
    it computes as well. What lies between the two is in the full step alone.

    Of a codec alone it is forward and backward pass, and the config's optimizer against
    a fused AdamW.
    """
    model, optim, loader = _training(args.config)
    if model.detector is None:
        _train_codec(args, model, optim, loader)
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


def _train_codec(
    args: argparse.Namespace, model: nn.Module, optim: Any, loader: Iterable
) -> None:
    fused = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    times: dict[str, list[float]] = {}

    def timed(name: str, run: Callable) -> Any:
        started = time.perf_counter()
        value = run()
        times.setdefault(name, []).append(time.perf_counter() - started)
        return value

    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for i in range(args.repeats + 2):
        raw = timed("data", lambda: next(batches))
        data = model.data_preprocessor(raw, training=True)
        x, samples = data["inputs"], data["data_samples"]
        losses = timed("forward", partial(model.loss, x, samples))
        timed("backward", model.parse_losses(losses)[0].backward)
        timed("AdamW", fused.step)
        timed(type(optim.optimizer).__name__, optim.step)
        optim.zero_grad()
        if i < 2:  # warms up
            times.clear()
    # An optimizer that updates its bases now and then is rated by the mean.
    means = {name: statistics.fmean(own) for name, own in times.items()}
    print(f"{args.config}, batch {tuple(x.shape)}, {torch.get_num_threads()} threads")
    for name, seconds in means.items():
        print(f"{name:22}{seconds:8.3f} s")
    passes = sum(means[name] for name in ("data", "forward", "backward"))
    own = type(optim.optimizer).__name__
    for name in (own, "AdamW"):
        print(f"steps a second, {name:6}{1 / (passes + means[name]):8.2f}")


def steps(args: argparse.Namespace) -> None:
    """Training steps a second, data and all; what ``polite`` starts."""
    model, optim, loader = _training(args.config)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for _ in range(2):  # warm up
        model.train_step(next(batches), optim)
    done, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < args.seconds:
        model.train_step(next(batches), optim)
        done += 1
    print(done / passed)


def polite(args: argparse.Namespace) -> None:
    """Training beside a busy process, and alone: threads that sleep or spin in waiting.

    "sleep" is what the tools set, GOMP_SPINCOUNT=2000: they sleep after a short spin.
    "spin" is OpenMP's default.
    """
    command = [sys.executable, __file__, "steps", "--config", args.config]
    command += ["--seconds", str(args.seconds)]
    policies = {"sleep": {}, "spin": {"GOMP_SPINCOUNT": "300000"}}
    found = {(busy, side): [] for busy in (False, True) for side in policies}
    for i in range(args.repeats):
        order = sorted(found, reverse=bool(i % 2))
        for busy, side in tqdm(order, desc=f"round {i + 1} of {args.repeats}"):
            env = {**os.environ, **policies[side]}
            env.pop("OMP_WAIT_POLICY", None)
            env["OMP_NUM_THREADS"] = str(args.threads)
            with _busy() if busy else contextlib.nullcontext():
                done = subprocess.run(command, env=env, stdout=subprocess.PIPE)
            done.check_returncode()
            found[busy, side].append(float(done.stdout.split()[-1]))
    print(f"{args.config}, {args.threads} threads, steps a second, medians of", end=" ")
    print(f"{args.repeats} rounds of {args.seconds:g} s")
    print(f"{'':22}{'sleep':>8}{'spin':>8}{'sleep / spin':>14}")
    for busy, name in ((False, "alone"), (True, "beside a busy process")):
        sleep, spin = (statistics.median(found[busy, side]) for side in policies)
        print(f"{name:22}{sleep:8.3f}{spin:8.3f}{sleep / spin:14.3f}")


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


COMPARED = [n for n, entry in ENTRIES.items() if not (entry.steps or entry.released)]
"""Those that CompressAI has too."""


def codec(args: argparse.Namespace) -> None:
    """Coding with an HM model against CompressAI's own with the same weights.

    Without ``--pretrained`` the weights are random, but the entropy part predicts the
    scale that the latents have, so that they cost 0.3 to 1 bpp. "latents" is coding
    without g_a and g_s, which are the floor of the whole.
    """
    names = args.models or COMPARED
    print(f"{torch.get_num_threads()} threads, medians of {args.repeats}, seconds")
    for name in names:
        ours, base = _codecs(name, args.quality, args.pretrained)
        for size in args.sizes:
            width, height = map(int, size.split("x"))
            x = _picture(height, width)
            rows = _timed(ours, base, x, args.repeats)
            coded = ours.compress(x)["strings"]
            bpp = 8 * sum(len(s) for part in coded for s in part) / (height * width)
            print(f"{name} {size}, {bpp:.2f} bpp")
            print(
                f"{'':18}{'ours':>8}{'CompressAI':>12}{'ratio':>8}{'MiB':>8}{'MiB':>8}"
            )
            for row, ((a, a_mib), (b, b_mib)) in rows.items():
                print(
                    f"  {row:16}{a:8.3f}{b:12.3f}{b / a:8.2f}{a_mib:8.0f}{b_mib:8.0f}"
                )
            checks = []
            for _ in range(args.repeats):
                started = time.perf_counter()
                ours.latent_coder()  # compares the weights with those it was made of
                checks.append(time.perf_counter() - started)
            share = statistics.median(checks) / rows["encode"][0][0]
            print(f"  the check of the weights is {share:.2%} of encode")


EXPORTED = ["hm-mbt2018-s", "hm-mbt2018-mean", "hm-cheng2020-anchor"]


@torch.no_grad()
def entries(args: argparse.Namespace) -> None:
    """Coding with one zoo entry against another, at the same step, with their weights.

    "latents" is decoding without g_s.
    """
    nets = [load_model(name, 4, pretrained=True).eval() for name in args.models]
    width, height = map(int, args.size.split("x"))
    if args.picture:
        x = read_picture(args.picture)[..., :height, :width]
    else:
        x = _picture(height, width)
    size, times = tuple(x.shape[-2:]), [{}, {}]

    def timed(into: dict, name: str, run: Callable) -> Any:
        started = time.process_time()
        value = run()
        into.setdefault(name, []).append(time.process_time() - started)
        return value

    lengths = [0, 0]
    for i in range(args.repeats + 1):
        for side, (net, into) in enumerate(zip(nets, times, strict=True)):
            with torch.no_grad():
                timed(into, "g_a", partial(net.analyse, x))
                code = partial(encode, net, x, step=args.step)
                data = timed(into, "encode", code)
                stream = Bitstream.read(data)
                strings, own = [[stream.y], [stream.z]], [stream.steps()]
                latent = partial(net.decode_latent, strings, size, own)
                y_hat, _ = timed(into, "latents", latent)
                picture = partial(net.synthesise, y_hat, size, ("human",))
                timed(into, "g_s", picture)
                timed(into, "decode", partial(decode, net, data, ("human",)))
            lengths[side] = len(data)
            if not i:  # warms up
                into.clear()
    threads = torch.get_num_threads()
    print(f"{width}x{height}, step {args.step}, {threads} threads, medians of")
    print(f"{args.repeats}, CPU seconds")
    first, second = args.models
    print(f"{'':10}{first:>22}{second:>22}{'ratio':>8}")
    for row in times[0]:
        a, b = (statistics.median(own[row]) for own in times)
        print(f"{row:10}{a:22.3f}{b:22.3f}{a / b:8.2f}")
    print(f"{'bytes':10}{lengths[0]:22}{lengths[1]:22}{lengths[0] / lengths[1]:8.2f}")


def export(args: argparse.Namespace) -> None:
    """The transforms in onnxruntime and OpenVINO against torch.

    All get the same tensors and threads, and take turns. Each ratio is the median over
    the rounds of torch's seconds over the runtime's: over 1, the runtime is faster;
    beside it that of the processor's seconds, in which other processes count little.
    The error is the largest difference from torch's result, of x_hat and x_bar in
    [0, 1]; y's is over its largest value, where that is over 1. hm-mbt2018-s has its
    weights, the others random ones.
    """
    torch.set_num_threads(args.threads)
    print(f"{args.size}, {args.threads} threads, medians of {args.repeats} rounds")
    width, height = map(int, args.size.split("x"))
    print(f"{'':26}{'torch':>9}", end="")
    print("".join(f"{name:>14}{'processor':>11}{'error':>9}" for name in RUNTIMES))
    for name in args.models:
        if name in RELEASED:
            net = load_model(name, args.quality, pretrained=True).eval()
        else:
            net, _ = _codecs(name, args.quality, pretrained=False)
        x = _picture(height, width)
        y = net.analyse(x)
        given = {"g_a": x, "g_s": y.round(), "g_t": net.g_s(y.round()).clamp(0, 1)}
        with tempfile.TemporaryDirectory() as folder:
            for path in export_transforms(net, folder):
                own, x_in = getattr(net, path.stem), given[path.stem]
                sides = {"torch": lambda own=own, x_in=x_in: own(x_in).numpy()}
                for runtime in RUNTIMES:
                    run = load_onnx(path, runtime, args.threads)
                    sides[runtime] = lambda run=run, x_in=x_in: run(x_in.numpy())
                _compare_runtimes(f"{name} {path.stem}", sides, args.repeats)


def _compare_runtimes(row: str, sides: dict[str, Callable], repeats: int) -> None:
    """Prints a row of :func:`export`; torch is the first side."""
    took: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    out = {}
    for i in range(repeats + 1):
        for side in sorted(sides, reverse=bool(i % 2)):
            begun = time.perf_counter(), time.process_time()
            out[side] = sides[side]()
            if i:  # the first warms up
                own = time.perf_counter() - begun[0], time.process_time() - begun[1]
                took[side].append(own)
    base, *others = sides
    print(f"{row:26}{statistics.median(a for a, _ in took[base]):7.3f} s", end="")
    for side in others:
        pairs = np.array(took[base]) / np.array(took[side])
        wall, processor = np.median(pairs, axis=0)
        error = np.abs(out[side] - out[base]).max() / max(1, np.abs(out[base]).max())
        print(f"{wall:14.2f}{processor:11.2f}{error:9.0e}", end="")
    print(flush=True)


def _picture(height: int, width: int) -> torch.Tensor:
    x = torch.rand(1, 3, height // 8, width // 8)
    return nn.functional.interpolate(x, (height, width), mode="bicubic").clamp(0, 1)


@torch.no_grad()
def _codecs(name: str, quality: int, pretrained: bool) -> tuple[nn.Module, nn.Module]:
    """The HM model, and its base with the same weights."""
    torch.manual_seed(0)
    weights = "base" if pretrained else False
    ours = load_model(name, quality, pretrained=weights, g_t_width=0).eval()
    if not pretrained:
        sigma = 0.35
        y = ours.analyse(_picture(256, 256))
        last = [m for m in ours.g_a.modules() if isinstance(m, nn.Conv2d)][-1]
        last.weight *= sigma / y.std()
        last.bias *= sigma / y.std()
        for net in _parameter_nets(ours):
            last = [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1]
            last.weight *= 0.01
            last.bias.zero_()
            scales = len(last.bias) // (1 if "hyperprior" in name else 2)
            last.bias[:scales] = sigma
    ours.update(force=True)
    return ours, _base(ours)


def _parameter_nets(net: nn.Module) -> list[nn.Module]:
    """What gives scales and means."""
    named = [m for n, m in net.named_modules() if n.endswith("entropy_parameters")]
    return [m for m in named if list(m.children())] or [net.h_s]


def _medians(sides: list, repeats: int) -> list[tuple[float, float]]:
    """Of each side the median seconds and the peak of memory in MiB."""
    times, peaks = ([], []), [0.0, 0.0]
    for i in range(repeats + 1):
        for side, do in enumerate(sides):
            _forget_peak()
            started = time.perf_counter()
            do()
            if i or repeats == 1:  # the first warms up
                times[side].append(time.perf_counter() - started)
            peaks[side] = max(peaks[side], _peak_mib())
    return [(statistics.median(t), p) for t, p in zip(times, peaks, strict=True)]


@torch.no_grad()
def _timed(ours, base, x, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Per row and side the median seconds and the peak of memory in MiB."""
    y = ours.analyse(x)
    pad = (0, -x.shape[3] % 64, 0, -x.shape[2] % 64)
    padded = nn.functional.pad(x, pad, mode="replicate")
    given = {ours: x, base: padded}
    coded = {net: net.compress(given[net]) for net in (ours, base)}
    y_hat, _ = ours.decode_latent(**coded[ours])

    def without(net, part: str, stand_in):
        def run(do):
            own = net._modules[part]
            net._modules[part] = stand_in
            try:
                return do()
            finally:
                net._modules[part] = own

        return run

    class Gives(nn.Module):
        def __init__(self, out):
            super().__init__()
            self.out = out

        def forward(self, _):
            return self.out

    def both(do):
        return [lambda net=net: do(net) for net in (ours, base)]

    rows = {
        "encode": both(lambda net: net.compress(given[net])),
        "decode": [
            lambda: ours.decompress(**coded[ours], views=("human",)),
            lambda: base.decompress(**coded[base]),
        ],
        "encode latents": [
            lambda: ours.encode_latent(y),
            lambda: without(base, "g_a", Gives(y))(lambda: base.compress(padded)),
        ],
        "decode latents": [
            lambda: ours.decode_latent(**coded[ours]),
            lambda: without(base, "g_s", Gives(x))(
                lambda: base.decompress(**coded[base])
            ),
        ],
        "g_a": [lambda: ours.analyse(x), lambda: base.g_a(padded)],
        "g_s": [
            lambda: ours.synthesise(y_hat, x.shape[-2:], ("human",)),
            lambda: base.g_s(y_hat),
        ],
    }
    return {row: _medians(sides, repeats) for row, sides in rows.items()}


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_bytes(b"5")


def _peak_mib() -> float:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return float("nan")


@torch.no_grad()
def fixed_point(args: argparse.Namespace) -> None:
    """Bits and PSNR of exact coding against CompressAI's floating point.

    Both sides code real bytes with the same weights.
    """
    ours = load_checkpoint(args.checkpoint).eval()
    ours.update()
    base = _base(ours)
    pictures = _pictures(args.pictures, args.count)
    found: list[list[float]] = []
    for x in tqdm(pictures, unit="picture", total=args.count):
        pad = (0, -x.shape[3] % 64, 0, -x.shape[2] % 64)
        padded = nn.functional.pad(x, pad, mode="replicate")
        row = []
        for net, given in ((ours, x), (base, padded)):
            coded = net.compress(given)
            x_hat = net.decompress(**coded)["x_hat"]
            x_hat = x_hat[..., : x.shape[2], : x.shape[3]]
            bits = 8 * sum(len(s) for part in coded["strings"] for s in part)
            mse = (x_hat - x).square().mean()
            row += [bits / x[0, 0].numel(), -10 * mse.log10().item()]
        found.append(row)
    bpp, psnr, base_bpp, base_psnr = map(statistics.mean, zip(*found, strict=True))
    print(f"{type(ours).__name__}, {len(found)} pictures, real bytes without header")
    print(f"  exact           {bpp:8.4f} bpp {psnr:8.3f} dB")
    print(f"  floating point  {base_bpp:8.4f} bpp {base_psnr:8.3f} dB")
    print(f"  cost            {100 * (bpp / base_bpp - 1):+8.3f} %   ", end="")
    print(f"{psnr - base_psnr:+8.4f} dB")


@torch.no_grad()
def size(args: argparse.Namespace) -> None:
    """Coding to a size against coding at the model's own step, and how well it fits.

    Seconds are of the processor, so that other processes count little.
    """
    pictures = list(_pictures(args.pictures, args.count))
    print(f"hm-mbt2018-s, {len(pictures)} pictures, {torch.get_num_threads()} threads")
    print(f"{'bpp':>5}{'quality':>9}{'over':>6}{'under':>8}{'size / plain':>14}")
    for target in args.targets:
        quality = 1 if target <= 0.25 else 3
        net = load_model("hm-mbt2018-s", quality, pretrained=True).eval()
        encode(net, pictures[0])  # makes the coder
        seconds, over, under = [0.0, 0.0], 0, 0.0
        for x in tqdm(pictures, unit="picture", leave=False, disable=None):
            most = int(target * x[0, 0].numel() / 8)
            started = time.process_time()
            encode(net, x)
            between = time.process_time()
            data = encode_to_size(net, x, most)
            seconds[0] += between - started
            seconds[1] += time.process_time() - between
            over += len(data) > most
            under = max(under, 1 - len(data) / most)
        ratio = seconds[1] / seconds[0]
        print(f"{target:5g}{quality:9}{over:6}{under:8.2%}{ratio:14.2f}")


def folder(args: argparse.Namespace) -> None:
    """Encoding a folder: several pictures at a time against one by one.

    Both sides read, code and write, with torch's own number of threads, in processes
    that take turns: one as Python starts it, the other as tools/codec.py sets it up.
    Coding must give the same bytes.
    """
    with contextlib.ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pictures = args.pictures
        if pictures is None:
            pictures = out / "pictures"
            for i in range(args.count):
                x = sum(_picture(512, 768) for _ in range(4)) / 4
                write_png(x, pictures / f"{i:02}.png")
        which = ["--checkpoint", str(args.checkpoint)]
        if args.model:
            which = ["--model", args.model, "--quality", str(args.quality)]
        streams = out / "streams"
        command = ["encode", str(pictures), *which, "--out", str(streams)]
        workers = args.workers or min(4, torch.get_num_threads())
        sides = {"one by one": 1, f"{workers} at a time": workers}
        took: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        files: list[list[bytes]] = []
        for _ in range(args.repeats):
            for side, count in sides.items():
                env = {"OMP_WAIT_POLICY": "PASSIVE"} if count > 1 else {}
                run = _encode_folder, command, args.count, count
                took[side].append(_in_process(env, *run))
                files.append([p.read_bytes() for p in sorted(streams.rglob("*.hmc"))])
                if files[-1] != files[0]:
                    raise RuntimeError(f"{side}: other files")
    count = len(files[0])
    print(
        f"{' '.join(which)}, {count} pictures, {torch.get_num_threads()} threads, "
        f"medians of {args.repeats}"
    )
    print(f"{'':16}{'pictures/s':>12}{'CPU s/picture':>15}")
    speed = []
    for side, times in took.items():
        seconds, processor = (statistics.median(t) for t in zip(*times, strict=True))
        speed.append(count / seconds)
        print(f"{side:16}{speed[-1]:12.2f}{processor / count:15.3f}")
    pairs = [a[0] / b[0] for a, b in zip(*took.values(), strict=True)]
    print(f"faster {speed[1] / speed[0]:.2f} times", end="")
    print(f" ({min(pairs):.2f} to {max(pairs):.2f} in turns)")


def _in_process(env: dict[str, str], run: Callable, *args) -> tuple[float, float]:
    """What it returns in a process of its own, whose environment has these as well."""
    with (
        unittest.mock.patch.dict(os.environ, env),
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        return pool.apply(run, args)


def _encode_folder(command: list[str], count: int, workers: int) -> tuple[float, float]:
    """Seconds and CPU seconds of tools/codec.py on a folder's first pictures."""
    import codec as tool

    own = tool.parse([*command, "--overwrite"])
    jobs = tool.find(own)[:count]
    tool.work(own, jobs[:1], 1)  # reads the weights
    begun = time.perf_counter(), time.process_time()
    *_, failed = tool.work(own, jobs, workers)
    if failed:
        raise RuntimeError(failed[0])
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


_BOXES = [(0.1, 0.2, 0.3, 0.9), (0.4, 0.1, 0.6, 0.5), (0.7, 0.6, 0.8, 0.7)]


@torch.no_grad()
def map_of_steps(args: argparse.Namespace) -> None:
    """Coding by a map of steps against one step that gives files as large.

    The map is of three boxes, twice as fine inside. Seconds are of the processor.
    """
    net = load_model("hm-mbt2018-s", 1, pretrained=True).eval()
    encode(net, torch.zeros(1, 3, 64, 64))  # makes the coder
    seconds = {"encode": [0.0, 0.0], "decode": [0.0, 0.0]}
    size, bytes_of_maps = [0, 0], 0
    pictures = list(_pictures(args.pictures, args.count))
    for x in tqdm(pictures, unit="picture", leave=False, disable=None):
        height, width = x.shape[-2:]
        boxes = torch.tensor(_BOXES) * torch.tensor([width, height] * 2)
        inside = importance_of_mask(mask_of_boxes(boxes, (height, width)))
        mapped = encode(net, x, step=map_of_importance(inside, 2.0, 2.0))
        stream = Bitstream.read(mapped)
        bytes_of_maps += len(stream.map)
        plain = Bitstream.read(encode_to_size(net, x, len(mapped))).steps()
        for side, steps in enumerate((plain, stream.steps())):
            started = time.process_time()
            data = encode(net, x, step=steps)
            between = time.process_time()
            decode(net, data, ("human",))
            seconds["encode"][side] += between - started
            seconds["decode"][side] += time.process_time() - between
            size[side] += len(data)
    print(f"hm-mbt2018-s, {len(pictures)} pictures, {torch.get_num_threads()} threads")
    for name, (plain, mapped) in seconds.items():
        print(f"{name}, map / one step: {mapped / plain:.3f}")
    print(f"bytes, map / one step: {size[1] / size[0]:.3f}", end="")
    print(f", of which maps {bytes_of_maps / size[1]:.2%}")


def edges(args: argparse.Namespace) -> None:
    """What a map's edges cost: y's bits against shares of two files of one step each.

    The maps are of two halves, one four times as fine as the other, and of a finer line
    one position wide.
    """
    net = load_model(args.model, 4, pretrained=True).eval()
    costs: dict[str, list[float]] = {}
    pictures = list(_pictures(args.pictures, args.count))
    for x in tqdm(pictures, unit="picture", leave=False, disable=None):
        y = net.analyse(x)
        height, width = y.shape[-2:]
        rows, cols = torch.arange(height)[:, None], torch.arange(width)
        fine = {
            "across": (rows < height // 2).expand(height, width),
            "along": (cols < width // 2).expand(height, width),
            "line": (rows == height // 2).expand(height, width),
        }
        for step in args.steps:
            base = Steps.of(step, (1, 1)).base
            ends = [Steps(base), Steps(base - 2 * OCTAVE)]
            coarse_bits, fine_bits = (_bits_of_y(net, y, own) for own in ends)
            for name, inside in fine.items():
                offsets = np.where(inside, -2 * OCTAVE // QUARTER, 0).astype(np.int8)
                mapped = _bits_of_y(net, y, Steps(base, offsets)).sum()
                shares = torch.where(inside, fine_bits, coarse_bits).sum()
                key = f"{name}, step {step:g} and {step / 4:g}"
                costs.setdefault(key, []).append(float(mapped / shares))
    print(f"{args.model}, {len(pictures)} pictures, y's bits, map / shares")
    for key, own in costs.items():
        print(f"{key:28}{statistics.fmean(own):7.3f}  {min(own):.3f} to {max(own):.3f}")


@torch.no_grad()
def _bits_of_y(net: nn.Module, y: torch.Tensor, steps: Steps) -> torch.Tensor:
    """At each position, ``(h, w)``."""
    return -net.code_latent(y, [steps])["likelihoods"]["y"][0].log2().sum(0)


def _pictures(folder: Path | None, count: int) -> Iterator[torch.Tensor]:
    if folder is None:
        return _drawn(count)
    return map(read_picture, itertools.islice(find_pictures(folder, deep=False), count))


def latent(args: argparse.Namespace) -> None:
    """From a stream to detections: from y_hat against through a picture.

    Both sides begin with decoding the same y_hat. Weights are those that the configs
    name where they are at hand, or else random, which changes no size.
    """
    from torch.utils.flop_counter import FlopCounterMode

    import compressai_hm.detection  # noqa: F401

    rows = {}
    for name, config in (("picture", args.picture), ("latent", args.latent)):
        model = _detector(config)
        height, width = map(int, reversed(args.size.split("x")))
        x = _picture(height, width)
        coded = model.codec.compress(x)
        with FlopCounterMode(display=False) as counter:
            _detect(model, coded)
        seconds = []
        for _ in range(args.repeats):
            started = time.perf_counter()
            _detect(model, coded)
            seconds.append(time.perf_counter() - started)
        rows[name] = statistics.median(seconds), counter.get_total_flops() / 2e9
    print(f"{args.size}, {torch.get_num_threads()} threads, medians of {args.repeats}")
    for name, (seconds, macs) in rows.items():
        print(f"{name:10}{seconds:8.3f} s {macs:10.2f} GMAC")
    ratios = [a / b for a, b in zip(rows["latent"], rows["picture"], strict=True)]
    print("latent / picture: time {:.2f}, MACs {:.2f}".format(*ratios))


def _detector(config: str) -> nn.Module:
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with contextlib.suppress(RuntimeError, OSError):
        model.init_weights()
    return model.eval()


@torch.no_grad()
def _detect(model: nn.Module, coded: dict) -> None:
    from mmdet.structures import DetDataSample

    size = coded["shape"]
    y_hat, _ = model.codec.decode_latent(coded["strings"], size)
    view = y_hat
    if model.task_view == "x_bar":
        view = model.codec.synthesise(y_hat, size, ("machine",))["x_bar"].clamp(0, 1)
    sample = DetDataSample(metainfo={"img_shape": size, "ori_shape": size})
    model.detector.predict(*model.for_detector(view, sample))


def sweep(args: argparse.Namespace) -> None:
    """A sweep by two of Dask's workers against this process alone, a thread each.

    Starting workers and loading models is told apart: each side is what all pictures
    take less what a tenth of them do. Both must measure the same.
    """
    from mmengine.config import Config

    import compressai_hm.detection  # noqa: F401
    from compressai_hm.evaluation.sweep import Sweep, run

    cfg = Config.fromfile(args.config)

    def measured(jobs: int, count: int) -> tuple[np.ndarray, list[bytes]]:
        for entry in cfg.sets:
            entry["count"] = count
        with tempfile.TemporaryDirectory() as folder:
            ours = Sweep(cfg, folder)
            started, cpu = time.perf_counter(), _cpu_seconds()
            run(ours, jobs)
            took = time.perf_counter() - started, _cpu_seconds() - cpu
            found = [ours.result_file(p).read_bytes() for p in ours.points()]
            return np.array(took), found

    few = args.count // 10
    measured(1, few)  # loads the models of this process
    sides = {"this process": 1, "two workers": 2}
    whole, start, found = {}, {}, {}
    for side, jobs in sides.items():
        start[side], _ = measured(jobs, few)
        whole[side], found[side] = measured(jobs, args.count)
    if found["this process"] != found["two workers"]:
        raise RuntimeError("two workers measure other than this process")
    took = {side: whole[side] - start[side] for side in sides}
    print(f"{args.config}, {args.count - few} pictures of each set, a thread each")
    print(f"{'':14}{'seconds':>9}{'CPU seconds':>13}{'with the start':>16}")
    for side, (seconds, cpu) in took.items():
        print(f"{side:14}{seconds:9.1f}{cpu:13.1f}{whole[side][0]:16.1f}")
    seconds, cpu = took["two workers"] / took["this process"]
    print(f"{'ratio':14}{seconds:9.2f}{cpu:13.2f}")


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def _drawn(count: int) -> Iterator[torch.Tensor]:
    from compressai_hm.detection.drawn import draw

    for seed in range(count):
        picture, *_ = draw(np.random.default_rng(seed), ellipses=bool(seed % 2))
        yield torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def _base(net: HumanMachineMixin) -> nn.Module:
    """CompressAI's model with the same weights."""
    net.update()
    mro = type(net).__mro__
    base = mro[mro.index(TablesMixin) + 1]  # HumanMachineMixin's own base
    weights = {k: v for k, v in net.state_dict().items() if not k.startswith("g_t.")}
    if isinstance(net, HM_MODELS["hm-elic2022"]):  # its own does not infer these
        groups = net.latent_codec["y"].groups
        base = base(net.g_a[0].out_channels, sum(groups), groups)
        base.load_state_dict(weights)
        return base.eval()
    return base.from_state_dict(weights).eval()


def main() -> None:
    parser = _command.parser(__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help=train.__doc__.splitlines()[0])
    command.add_argument("--config", default="mmdet_configs/hm_faster_rcnn_demo.py")
    command.add_argument("--repeats", type=int, default=9)
    command.set_defaults(run=train)
    for name in (steps, polite):
        command = commands.add_parser(name.__name__, help=name.__doc__.splitlines()[0])
        command.add_argument("--config", default="mmdet_configs/hm_faster_rcnn_demo.py")
        command.add_argument("--seconds", type=float, default=30.0)
        command.set_defaults(run=name)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--repeats", type=int, default=5)
    command = commands.add_parser("codec", help=codec.__doc__.splitlines()[0])
    command.add_argument("--models", nargs="+", choices=COMPARED)
    command.add_argument("--sizes", nargs="+", default=["768x512", "1280x720"])
    command.add_argument("--quality", type=int, default=3)
    command.add_argument("--pretrained", action="store_true", help="the base's weights")
    command.add_argument("--repeats", type=int, default=3)
    command.set_defaults(run=codec)
    command = commands.add_parser("entries", help=entries.__doc__.splitlines()[0])
    both = ["hm-compact", "hm-mbt2018-vbr-s-v2"]
    command.add_argument("--models", nargs=2, choices=RELEASED, default=both)
    command.add_argument("--size", default="768x512")
    command.add_argument("--picture", type=Path, help="default: a drawn one")
    command.add_argument("--step", type=float, default=1.9)
    command.add_argument("--repeats", type=int, default=9)
    command.set_defaults(run=entries)
    command = commands.add_parser(
        "fixed-point", help=fixed_point.__doc__.splitlines()[0]
    )
    command.add_argument("--checkpoint", type=Path, default=DEMO_CODEC)
    command.add_argument("--pictures", type=Path, help="folder; default: drawn ones")
    command.add_argument("--count", type=int, default=24)
    command.set_defaults(run=fixed_point)
    command = commands.add_parser("size", help=size.__doc__.splitlines()[0])
    command.add_argument("--pictures", type=Path, help="folder; default: drawn ones")
    command.add_argument("--count", type=int, default=24)
    command.add_argument("--targets", nargs="+", type=float, default=[0.1, 0.2, 0.4])
    command.set_defaults(run=size)
    command = commands.add_parser("map", help=map_of_steps.__doc__.splitlines()[0])
    command.add_argument("--pictures", type=Path, help="folder; default: drawn ones")
    command.add_argument("--count", type=int, default=24)
    command.set_defaults(run=map_of_steps)
    command = commands.add_parser("edges", help=edges.__doc__.splitlines()[0])
    command.add_argument("--model", choices=RELEASED, default="hm-compact")
    command.add_argument("--pictures", type=Path, help="folder; default: drawn ones")
    command.add_argument("--count", type=int, default=24)
    command.add_argument("--steps", nargs="+", type=float, default=[5.6, 2.7, 1.9])
    command.set_defaults(run=edges)
    command = commands.add_parser("folder", help=folder.__doc__.splitlines()[0])
    command.add_argument("--pictures", type=Path, help="folder; default: drawn ones")
    command.add_argument("--count", type=int, default=24)
    command.add_argument("--checkpoint", type=Path, default=DEMO_CODEC)
    command.add_argument("--model", help="zoo entry in place of --checkpoint")
    command.add_argument("--quality", type=int, default=2)
    command.add_argument("--workers", type=int, help="default: the tool's")
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=folder)
    command = commands.add_parser("latent", help=latent.__doc__.splitlines()[0])
    demo = "mmdet_configs/hm_faster_rcnn{}_demo.py"
    command.add_argument("--picture", default=demo.format(""), help="config")
    command.add_argument("--latent", default=demo.format("_latent"), help="config")
    command.add_argument("--size", default="768x512")
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=latent)
    command = commands.add_parser("export", help=export.__doc__.splitlines()[0])
    command.add_argument("--models", nargs="+", choices=HM_MODELS, default=EXPORTED)
    command.add_argument("--size", default="768x512", help="multiples of 64")
    command.add_argument("--quality", type=int, default=3)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--repeats", type=int, default=9)
    command.set_defaults(run=export)
    command = commands.add_parser("sweep", help=sweep.__doc__.splitlines()[0])
    command.add_argument("--config", default="results/sweeps/demo.py")
    command.add_argument("--count", type=int, default=100, help="pictures of each set")
    command.set_defaults(run=sweep)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    _command.run(main)
