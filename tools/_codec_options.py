"""What can be said to tools/codec.py."""

import argparse
import math
import re
import sys
from pathlib import Path

import _command

from compressai_hm.codecs import DEFAULT_MODEL, DEFAULT_QUALITY, ENTRIES, container
from compressai_hm.codecs.export import FORMATS, RUNTIMES
from compressai_hm.zoo import cfgs
from compressai_hm.zoo.released import RELEASED

SUFFIX = ".hmc"
EVERY_RATE = " or ".join(name for name, entry in ENTRIES.items() if entry.steps)

PEOPLE = "person/rtmdet_mobilenetv2.py,compressai_hm://person_detector.pth"
"""The detector that ships, for --attend people."""

VIEWS = {"human": "x_hat", "machine": "x_bar"}
BPP = """bpp is of the whole file, its header included, over the picture's own pixels;
python -m compressai_hm.eval_model counts otherwise, its --help says how."""
STDIN = Path("/dev/stdin")
READERS = [Path("work_dirs")]
"""Where readers are looked for."""


def parse(argv: list[str] | None = None, about: str = "") -> argparse.Namespace:
    """The options, which do not contradict each other.

    Args:
        argv: Instead of the program's own.
        about: What the program says of itself.
    """
    parser = _command.parser(f"{about}\n{BPP}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("encode", f"pictures to {SUFFIX} files"),
        ("decode", f"{SUFFIX} files to PNG"),
        ("info", f"what {SUFFIX} files hold; needs no weights"),
    ):
        sub = commands.add_parser(name, help=text, epilog=BPP)
        text = "files, folders, or - for standard input"
        sub.add_argument("inputs", nargs="+", type=_input, help=text)
        if name == "info":
            sub.add_argument(
                "--map-png",
                action="store_true",
                help="write the steps by place beside each file: bright is fine",
            )
            _add_overwrite(sub)
        _add_import(sub)
        if name == "info":
            continue
        _add_files(sub)
        _add_weights(sub, name)
        transform = "g_a" if name == "encode" else "g_s"
        sub.add_argument(
            "--runtime",
            default="torch",
            choices=("torch", *RUNTIMES),
            help=f"what computes {transform}, on the CPU; any decodes any's files; "
            "others than torch start some seconds later; default: %(default)s",
        )
        if name == "encode":
            _add_rate(sub)
        if name == "decode":
            sub.add_argument(
                "--reader", help="name or file; makes the machine's view instead"
            )
            sub.add_argument(
                "--view",
                choices=(*VIEWS, "both"),
                help="default: both, where they differ",
            )
    sub = commands.add_parser("readers", help="which readers there are")
    sub.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        default=READERS,
        help="files or folders; default: work_dirs",
    )
    sub = commands.add_parser(
        "export", help="the transforms g_a, g_s and g_t for other runtimes"
    )
    _add_import(sub)
    _add_weights(sub, "export")
    sub.add_argument("--out", type=Path, default=Path(), help="folder; default: here")
    _add_overwrite(sub)
    sub.add_argument(
        "--format", default="onnx", choices=FORMATS, help="default: %(default)s"
    )
    args = parser.parse_args(_joined(sys.argv[1:] if argv is None else argv))
    check(parser, args)
    return args


def _input(text: str) -> Path:
    return STDIN if text == "-" else Path(text)


def _joined(argv: list[str]) -> list[str]:
    """With ``--roi=-5,0,50,50`` for ``--roi -5,0,50,50``, which argparse refuses."""
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
        help="module or .py file that registers a codec of your own; may be given "
        "several times",
    )


def _add_overwrite(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--overwrite", action="store_true", help="replace files that are there"
    )


def _add_files(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, help="folder; default: beside the input")
    _add_overwrite(sub)
    sub.add_argument(
        "--max-pixels",
        type=int,
        default=container.MAX_PIXELS,
        help="refuse larger pictures; default: %(default)s",
    )


def _add_weights(sub: argparse.ArgumentParser, name: str) -> None:
    sub.add_argument(
        "--checkpoint", help="weights of your own, or compressai_hm://NAME"
    )
    sub.add_argument(
        "--model",
        help="zoo entry, or the registered name of --checkpoint's model; default: "
        + ("what the file says" if name == "decode" else DEFAULT_MODEL),
    )
    default = (
        f"; default: {DEFAULT_QUALITY} of {EVERY_RATE}; with --bpp or --bytes the "
        "nearest"
    )
    sub.add_argument(
        "--quality",
        type=int,
        help="of the zoo entry" + (default if name == "encode" else ""),
    )
    sub.add_argument(
        "--metric",
        choices=container.METRICS,
        help="what the zoo entry's weights were trained for; person: people and "
        f"detectors of persons, of {EVERY_RATE}; default: "
        + ("what the file says, or mse" if name == "decode" else "mse"),
    )


