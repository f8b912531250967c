"""Codes pictures into small files, and decodes them for humans and machines.

python tools/codec.py encode photos --checkpoint codec.pth.tar --out streams
python tools/codec.py decode streams --checkpoint codec.pth.tar --out decoded
python tools/codec.py info streams
python tools/codec.py readers
python tools/codec.py export --checkpoint codec.pth.tar --out transforms

NAME.png is coded into NAME.hmc, and that is decoded into NAME.human.png. Weights with a
g_t make NAME.machine.png as well, and --reader READER makes NAME.READER.png or .npz
instead. If two pictures have the same NAME, their files are NAME.png.hmc and
NAME.jpg.hmc.
"""

import argparse
import importlib
import io
import math
import os
import sys
import threading
import warnings
from pathlib import Path

# Threads that wait must leave their cores to others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import _command
import numpy as np
import torch
from _codec_options import READERS, VIEWS, parse
from _folder import InOrder, default_workers
from _shared import (
    load_detector_regions,
    load_for_stream,
    load_weights,
    once,
    quiet_openmmlab,
)
from torch import nn
from tqdm import tqdm

from compressai_hm import (
    Bitstream,
    QuantSteps,
    StreamReader,
    decode,
    encode,
)
from compressai_hm.bitstream.file_names import (
    SUFFIX,
    check_free,
    free_path,
    is_pipe,
    plan_outputs,
    read_content,
)
from compressai_hm.bitstream.reader import find_reader, load_reader, reader_files
from compressai_hm.encoder.rate_control import encode_picture, nearest_quality
from compressai_hm.encoder.regions import base_step, choose_steps
from compressai_hm.geometry import padded_latent_size
from compressai_hm.io.colors import heard, warn
from compressai_hm.io.files import encode_png, write_whole
from compressai_hm.io.pictures import count_pixels, read_picture
from compressai_hm.models.export import (
    export_transforms,
    transform_files,
    use_runtime,
)
from compressai_hm.zoo import cfgs


def main() -> int:
    """Runs the command, and returns 1 if a file failed."""
    args = parse(about=__doc__)
    sys.stdout.reconfigure(errors="backslashreplace")
    if args.command == "readers":
        return list_readers(args)
    if args.command == "export":
        return export(args)
    encoding, out = args.command == "encode", getattr(args, "out", None)
    jobs = plan_outputs(args.inputs, out, encoding)
    if not jobs:
        kind = "pictures" if encoding else f"{SUFFIX} files"
        raise ValueError(f"there are no {kind} in {', '.join(map(str, args.inputs))}")
    for name in args.imports:
        import_module(name)
    if args.command != "info" and (
        args.checkpoint or (args.model and args.quality is not None)
    ):
        load_weights(args.checkpoint, args.model, args.quality, args.metric or "mse")
        if args.command == "decode" and args.reader:
            load_named_reader(args.reader)
        if args.command == "encode" and args.config:
            load_training_model(args.config)
    if args.command == "encode" and args.roi_detector:
        load_detector_regions(*detector_options(args))
    # --refine draws from the process's generator of random numbers.
    serial = args.command == "info" or (encoding and args.refine)
    workers = 1 if serial else min(len(jobs), default_workers())
    lines, bpps, remarks, failed = work(args, jobs, workers)
    for line in lines:
        print(_command.escape(line))
    if len(bpps) > 1:
        print(f"{len(bpps)} pictures, {sum(bpps) / len(bpps):.4f} bpp on average")
    for line in remarks + failed:
        print(_command.escape(line), file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} failed", file=sys.stderr)
    return bool(failed)


def work(
    args: argparse.Namespace, jobs: list[tuple[Path, Path]], workers: int
) -> tuple[list[str], list[float], list[str], list[str]]:
    """Runs the command on all files, and writes the results.

    Args:
        args: The options.
        jobs: The result of :func:`plan_outputs`.
        workers: Number of files at a time.

    Returns:
        Lines and bpp of the files that succeeded, their warnings, and errors of the
        others.

    Raises:
        ValueError: If the only file fails.
    """
    lines, bpps, remarks, failed = [], [], [], []
    firsts: dict[Path, Path] = {}
    for source, target in jobs:
        firsts.setdefault(target, source)
    commands = {"encode": encode_file, "decode": decode_file, "info": describe_file}
    command = commands[args.command]

    def run(job: tuple[Path, Path]) -> tuple[Result, list[str]]:
        source, target = job
        if firsts[target] != source:
            raise ValueError(f"{firsts[target]} has the same name; give another --out")
        before = heard.set([])
        try:
            return command(args, source, target), heard.get()
        finally:
            heard.reset(before)

    def size(job: tuple[Path, Path]) -> int:
        if is_pipe(job[0]):
            return 0
        count = count_pixels if args.command == "encode" else count_stream_pixels
        return count(job[0])

    most = getattr(args, "max_pixels", 0)
    quiet = args.command == "info" or len(jobs) == 1
    with (
        warnings.catch_warnings(),
        InOrder(run, jobs, workers, size, most) as results,
        tqdm(results, total=len(jobs), unit="picture", disable=quiet) as bar,
    ):
        warnings.simplefilter("ignore")
        for (source, _), wait in bar:
            bar.set_postfix_str(_command.escape(source.name))
            try:
                (line, bpp, files), warned = wait()
                for path in files:
                    check_free(path, args.overwrite)
                for path, data in files.items():
                    write_whole(data, path)
            except (OSError, ValueError, RuntimeError, MemoryError) as e:
                reason = _command.sentence(e).removeprefix(f"{source}: ")
                failed.append(f"{source}: {reason}")
                if len(jobs) == 1:
                    raise ValueError(_command.escape(failed[0])) from e
                continue
            lines.append(line)
            bpps.append(bpp)
            remarks += warned
    return lines, bpps, remarks, failed


