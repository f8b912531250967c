"""Codes pictures into small files, and decodes them for humans and machines.

python tools/codec.py encode photos --checkpoint codec.pth.tar --out streams
python tools/codec.py decode streams --checkpoint codec.pth.tar --out decoded
python tools/codec.py info streams
python tools/codec.py readers
python tools/codec.py export --checkpoint codec.pth.tar --out transforms

NAME.png becomes NAME.hmc, and that NAME.human.png; with weights that adapt pictures
for machines, or --reader, NAME.machine.png as well. Where two pictures have one NAME,
such as NAME.png and NAME.jpg in a folder, the files are NAME.png.hmc and NAME.jpg.hmc.
"""

import argparse
import importlib
import io
import logging
import math
import os
import re
import sys
import threading
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING

# Threads that wait for each other must not keep cores from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import _command
import numpy as np
import torch
from _codec_options import READERS, STDIN, SUFFIX, VIEWS, parse
from _folder import InOrder, default_workers
from PIL import Image, ImageOps
from torch import nn
from tqdm import tqdm

from compressai_hm.codecs import (
    ENTRIES,
    Bitstream,
    BitstreamError,
    Steps,
    StreamReader,
    decode,
    encode,
    refine,
)
from compressai_hm.codecs.colours import heard, warn
from compressai_hm.codecs.export import (
    export_transforms,
    transform_files,
    use_runtime,
)
from compressai_hm.codecs.files import files_in, is_broken_link, png_of, write_whole
from compressai_hm.codecs.pictures import (
    find_pictures,
    is_picture,
    pixels_of,
    read_picture,
)
from compressai_hm.codecs.rate import encode_to_size, nearest_quality
from compressai_hm.codecs.readers import find_reader, load_reader, reader_files
from compressai_hm.codecs.regions import (
    importance_of_mask,
    map_of_importance,
    mask_of_boxes,
)
from compressai_hm.zoo import cfgs, load_checkpoint, load_model
from compressai_hm.zoo.released import RELEASED

if TYPE_CHECKING:
    from compressai_hm.detection import Attention


def main() -> int:
    args = parse(about=__doc__)
    sys.stdout.reconfigure(errors="backslashreplace")
    if args.command == "readers":
        return list_readers(args)
    if args.command == "export":
        return export(args)
    jobs = find(args)
    if not jobs:
        kind = "pictures" if args.command == "encode" else f"{SUFFIX} files"
        raise ValueError(f"there are no {kind} in {', '.join(map(str, args.inputs))}")
    for name in getattr(args, "imports", ()):
        import_own(name)
    if args.command != "info" and (
        args.checkpoint or (args.model and args.quality is not None)
    ):
        weights(args.checkpoint, args.model, args.quality, args.metric or "mse")
        if args.command == "decode" and args.reader:
            reader(args.reader)
        if args.command == "encode" and args.config:
            refiner(args.config)
    if args.command == "encode" and args.attend:
        attention(*attended(args))
    lines, bpps, remarks, failed = work(args, jobs, workers_for(args, len(jobs)))
    for line in lines:
        print(shown(line))
    if len(bpps) > 1:
        print(f"{len(bpps)} pictures, {sum(bpps) / len(bpps):.4f} bpp on average")
    for line in remarks + failed:
        print(shown(line), file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} failed", file=sys.stderr)
    return bool(failed)


def workers_for(args: argparse.Namespace, count: int) -> int:
    # --refine draws from the process's one generator of random numbers.
    alone = args.command == "info" or (args.command == "encode" and args.refine)
    return 1 if alone else min(count, default_workers())


