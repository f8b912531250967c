"""Finds objects in .hmc files, without decoding pictures.

python tools/detect.py photo.hmc
python tools/detect.py streams --json detections.json

A reader brings the decoded latent to a detector's later stages, neck and heads. The
package has those of its person detector for its own weights.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import _command
import torch
from _shared import load_for_stream, load_stream_detector, quiet_openmmlab
from tqdm import tqdm

from compressai_hm import Bitstream, decode_to_latent
from compressai_hm.bitstream.file_names import STDIN, SUFFIX, plan_outputs, read_content
from compressai_hm.geometry import MAX_PIXELS
from compressai_hm.io.files import write_whole

if TYPE_CHECKING:
    from mmengine.structures import InstanceData


def parse() -> argparse.Namespace:
    """Returns the options."""
    parser = _command.parser(__doc__)
    text = f"{SUFFIX} files, folders, or - for standard input"
    parser.add_argument("inputs", nargs="+", type=_parse_input, help=text)
    text = "write detections in COCO's result format to a file, or - to print them"
    parser.add_argument("--json", metavar="FILE", help=text)
    text = "lowest score of detections; default: 0.3, with --json 0.001"
    parser.add_argument("--score-thr", type=float, help=text)
    text = "name or file of a reader of y_hat; default: the package's for people"
    parser.add_argument("--reader", help=text)
    text = "the detector whose first stages the reader replaces, and its weights"
    parser.add_argument("--detector", metavar="CONFIG,CHECKPOINT", help=text)
    text = "weights that coded the files, a file or compressai_hm://NAME"
    parser.add_argument("--checkpoint", help=text)
    text = "refuse larger pictures; default: %(default)s"
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help=text)
    args = parser.parse_args()
    if bool(args.reader) != bool(args.detector):
        parser.error("--reader and --detector belong together")
    if args.score_thr is None:
        args.score_thr = 0.001 if args.json else 0.3
    if not 0 <= args.score_thr <= 1:
        parser.error(f"--score-thr must be 0 to 1, got {args.score_thr:g}")
    return args


def _parse_input(text: str) -> Path:
    return STDIN if text == "-" else Path(text)


def main() -> int:
    """Runs the command, and returns 1 if a file failed."""
    args = parse()
    files = [source for source, _ in plan_outputs(args.inputs, None, encoding=False)]
    if not files:
        raise ValueError(
            f"there are no {SUFFIX} files in {', '.join(map(str, args.inputs))}"
        )
    quiet_openmmlab()
    import mmdet  # noqa: F401

    results, failed, done = [], [], 0
    quiet = len(files) == 1 or args.json is None
    try:
        for path in tqdm(files, unit="picture", disable=quiet):
            try:
                objects, names = detect_file(args, path)
            except (OSError, ValueError, RuntimeError, MemoryError) as e:
                reason = _command.sentence(e).removeprefix(f"{path}: ")
                failed.append(_command.escape(f"{path}: {reason}"))
                if len(files) == 1:
                    raise ValueError(failed[0]) from e
                continue
            done += 1
            if args.json:
                results += to_coco(path, objects, names)
            else:
                print(describe(path, objects, names), flush=True)
    except KeyboardInterrupt:
        print(f"stopped after {done} of {len(files)} files", file=sys.stderr)
        raise
    finally:
        if args.json and done:
            text = json.dumps(results)
            if args.json == "-":
                print(text)
            else:
                write_whole(text.encode(), args.json)
    for line in failed:
        print(line, file=sys.stderr)
    return bool(failed)


def detect_file(
    args: argparse.Namespace, path: Path
) -> tuple["InstanceData", tuple[str, ...]]:
    """Returns a file's detections, and the names of the detector's labels."""
    data = read_content(path)
    stream = Bitstream.read(data)
    net = load_for_stream(stream, args.checkpoint)
    found = load_stream_detector(
        stream.model, stream.metric, args.reader, args.detector, args.score_thr
    )
    found.reader.check(net)
    _, y_hat = decode_to_latent(net, data, args.max_pixels)
    objects = found.detect(y_hat, stream.size)
    return objects[objects.scores >= args.score_thr], found.classes or ()


def describe(path: Path, objects: "InstanceData", names: tuple[str, ...]) -> str:
    """Returns a line for the file and one for each object."""
    count = len(objects)
    lines = [_command.escape(f"{path}: {count} object{'s' * (count != 1)}")]
    for label, score, box in zip(
        objects.labels.tolist(),
        objects.scores.tolist(),
        objects.bboxes.tolist(),
        strict=True,
    ):
        name = names[label] if label < len(names) else str(label)
        sides = " ".join(f"{side:7.1f}" for side in box)
        lines.append(f"  {name:12} {score:.2f}  {sides}")
    return "\n".join(lines)


def to_coco(path: Path, objects: "InstanceData", names: tuple[str, ...]) -> list[dict]:
    """Returns detections in COCO's result format.

    ``image_id`` is the number that the file's name is, or else the name. COCO's classes
    have COCO's categories, others count from 1.
    """
    from mmdet.datasets import CocoDataset

    numbers = _number_categories(CocoDataset.METAINFO["classes"])
    image = int(path.stem) if path.stem.isdecimal() else path.stem
    results = []
    for label, score, (left, top, right, bottom) in zip(
        objects.labels.tolist(),
        objects.scores.tolist(),
        objects.bboxes.tolist(),
        strict=True,
    ):
        name = names[label] if label < len(names) else ""
        box = [round(v, 2) for v in (left, top, right - left, bottom - top)]
        results.append(
            dict(
                image_id=image,
                category_id=numbers.get(name, label + 1),
                bbox=box,
                score=round(score, 5),
            )
        )
    return results


def _number_categories(classes: tuple[str, ...]) -> dict[str, int]:
    """Returns COCO's category ids, which leave out ten numbers."""
    left_out = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    numbers = [i for i in range(1, 91) if i not in left_out]
    return dict(zip(classes, numbers, strict=True))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="torch")  # of MMDetection's calls
    torch.set_grad_enabled(False)
    _command.run(main)
