"""Codes pictures into small files, and decodes them for humans and machines.

python tools/codec.py encode photos --checkpoint codec.pth.tar --out streams
python tools/codec.py decode streams --checkpoint codec.pth.tar --out decoded
python tools/codec.py info streams
python tools/codec.py readers
"""

import argparse
import io
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from compressai_hm.codecs import (
    Bitstream,
    BitstreamError,
    StreamReader,
    container,
    decode,
    encode,
)
from compressai_hm.codecs.files import write_png, write_whole
from compressai_hm.codecs.pictures import read_picture
from compressai_hm.codecs.readers import find_reader, load_reader, reader_files
from compressai_hm.zoo import cfgs, load_checkpoint, load_model
from compressai_hm.zoo.released import RELEASED

SUFFIX = ".hmc"
VIEWS = {"human": "x_hat", "machine": "x_bar"}
READERS = [Path("work_dirs")]
"""Where readers are looked for."""


def main() -> int:
    args = parse()
    sys.stdout.reconfigure(errors="backslashreplace")
    if args.command == "readers":
        return list_readers(args)
    jobs = list(find(args))
    if not jobs:
        kind = "pictures" if args.command == "encode" else f"{SUFFIX} files"
        sys.exit(f"there are no {kind} in {', '.join(map(str, args.inputs))}")
    run = {"encode": encode_file, "decode": decode_file, "info": info_file}
    if args.command != "info" and (args.checkpoint or args.model):
        try:
            weights(args.checkpoint, args.model, args.quality, args.metric)
            if args.command == "decode" and args.reader:
                reader(args.reader)
            if args.command == "encode" and args.refine:
                refiner(args.config)
        except (OSError, ValueError, RuntimeError) as e:
            sys.exit(str(e))
    failed, lines, bpps = [], [], []
    sources: dict[Path, Path] = {}
    with tqdm(jobs, unit="picture", disable=args.command == "info") as bar:
        for source, target in bar:
            bar.set_postfix_str(source.name)
            try:
                first = sources.setdefault(target, source)
                if first.resolve() != source.resolve():
                    raise ValueError(f"{first} has the same name; give another --out")
                line, bpp = run[args.command](args, source, target)
            except (OSError, ValueError, RuntimeError) as e:
                failed.append(f"{source}: {str(e).removeprefix(f'{source}: ')}")
                continue
            lines.append(line)
            bpps.append(bpp)
    print("\n".join(lines))
    if len(bpps) > 1:
        print(f"{len(bpps)} pictures, {sum(bpps) / len(bpps):.4f} bpp on average")
    for line in failed:
        print(line, file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} failed", file=sys.stderr)
    return bool(failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("encode", f"pictures to {SUFFIX} files"),
        ("decode", f"{SUFFIX} files to PNG"),
        ("info", f"what {SUFFIX} files hold; needs no weights"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("inputs", nargs="+", type=Path, help="files or folders")
        if name == "info":
            continue
        sub.add_argument("--out", type=Path, help="folder; default: beside the input")
        sub.add_argument("--checkpoint", type=Path, help="weights of your own")
        sub.add_argument(
            "--model",
            help="zoo entry, or the registered name of --checkpoint's model"
            + ("; default: what the file says" if name == "decode" else ""),
        )
        sub.add_argument("--quality", type=int, help="of the zoo entry")
        sub.add_argument("--metric", default="mse", choices=("mse", "ms-ssim"))
        if name == "encode":
            sub.add_argument(
                "--refine",
                type=int,
                default=0,
                metavar="STEPS",
                help="adapt each picture's latent by that many gradient steps: fewer "
                "bits, many seconds",
            )
            sub.add_argument(
                "--config", help="training config whose loss --refine lowers"
            )
        if name == "decode":
            sub.add_argument(
                "--reader", help="name or file; makes the machine's view instead"
            )
            sub.add_argument("--view", default="both", choices=(*VIEWS, "both"))
            sub.add_argument(
                "--max-pixels",
                type=int,
                default=container.MAX_PIXELS,
                help="refuse larger pictures; default: %(default)s",
            )
    sub = commands.add_parser("readers", help="which readers there are")
    sub.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        default=READERS,
        help="files or folders; default: work_dirs",
    )
    args = parser.parse_args()
    if args.command in ("info", "readers"):
        return args
    if args.checkpoint and args.quality is not None:
        parser.error("--quality belongs to a zoo entry; --checkpoint is another")
    if not args.checkpoint:
        if args.command == "encode" and None in (args.model, args.quality):
            parser.error("say which weights: --model and --quality, or --checkpoint")
        if (args.model is None) != (args.quality is None):
            parser.error("--model and --quality go together")
        if args.model and args.model not in cfgs:
            parser.error(f"--model {args.model}: there are {', '.join(cfgs)}")
    if args.command == "encode" and bool(args.refine) != bool(args.config):
        parser.error("--refine and --config go together")
    if args.command == "encode" and args.refine < 0:
        parser.error(f"--refine {args.refine}: give 0 or more steps")
    if args.out and args.out.is_file():
        parser.error(f"--out {args.out} is a file; give a folder")
    return args


def find(args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """The files to work on, and the path without suffix to write each to."""
    Image.init()
    wanted = {SUFFIX}
    if args.command == "encode":
        wanted = {e for e, kind in Image.EXTENSION.items() if kind in Image.OPEN}
        wanted.discard(".pdf")
    out = getattr(args, "out", None)
    for given in args.inputs:
        if not given.is_dir():
            yield given, (out or given.parent) / given.stem
            continue
        for path in sorted(given.rglob("*")):
            if path.suffix.lower() in wanted and path.is_file():
                yield path, (out or given) / path.relative_to(given).with_suffix("")


@cache
def weights(
    checkpoint: Path | None, model: str | None, quality: int | None, metric: str
) -> nn.Module:
    """The codec, once for all files that it serves."""
    if checkpoint:
        net = load_checkpoint(checkpoint, model)
    else:
        pretrained = True if model in RELEASED else "base"
        net = load_model(model, quality, metric, pretrained=pretrained)
    return net.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@cache
def reader(name: str) -> StreamReader:
    """The reader, once for all files."""
    return find_reader(name, READERS)


@cache
def refiner(config: str):
    """The model of a training config, once for all files."""
    from compressai_hm.detection.build import build_model

    return build_model(config)


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


def encode_file(args, source: Path, target: Path) -> tuple[str, float]:
    target = target.with_name(target.name + SUFFIX)
    net = weights(args.checkpoint, args.model, args.quality, args.metric)
    x = read_picture(source).to(next(net.parameters()).device)
    y = None
    if args.refine:
        y = refiner(args.config).to(x.device).refine(x, args.refine, net)
    data = encode(net, x, args.quality or 0, args.metric, y)
    write_whole(data, target)
    bpp = 8 * len(data) / x[0, 0].numel()
    return f"{target}: {len(data)} bytes, {bpp:.4f} bpp", bpp


def decode_file(args, source: Path, target: Path) -> tuple[str, float]:
    data = source.read_bytes()
    stream = Bitstream.read(data)
    which = args.checkpoint, args.model, args.quality, args.metric
    if not args.checkpoint and not args.model:
        if not stream.quality or stream.model not in cfgs:
            raise BitstreamError(
                f"give the weights with --checkpoint: {stream.weights()}"
            )
        which = None, stream.model, stream.quality, stream.metric
    net = weights(*which)
    views = tuple(VIEWS) if args.view == "both" else (args.view,)
    chosen = reader(args.reader) if args.reader else None
    out = decode(net, data, views, args.max_pixels, chosen)
    paths = []
    for view in views:
        own = chosen.name if chosen and view == "machine" else view
        if VIEWS[view] in out:
            paths.append(target.with_name(f"{target.name}.{own}.png"))
            write_png(out[VIEWS[view]], paths[-1])
        else:
            paths.append(target.with_name(f"{target.name}.{own}.npz"))
            write_features(out["features"], chosen.net.strides, paths[-1])
    return ", ".join(map(str, paths)), _bpp(stream, data)


def write_features(levels: tuple, strides: tuple[int, ...], path: Path) -> None:
    """A pyramid as NumPy arrays ``stride_S``, ``(C, h, w)``."""
    arrays = {
        f"stride_{stride}": level[0].cpu().numpy()
        for stride, level in zip(strides, levels, strict=True)
    }
    with io.BytesIO() as f:
        np.savez(f, **arrays)
        write_whole(f.getvalue(), path)


def info_file(args, source: Path, target: Path) -> tuple[str, float]:
    data = source.read_bytes()
    stream = Bitstream.read(data)
    height, width = stream.size
    bpp = _bpp(stream, data)
    return (
        f"{source}: {width}x{height}, {len(data)} bytes, {bpp:.4f} bpp "
        f"(y {len(stream.y)}, z {len(stream.z)}), {stream.weights()}",
        bpp,
    )


def _bpp(stream: Bitstream, data: bytes) -> float:
    return 8 * len(data) / (stream.size[0] * stream.size[1])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; every file written so far is whole")
