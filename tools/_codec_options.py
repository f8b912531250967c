"""The command-line options of tools/codec.py."""

import argparse
import math
import re
import sys
from pathlib import Path

import _command
from _shared import READERS

from compressai_hm import DEFAULT_MODEL, DEFAULT_QUALITY, ENTRIES
from compressai_hm.bitstream.file_names import STDIN, SUFFIX
from compressai_hm.bitstream.format import METRICS
from compressai_hm.geometry import MAX_PIXELS
from compressai_hm.models.export import FORMATS, RUNTIMES
from compressai_hm.zoo import cfgs

EVERY_RATE = " or ".join(name for name, entry in ENTRIES.items() if entry.steps)

VIEWS = {"human": "x_hat", "machine": "x_bar"}
BPP = """bpp counts the whole file, its header included, over the picture's pixels. The
--help of python -m compressai_hm.eval_model says how that tool counts."""
ROI_DETECTOR_GAIN = 1.41


def parse(argv: list[str] | None = None, about: str = "") -> argparse.Namespace:
    """Returns the options; ends the program if they contradict each other.

    Args:
        argv: Arguments. Defaults to the program's.
        about: Description of the program.
    """
    parser = _command.parser(f"{about}\n{BPP}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("encode", f"code pictures into {SUFFIX} files"),
        ("decode", f"decode {SUFFIX} files into PNG"),
        ("info", f"print the content of {SUFFIX} files; needs no weights"),
    ):
        sub = commands.add_parser(name, help=text, epilog=BPP)
        text = "files, folders, or - for standard input"
        sub.add_argument("inputs", nargs="+", type=_parse_input, help=text)
        _add_import(sub)
        _add_overwrite(sub)
        if name == "info":
            text = "draw the map of quantization steps beside each file; bright is fine"
            sub.add_argument("--map-png", action="store_true", help=text)
            continue
        sub.add_argument("--out", type=Path, help="folder; default: beside the input")
        text = "refuse larger pictures; default: %(default)s"
        sub.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help=text)
        _add_weights(sub, name)
        transform = "g_a" if name == "encode" else "g_s"
        sub.add_argument(
            "--runtime",
            default="torch",
            choices=("torch", *RUNTIMES),
            help=f"library that computes {transform}, on the CPU; files can be decoded "
            "with another one; onnxruntime and openvino take some seconds to start; "
            "default: %(default)s",
        )
        if name == "encode":
            _add_rate(sub)
        if name == "decode":
            text = "name or file of a reader that makes the machine's view"
            sub.add_argument("--reader", help=text)
            text = "default: both, if they differ"
            sub.add_argument("--view", choices=(*VIEWS, "both"), help=text)
    sub = commands.add_parser("readers", help="list the readers")
    text = "files or folders; default: work_dirs"
    sub.add_argument("inputs", nargs="*", type=Path, default=READERS, help=text)
    text = "write the transforms g_a, g_s and g_t for other runtimes"
    sub = commands.add_parser("export", help=text)
    _add_import(sub)
    _add_weights(sub, "export")
    sub.add_argument("--out", type=Path, default=Path(), help="folder; default: here")
    _add_overwrite(sub)
    text = "default: %(default)s"
    sub.add_argument("--format", default="onnx", choices=FORMATS, help=text)
    args = parser.parse_args(_join_roi(sys.argv[1:] if argv is None else argv))
    check(parser, args)
    return args


def _parse_input(text: str) -> Path:
    return STDIN if text == "-" else Path(text)


def _join_roi(argv: list[str]) -> list[str]:
    """Makes ``--roi=-5,0,9,9`` of ``--roi -5,0,9,9``, which argparse refuses."""
    joined: list[str] = []
    for text in argv:
        if joined and joined[-1] == "--roi" and re.match(r"-[\d.]+,", text):
            joined[-1] += f"={text}"
        else:
            joined.append(text)
    return joined


def _add_import(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module or .py file that registers your codec; may be given several times",
    )


def _add_overwrite(sub: argparse.ArgumentParser) -> None:
    text = "replace files that exist"
    sub.add_argument("--overwrite", action="store_true", help=text)


def _add_weights(sub: argparse.ArgumentParser, name: str) -> None:
    text = "file of weights, or compressai_hm://NAME"
    sub.add_argument("--checkpoint", help=text)
    default = "the file's model" if name == "decode" else DEFAULT_MODEL
    text = "zoo entry, or the registered name of --checkpoint's model; default: "
    sub.add_argument("--model", help=text + default)
    text = "quality of the zoo entry"
    if name == "encode":
        text += f"; default: {DEFAULT_QUALITY} for {EVERY_RATE}; with --bpp or --bytes "
        text += "the nearest"
    sub.add_argument("--quality", type=int, help=text)
    default = "the file's, or mse" if name == "decode" else "mse"
    sub.add_argument(
        "--metric",
        choices=METRICS,
        help="metric that the zoo entry's weights were trained for; person means "
        f"people and detectors of persons, for {EVERY_RATE}; default: {default}",
    )