def work(
    args: argparse.Namespace, jobs: list[tuple[Path, Path]], workers: int
) -> tuple[list[str], list[float], list[str], list[str]]:
    """Does what there is to do, and writes the files.

    Args:
        args: Of the command.
        jobs: Of :func:`find`.
        workers: How many files at a time.

    Returns:
        Lines and bpp of the files that went well, warnings of these, and errors.

    Raises:
        ValueError: If the only file fails.
    """
    lines, bpps, remarks, failed = [], [], [], []
    firsts: dict[Path, Path] = {}
    for source, target in jobs:
        firsts.setdefault(target, source)
    do = {"encode": encode_file, "decode": decode_file, "info": info_file}[args.command]

    def run(job: tuple[Path, Path]) -> tuple[Result, list[str]]:
        source, target = job
        if firsts[target] != source:
            raise ValueError(f"{firsts[target]} has the same name; give another --out")
        before = heard.set([])
        try:
            return do(args, source, target), heard.get()
        finally:
            heard.reset(before)

    def size(job: tuple[Path, Path]) -> int:
        if is_pipe(job[0]):
            return 0
        return (pixels_of if args.command == "encode" else pixels_in)(job[0])

    most = getattr(args, "max_pixels", 0)
    quiet = args.command == "info" or len(jobs) == 1
    with (
        warnings.catch_warnings(),
        InOrder(run, jobs, workers, size, most) as results,
        tqdm(results, total=len(jobs), unit="picture", disable=quiet) as bar,
    ):
        warnings.simplefilter("ignore")
        for (source, _), awaited in bar:
            bar.set_postfix_str(shown(source.name))
            try:
                (line, bpp, files), warned = awaited()
                for path in files:
                    check_free(args, path)
                for path, data in files.items():
                    write_whole(data, path)
            except (OSError, ValueError, RuntimeError, MemoryError) as e:
                reason = _command.sentence(e).removeprefix(f"{source}: ")
                failed.append(f"{source}: {reason}")
                if len(jobs) == 1:
                    raise ValueError(shown(failed[0])) from e
                continue
            lines.append(line)
            bpps.append(bpp)
            remarks += warned
    return lines, bpps, remarks, failed


def import_own(name: str) -> None:
    """Imports a module by its name, or by its file."""
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise FileNotFoundError(f"--import {name}: there is no such file")
        sys.path.insert(0, str(path.resolve().parent))
        name = path.stem
    importlib.import_module(name)


def shown(text: str) -> str:
    """One line for a screen, of names that may hold anything."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode()
        for c in text
    )


def find(args: argparse.Namespace) -> list[tuple[Path, Path]]:
    """The files to work on, and the path without suffix to write each to."""
    encoding, out = args.command == "encode", getattr(args, "out", None)
    folders: dict[Path, Path] = {}
    seen = set()
    for given in args.inputs:
        inside = given.is_dir()
        search = find_pictures if encoding else find_streams
        for path in search(given) if inside else [given]:
            folder = out or (given if inside else folder_of(path))
            if inside:
                folder /= path.relative_to(given).parent
            once_only = os.path.realpath(path), folder
            if once_only not in seen:  # else it was given twice
                folders[path] = folder
            seen.add(once_only)
    # NAME alone, unless another would have it.
    full = {p for p in folders if encoding and (p.suffix == SUFFIX or has_twin(p))}
    while True:
        targets = {p: folder / name_of(p, p in full) for p, folder in folders.items()}
        count = Counter(targets.values())
        more = {p for p, target in targets.items() if count[target] > 1} - full
        if not more:
            return list(targets.items())
        full |= more


def is_pipe(path: Path) -> bool:
    """Whether it can be read only once, such as standard input."""
    return path == STDIN or (
        os.path.exists(path) and not (path.is_file() or path.is_dir())
    )


def content_of(path: Path) -> bytes:
    """What a file or a pipe holds."""
    return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()


def folder_of(path: Path) -> Path:
    """Where what becomes of a file is written if nothing is said."""
    return Path() if is_pipe(path) else path.parent


def name_of(path: Path, whole: bool) -> str:
    """Of what becomes of a file, without its suffix unless ``whole``."""
    return path.name if whole or is_pipe(path) else path.stem


def find_streams(folder: Path) -> Iterator[Path]:
    for path in files_in(folder):
        missing = not path.suffix and is_broken_link(path)
        if missing or path.suffix.lower() == SUFFIX:
            yield path


def has_twin(path: Path) -> bool:
    """Whether another picture of the folder has the name but for its suffix, or mine.

    It may be coded by a command of its own, to the same folder.
    """
    if is_pipe(path):
        return False
    twins = (_by_stem(path.parent)[path.stem] | {path.stem}) - {path.name}
    return any(is_picture(path.with_name(name)) for name in twins)


@cache
def _by_stem(folder: Path) -> dict[str, set[str]]:
    found = defaultdict(set)
    if folder.is_dir():
        for path in folder.iterdir():
            found[path.stem].add(path.name)
    return found


def free_path(args: argparse.Namespace, target: Path, ending: str) -> Path:
    """Where a file is to be written, its name cut to what file systems take.

    Raises:
        ValueError: If another is there.
    """
    name, mark = target.name, ""
    while len(os.fsencode(name + mark + ending)) > 255:
        mark = f"~{zlib.crc32(os.fsencode(target.name)):08x}"
        name = name[:-1]
    path = target.with_name(name + mark + ending)
    check_free(args, path)
    return path


def check_free(args: argparse.Namespace, path: Path) -> None:
    """Raises ValueError if another file is there."""
    if path.exists() and not args.overwrite:
        raise ValueError(f"{path} is there already; --overwrite replaces it")


def once(make: Callable) -> Callable:
    """A cache for threads: those that ask meanwhile wait for what is being made."""
    kept, lock = cache(make), threading.RLock()

    @wraps(make)
    def found(*args):
        with lock:
            return kept(*args)

    return found


@once
def weights(
    checkpoint: str | None, model: str | None, quality: int | None, metric: str
) -> nn.Module:
    """The codec, once for all files that it serves."""
    if checkpoint:
        net = load_checkpoint(checkpoint, model)
    else:
        pretrained = True if model in RELEASED else "base"
        net = load_model(model, quality, metric, pretrained=pretrained)
    return net.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@once
def in_runtime(net: nn.Module, runtime: str, transform: str) -> nn.Module:
    """The codec, once told what computes one of its transforms."""
    if runtime != "torch":
        use_runtime(net, runtime, transform)
    return net


@once
def reader(name: str) -> StreamReader:
    """The reader, once for all files."""
    return find_reader(name, READERS)


def quiet_openmmlab() -> None:
    """Standard output is for results: what OpenMMLab warns of goes to the errors."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.setLevel("WARNING")
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.stream = sys.stderr