def _add_rate(sub: argparse.ArgumentParser) -> None:
    rate = sub.add_mutually_exclusive_group()
    rate.add_argument(
        "--step",
        type=float,
        help="of quantisation, 0.125 (more bits) to 16 (fewer); default: that of "
        f"--quality of {EVERY_RATE}, 1 of others",
    )
    rate.add_argument(
        "--bpp",
        type=float,
        help="the best file of at most that many bits a pixel",
    )
    rate.add_argument(
        "--bytes", type=int, help="the best file of at most so many bytes"
    )
    sub.add_argument(
        "--roi",
        action="append",
        default=[],
        metavar="REGION",
        help="where bits matter: a mask of the picture's size (white is inside), or a "
        "box LEFT,TOP,RIGHT,BOTTOM in pixels; may be given several times",
    )
    sub.add_argument(
        "--roi-gain",
        type=float,
        default=2.0,
        help="the step elsewhere over that in --roi, in quarter octaves (1.19, 1.41, "
        "1.68, 2, ...); default: %(default)s",
    )
    sub.add_argument(
        "--attend",
        action="append",
        default=[],
        metavar="people|CONFIG[,CHECKPOINT]",
        help="bits go to what a detector finds: to people, by the one that ships; or "
        "an MMDetection config and weights, of mmdet::... the published ones, if none "
        "are given; may be given several times",
    )
    sub.add_argument(
        "--attend-gain",
        type=float,
        default=1.41,
        help="the step elsewhere over that at what is found, likewise; default: "
        "%(default)s",
    )
    sub.add_argument(
        "--attend-only",
        action="append",
        default=[],
        metavar="CLASS",
        help="objects that count, such as person; default: all; may be given several "
        "times",
    )
    sub.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="STEPS",
        help="adapt each picture's latent by that many gradient steps: fewer bits at "
        "the same quality, many seconds; 50 are many",
    )
    sub.add_argument(
        "--config",
        help="training config whose loss --refine lowers; default: bits and PSNR",
    )


def default_model(metric: str) -> str:
    """Returns the default entry, or the first that has weights for the metric."""
    for name in (DEFAULT_MODEL, *RELEASED):
        if metric in ENTRIES[name].released:
            return name
    return DEFAULT_MODEL


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where options contradict each other."""
    if args.command in ("info", "readers"):
        return
    if args.checkpoint and args.quality is not None:
        parser.error("--quality belongs to a zoo entry; --checkpoint is another")
    if args.checkpoint and args.metric:
        parser.error("--metric belongs to a zoo entry; --checkpoint is another")
    if args.command == "decode" and args.metric and not args.model:
        parser.error("--metric needs --model; without both the file says it")
    if args.command != "decode":
        args.metric = args.metric or "mse"
    if not args.checkpoint:
        sized = args.command == "encode" and (args.bpp or args.bytes)
        if args.command in ("encode", "export"):
            if args.model is None:
                args.model = default_model(args.metric)
            if args.quality is None and args.model in ENTRIES:
                args.quality = DEFAULT_QUALITY if ENTRIES[args.model].steps else None
        if args.command in ("encode", "export") and (
            args.model is None or (args.quality is None and not sized)
        ):
            parser.error("say which weights: --model and --quality, or --checkpoint")
        if (args.model is None) != (args.quality is None) and not sized:
            parser.error("--model and --quality go together")
        if args.model and args.model not in cfgs:
            parser.error(f"--model {args.model}: there are {', '.join(cfgs)}")
    if args.command == "encode":
        for name in ("bpp", "bytes"):
            if (value := getattr(args, name)) is not None and not (
                0 < value < math.inf
            ):
                parser.error(f"--{name} {value}: give more than 0, and no infinity")
    if args.command == "encode" and args.config and not args.refine:
        parser.error("--config goes with --refine")
    if args.command == "encode":
        if args.attend_only and not args.attend:
            parser.error("--attend-only goes with --attend")
        args.attend = [PEOPLE if own == "people" else own for own in args.attend]
        moved = args.bpp or args.bytes or args.step not in (None, 1) or args.roi
        moved = moved or args.attend
        if args.step is None and not args.checkpoint:
            moved = moved or ENTRIES[args.model].steps
        if args.config and moved:
            parser.error("--config is for a step of 1 everywhere, and no size")
    if args.command == "encode" and args.refine and args.runtime != "torch":
        parser.error("--refine computes in torch; leave --runtime out")
    if args.command == "encode" and args.refine < 0:
        parser.error(f"--refine {args.refine}: give 0 or more steps")
    if getattr(args, "max_pixels", 1) < 1:
        parser.error(f"--max-pixels {args.max_pixels}: give 1 or more")
    if args.out and args.out.is_file():
        parser.error(f"--out {args.out} is a file; give a folder")