def _add_rate(sub: argparse.ArgumentParser) -> None:
    rate = sub.add_mutually_exclusive_group()
    rate.add_argument(
        "--step",
        type=float,
        help="quantization step, 0.125 (more bits) to 16 (fewer bits); default: that "
        f"of --quality for {EVERY_RATE}, 1 for others",
    )
    text = "make the best file of at most so many "
    rate.add_argument("--bpp", type=float, help=text + "bits per pixel")
    rate.add_argument("--bytes", type=int, help=text + "bytes")
    sub.add_argument(
        "--roi",
        action="append",
        default=[],
        metavar="REGION",
        help="region of interest: a mask of the picture's size (white is inside), or a "
        "box LEFT,TOP,RIGHT,BOTTOM in pixels; may be given several times",
    )
    sub.add_argument(
        "--roi-gain",
        type=float,
        default=2.0,
        help="quantization step outside of --roi over the step inside, in quarter "
        "octaves (1.19, 1.41, 1.68, 2, ...); default: %(default)s",
    )
    sub.add_argument(
        "--roi-detector",
        action="append",
        default=[],
        metavar="people|latent|CONFIG[,CHECKPOINT]",
        help="detector of regions of interest: people, in the package; latent, "
        "the same on the latent, which takes little time; or an MMDetection config "
        "and weights; without weights, the published ones of mmdet::...; may be given "
        "several times",
    )
    sub.add_argument(
        "--roi-detector-gain",
        type=float,
        default=ROI_DETECTOR_GAIN,
        help="quantization step outside of detections over the step inside; default: "
        "%(default)s",
    )
    sub.add_argument(
        "--roi-class",
        action="append",
        default=[],
        metavar="CLASS",
        help="class of detections that count, such as person; default: all classes; "
        "may be given several times",
    )
    sub.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="ITERATIONS",
        help="adapt each picture's latent by that many gradient descent iterations: "
        "fewer bits at the same quality, in many seconds; 50 are many",
    )
    text = "training config whose loss --refine lowers; default: bits and PSNR"
    sub.add_argument("--config", help=text)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Completes the options, and ends the program if they contradict each other."""
    if args.command in ("info", "readers"):
        return
    encoding = args.command == "encode"
    for name in ("quality", "metric"):
        if args.checkpoint and getattr(args, name) is not None:
            parser.error(f"--{name} belongs to a zoo entry; --checkpoint is another")
    if args.command == "decode" and args.metric and not args.model:
        parser.error("--metric needs --model; leave both out to use the file's")
    if args.command != "decode":
        args.metric = args.metric or "mse"
    if not args.checkpoint:
        sized = encoding and (args.bpp or args.bytes)
        if args.command != "decode":
            args.model = args.model or DEFAULT_MODEL
            if args.quality is None and args.model in ENTRIES:
                args.quality = DEFAULT_QUALITY if ENTRIES[args.model].steps else None
            if args.quality is None and not sized:
                parser.error("give weights by --model and --quality, or --checkpoint")
        if (args.model is None) != (args.quality is None) and not sized:
            parser.error("--model and --quality go together")
        if args.model and args.model not in cfgs:
            parser.error(f"--model {args.model}: there are {', '.join(cfgs)}")
    if encoding:
        _check_encode(parser, args)
    if getattr(args, "max_pixels", 1) < 1:
        parser.error(f"--max-pixels {args.max_pixels}: give 1 or more")
    if args.out and args.out.is_file():
        parser.error(f"--out {args.out} is a file; give a folder")


def _check_encode(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for name in ("bpp", "bytes"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name} {value}: give more than 0, and a finite number")
    if args.config and not args.refine:
        parser.error("--config goes with --refine")
    if args.roi_class and not args.roi_detector:
        parser.error("--roi-class goes with --roi-detector")
    changed = args.bpp or args.bytes or args.roi or args.roi_detector
    changed = changed or args.step not in (None, 1)
    if args.step is None and not args.checkpoint:
        changed = changed or ENTRIES[args.model].steps
    if args.config and changed:
        parser.error("--config needs a quantization step of 1 everywhere, and no size")
    if args.refine and args.runtime != "torch":
        parser.error("--refine computes in torch; leave --runtime out")
    if args.refine < 0:
        parser.error(f"--refine {args.refine}: give 0 or more iterations")