@once
def refiner(config: str) -> nn.Module:
    """The model of a training config, once for all files."""
    import _launch

    from compressai_hm.detection.build import build_model

    quiet_openmmlab()
    return build_model(str(_launch.find_config(config)))


def attended(args: argparse.Namespace) -> tuple:
    return tuple(args.attend), args.attend_gain, tuple(args.attend_only)


@once
def attention(
    given: tuple[str, ...], gain: float, only: tuple[str, ...]
) -> "Attention":
    """What --attend asks for, once for all files."""
    import _launch

    from compressai_hm.detection import Attention
    from compressai_hm.detection.build import weights_named_by

    detectors = []
    for text in given:
        config, _, checkpoint = text.rpartition(",")
        if not config.endswith(".py"):
            config, checkpoint = text, ""
        if "::" not in config:
            config = str(_launch.find_config(config))
        checkpoint = checkpoint or weights_named_by(config)
        detectors.append(dict(config=config, checkpoint=checkpoint))
    quiet_openmmlab()
    found = Attention(detectors, gain, only=only or None)
    found.load()
    return found


def export(args: argparse.Namespace) -> int:
    """Writes the transforms."""
    for name in args.imports:
        import_own(name)
    net = weights(args.checkpoint, args.model, args.quality, args.metric)
    for path in transform_files(net, args.out, args.format):
        check_free(args, path)
    for path in export_transforms(net, args.out, args.format):
        print(path)
    return 0


def list_readers(args: argparse.Namespace) -> int:
    """One line for each reader."""
    failed = 0
    for path in reader_files(args.inputs):
        try:
            found = load_reader(path)
        except (OSError, ValueError) as e:
            print(e, file=sys.stderr)
            failed += 1
            continue
        count = sum(p.numel() for p in found.net.parameters())
        print(
            f"{found.name}: reads {found.reads} of {found.stream}, {count / 1e6:.2f} M "
            f"weights, {path}"
        )
    return bool(failed)