def import_module(name: str) -> None:
    """Imports a module by its name or by its file."""
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise FileNotFoundError(f"--import {name}: there is no such file")
        sys.path.insert(0, str(path.resolve().parent))
        name = path.stem
    importlib.import_module(name)


@once
def in_runtime(net: nn.Module, runtime: str, transform: str) -> nn.Module:
    """Returns the codec after setting the runtime of one of its transforms."""
    if runtime != "torch":
        use_runtime(net, runtime, transform)
    return net


@once
def load_named_reader(name: str) -> StreamReader:
    """Loads a reader once for all files."""
    return find_reader(name, READERS)


@once
def load_training_model(config: str) -> nn.Module:
    """Loads the model of a training config once for all files."""
    import _launch

    from compressai_hm.detection.build import build_model

    quiet_openmmlab()
    return build_model(str(_launch.find_config(config)))


def export(args: argparse.Namespace) -> int:
    """Writes the transforms, and returns 0."""
    for name in args.imports:
        import_module(name)
    net = load_weights(args.checkpoint, args.model, args.quality, args.metric)
    for path in transform_files(net, args.out, args.format):
        check_free(path, args.overwrite)
    for path in export_transforms(net, args.out, args.format):
        print(path)
    return 0


def list_readers(args: argparse.Namespace) -> int:
    """Prints a line for each reader, and returns 1 if one cannot be read."""
    failed = 0
    for path in reader_files(args.inputs):
        try:
            reader = load_reader(path)
        except (OSError, ValueError) as e:
            print(e, file=sys.stderr)
            failed += 1
            continue
        count = sum(p.numel() for p in reader.net.parameters())
        print(
            f"{reader.name}: reads {reader.reads} of {reader.stream}, "
            f"{count / 1e6:.2f} M weights, {path}"
        )
    return bool(failed)


Result = tuple[str, float, dict[Path, bytes]]
"""A line for the user, bits per pixel, and the files to write."""


def encode_file(args: argparse.Namespace, source: Path, target: Path) -> Result:
    """Codes a picture."""
    target = free_path(target, SUFFIX, args.overwrite)
    piped = is_pipe(source)
    x = read_picture(read_content(source) if piped else source, args.max_pixels, source)
    most = args.bytes or (args.bpp and int(args.bpp * x[0, 0].numel() / 8))
    if most == 0:
        raise ValueError("the picture does not fit into 0 bytes")
    quality = args.quality
    if quality is None and not args.checkpoint:
        quality = choose_quality(args, x, most)
    net = load_weights(args.checkpoint, args.model, quality, args.metric)
    net = in_runtime(net, args.runtime, "g_a")
    x = x.to(next(net.parameters()).device)
    step = net.step if args.step is None else args.step
    steps, y = find_steps(args, x, None if most else step, net)
    if not most and step > net.coarsest_step:
        text = f"step {step:g} is coarser than {net.coarsest_step:g}, the coarsest that"
        warn(source, f"{text} its weights were trained for: the file may be larger")
    if args.config:
        y = load_training_model(args.config).to(x.device).refine(x, args.refine, net)
    data = encode_picture(
        net, x, steps, most, quality or 0, args.metric, args.refine, y
    )
    bpp = 8 * len(data) / x[0, 0].numel()
    finer = ""
    if args.roi or args.roi_detector:
        finer = ", the same step everywhere"
        if steps.offsets is not None:
            finer = f", {(steps.offsets < 0).mean():.0%} of it finer"
    line = f"{target}: {len(data)} bytes, {bpp:.4f} bpp{finer}"
    return line, bpp, {target: data}


_detector_lock = threading.Lock()
"""OpenMMLab is not documented to be safe for threads."""


def find_steps(
    args: argparse.Namespace, x: torch.Tensor, step: float | None, net: nn.Module
) -> tuple[QuantSteps, torch.Tensor | None]:
    """Chooses a picture's quantization steps; ``step`` is None for coding to a size.

    Returns:
        The steps, and the picture's latent if a detector has read it.
    """
    maps, y = [], None
    if args.roi_detector:
        with _detector_lock:
            regions = load_detector_regions(*detector_options(args))
            if regions.read_latents:
                with torch.no_grad():
                    y = net.analyze(x)
            maps = [regions.step_map(x, base_step(step), net, y)]
    size = tuple(x.shape[-2:])
    steps = choose_steps(size, step, args.roi, args.roi_gain, maps)
    return steps, None if args.refine else y


def detector_options(args: argparse.Namespace) -> tuple:
    """Returns the arguments of :func:`load_detector_regions`."""
    names, classes = tuple(args.roi_detector), tuple(args.roi_class)
    return names, args.roi_detector_gain, classes, args.model, args.metric


def choose_quality(args: argparse.Namespace, x: torch.Tensor, most: int) -> int:
    """Finds the zoo entry's quality whose file is nearest to ``most`` bytes."""

    def size(quality: int) -> int:
        net = load_weights(None, args.model, quality, args.metric)
        picture = x.to(next(net.parameters()).device)
        return len(encode(net, picture, quality, args.metric))

    return nearest_quality(cfgs[args.model], most, size)


def decode_file(args: argparse.Namespace, source: Path, target: Path) -> Result:
    """Decodes a file into its views."""
    data = read_content(source)
    stream = Bitstream.read(data)
    net = in_runtime(
        load_for_stream(stream, args.checkpoint, args.model, args.quality, args.metric),
        args.runtime,
        "g_s",
    )
    reader = load_named_reader(args.reader) if args.reader else None
    views = (args.view,) if args.view in VIEWS else tuple(VIEWS)
    if args.view is None and reader is None and isinstance(net.g_t, nn.Identity):
        views = ("human",)  # the machine's view would be the same picture
    paths = {}
    for view in views:
        suffix = f".{view}.png"
        if reader and view == "machine":
            suffix = f".{reader.name}.{'npz' if reader.reads == 'y_hat' else 'png'}"
        paths[view] = free_path(target, suffix, args.overwrite)
    out = decode(net, data, views, args.max_pixels, reader)
    files = {
        path: encode_png(out[VIEWS[view]])
        if VIEWS[view] in out
        else encode_npz(out["features"], reader.net.strides)
        for view, path in paths.items()
    }
    return ", ".join(map(str, files)), _compute_bpp(stream, data), files


def encode_npz(levels: tuple, strides: tuple[int, ...]) -> bytes:
    """Returns a pyramid as a file of NumPy arrays ``stride_S``, ``(C, h, w)``."""
    arrays = {
        f"stride_{stride}": level[0].cpu().numpy()
        for stride, level in zip(strides, levels, strict=True)
    }
    with io.BytesIO() as f:
        np.savez(f, **arrays)
        return f.getvalue()


def describe_file(args: argparse.Namespace, source: Path, target: Path) -> Result:
    """Describes the content of a file."""
    data = read_content(source)
    stream = Bitstream.read(data)
    height, width = stream.size
    bpp = _compute_bpp(stream, data)
    files = {}
    if args.map_png:
        path = target.with_name(f"{target.name}.map.png")
        files[path] = encode_png(draw_steps(stream))
    return (
        f"{source}: {width}x{height}, {len(data)} bytes, {bpp:.4f} bpp "
        f"(y {len(stream.y)}, z {len(stream.z)}), {describe_steps(stream)}"
        f"{stream.weights()}",
        bpp,
        files,
    )


def describe_steps(stream: Bitstream) -> str:
    """Returns text about a file's quantization steps; empty if they are all 1."""
    steps = stream.steps()
    if steps.plain:
        return ""
    if steps.offsets is None:
        return f"step {steps.values((1, 1)).item():.3f}, "
    values = steps.values(steps.offsets.shape)
    return (
        f"steps {values.min():.3f} to {values.max():.3f} by a map of "
        f"{len(stream.map)} bytes, "
    )


def draw_steps(stream: Bitstream) -> torch.Tensor:
    """Draws steps from 4 (black) to a quarter (white), ``(1, 3, H, W)``."""
    height, width = stream.size
    values = stream.steps().values(padded_latent_size(stream.size))
    shade = torch.from_numpy(0.5 - np.log2(values) / 4).clamp(0, 1).float()
    shade = shade.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return shade[:height, :width].expand(1, 3, -1, -1)


def count_stream_pixels(path: Path) -> int:
    """Returns the pixels of the picture in a file; 0 if it holds none."""
    try:
        return math.prod(Bitstream.read(path.read_bytes()).size)
    except (OSError, ValueError):
        return 0


def _compute_bpp(stream: Bitstream, data: bytes) -> float:
    return 8 * len(data) / (stream.size[0] * stream.size[1])


if __name__ == "__main__":
    _command.run(main, "stopped; every file written so far is whole")