Result = tuple[str, float, dict[Path, bytes]]
"""A line for the user, bits a pixel, and the files that are to be written."""


def encode_file(args: argparse.Namespace, source: Path, target: Path) -> Result:
    target = free_path(args, target, SUFFIX)
    piped = is_pipe(source)
    x = read_picture(content_of(source) if piped else source, args.max_pixels, source)
    most = args.bytes or (args.bpp and int(args.bpp * x[0, 0].numel() / 8))
    if most == 0:
        raise ValueError("the picture does not fit into 0 bytes")
    quality = args.quality
    if quality is None and not args.checkpoint:
        quality = quality_for(args, x, most)
    net = weights(args.checkpoint, args.model, quality, args.metric)
    net = in_runtime(net, args.runtime, "g_a")
    x, y = x.to(next(net.parameters()).device), None
    own = dict(quality=quality or 0, metric=args.metric)
    step = wanted_steps(args, x, net.step if args.step is None else args.step)
    if args.config:
        y = refiner(args.config).to(x.device).refine(x, args.refine, net)
    elif args.refine:
        # What is saved allows for a finer step, for which y is refined again.
        for _ in range(2 if most else 1):
            if most:
                step = Bitstream.read(encode_to_size(net, x, most, step, y=y)).steps()
            y = refine(net, x, None, args.refine, step)
    if most is None:
        data = encode(net, x, step=step, y=y, **own)
    else:
        data = encode_to_size(net, x, most, step, y=y, **own)
    bpp = 8 * len(data) / x[0, 0].numel()
    finer = ""
    if args.roi or args.attend:
        finer = ", the same step everywhere"
        if step.offsets is not None:
            finer = f", {(step.offsets < 0).mean():.0%} of it finer"
    line = f"{target}: {len(data)} bytes, {bpp:.4f} bpp{finer}"
    return line, bpp, {target: data}


_detecting = threading.Lock()
"""OpenMMLab promises nothing to threads."""


def wanted_steps(args: argparse.Namespace, x: torch.Tensor, own: float = 1.0) -> Steps:
    """Of a picture: where regions or detectors ask for different ones, the finest."""
    size = tuple(x.shape[-2:])
    # For a size the base is moved: from the middle no gain is cut off.
    step = 4.0 if args.bpp or args.bytes else own
    maps = []
    if args.roi:
        importance = importance_of_mask(region(args.roi, size))
        maps.append(map_of_importance(importance, args.roi_gain, step))
    if args.attend:
        with _detecting:
            maps.append(attention(*attended(args)).steps(x, step))
    steps = Steps.of(torch.stack(maps).amin(0) if maps else own, size)
    return Steps(0, steps.offsets) if args.bpp or args.bytes else steps


def region(given: list[str], size: tuple[int, int]) -> torch.Tensor:
    """The pixels of all masks and boxes, ``(H, W)``."""
    inside = torch.zeros(size, dtype=torch.bool)
    for text in given:
        box = [part.strip() for part in text.split(",")]
        if len(box) == 4 and all(re.fullmatch(r"-?\d+(\.\d*)?", p) for p in box):
            inside |= mask_of_boxes(torch.tensor([[float(p) for p in box]]), size)
            continue
        mask = mask_of_picture(Path(text))
        if mask.shape != inside.shape:
            raise ValueError(
                f"--roi {text}: the mask has {mask.shape[1]}x{mask.shape[0]} pixels, "
                f"the picture {size[1]}x{size[0]}"
            )
        inside |= mask
    return inside


def mask_of_picture(path: Path) -> torch.Tensor:
    """What is white and opaque, ``(H, W)``; a remark where that is all or nothing."""
    brightness = read_picture(path)[0].mean(0)
    with Image.open(path) as image:
        clear = image.has_transparency_data
        image = ImageOps.exif_transpose(image)
        opacity = np.asarray(image.convert("RGBA").getchannel("A")) if clear else 255
    opaque = torch.from_numpy(np.broadcast_to(opacity, brightness.shape) >= 128)
    mask = (brightness >= 0.5) & opaque
    if mask.all() or not mask.any():
        inside = "all" if mask.all() else "nothing"
        brightest = round(255 * float((brightness * opaque).max()))
        warn(
            path,
            f"as a mask it has {inside} inside; its brightest value is {brightest} of "
            "255, and from 128 on is inside",
        )
    return mask


def quality_for(args: argparse.Namespace, x: torch.Tensor, most: int) -> int:
    """The zoo entry's whose file is nearest to a size before its step is moved."""

    def size(quality: int) -> int:
        net = weights(None, args.model, quality, args.metric)
        own = x.to(next(net.parameters()).device)
        return len(encode(net, own, quality, args.metric))

    return nearest_quality(cfgs[args.model], most, size)


def decode_file(args: argparse.Namespace, source: Path, target: Path) -> Result:
    data = content_of(source)
    stream = Bitstream.read(data)
    metric = args.metric or stream.metric
    which = args.checkpoint, args.model, args.quality, metric
    if not args.checkpoint and not args.model:
        if not stream.quality or stream.model not in cfgs:
            raise BitstreamError(
                f"give the weights with --checkpoint: {stream.weights()}"
            )
        quality = 1 if ENTRIES[stream.model].steps else stream.quality
        which = None, stream.model, quality, metric
    net = in_runtime(weights(*which), args.runtime, "g_s")
    chosen = reader(args.reader) if args.reader else None
    views = (args.view,) if args.view in VIEWS else tuple(VIEWS)
    if args.view is None and chosen is None and isinstance(net.g_t, nn.Identity):
        views = ("human",)  # the machines' view would be the same picture
    paths = {}
    for view in views:
        own = chosen if view == "machine" else None
        kind = "npz" if own and own.reads == "y_hat" else "png"
        paths[view] = free_path(args, target, f".{own.name if own else view}.{kind}")
    out = decode(net, data, views, args.max_pixels, chosen)
    files = {
        path: png_of(out[VIEWS[view]])
        if VIEWS[view] in out
        else npz_of(out["features"], chosen.net.strides)
        for view, path in paths.items()
    }
    return ", ".join(map(str, files)), _bpp(stream, data), files


def npz_of(levels: tuple, strides: tuple[int, ...]) -> bytes:
    """A pyramid as a file of NumPy arrays ``stride_S``, ``(C, h, w)``."""
    arrays = {
        f"stride_{stride}": level[0].cpu().numpy()
        for stride, level in zip(strides, levels, strict=True)
    }
    with io.BytesIO() as f:
        np.savez(f, **arrays)
        return f.getvalue()


def info_file(args: argparse.Namespace, source: Path, target: Path) -> Result:
    data = content_of(source)
    stream = Bitstream.read(data)
    height, width = stream.size
    bpp = _bpp(stream, data)
    files = {}
    if args.map_png:
        path = target.with_name(f"{target.name}.map.png")
        files[path] = png_of(picture_of_steps(stream))
    return (
        f"{source}: {width}x{height}, {len(data)} bytes, {bpp:.4f} bpp "
        f"(y {len(stream.y)}, z {len(stream.z)}), {steps_of(stream)}{stream.weights()}",
        bpp,
        files,
    )


def steps_of(stream: Bitstream) -> str:
    """For people: the step, if it is not 1, or the steps of a map."""
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


def picture_of_steps(stream: Bitstream) -> torch.Tensor:
    """Steps from 4 (black) to a quarter (white), ``(1, 3, H, W)``."""
    height, width = stream.size
    values = stream.steps().values(tuple(4 * -(-side // 64) for side in stream.size))
    shade = torch.from_numpy(0.5 - np.log2(values) / 4).clamp(0, 1).float()
    shade = shade.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return shade[:height, :width].expand(1, 3, -1, -1)


def pixels_in(path: Path) -> int:
    """Of the picture in a file; 0 if it holds none."""
    try:
        return math.prod(Bitstream.read(path.read_bytes()).size)
    except (OSError, ValueError):
        return 0


def _bpp(stream: Bitstream, data: bytes) -> float:
    return 8 * len(data) / (stream.size[0] * stream.size[1])


if __name__ == "__main__":
    _command.run(main, "stopped; every file written so far is whole")
