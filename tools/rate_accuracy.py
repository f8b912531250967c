"""Measures codecs as bits against accuracy: real files, any detector, BD-rates.

    python tools/rate_accuracy.py results/sweeps/demo.py

Unfinished points are run, finished ones are kept.
"""

import sys
from pathlib import Path

import _command
import _launch
import torch
from mmengine.config import Config

from compressai_hm.evaluation import export, report, tables
from compressai_hm.evaluation.statistics.comparisons import (
    compare,
    differences,
    over_seeds,
)
from compressai_hm.evaluation.statistics.curves import RESAMPLINGS, measure
from compressai_hm.evaluation.sweep import Sweep, run

SWEEPS = "results/sweeps"


def main() -> None:
    parser = _command.parser(__doc__)
    parser.add_argument("config", help="the sweep: codecs, sets, detectors; or a name")
    _launch.add_list(parser, SWEEPS)
    parser.add_argument("--work-dir", help="folder for everything [work_dirs/CONFIG]")
    parser.add_argument(
        "--redraw",
        type=Path,
        metavar="FOLDER",
        help="measure nothing: draw FOLDER/plots anew from its points.csv",
    )
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument("--jobs", type=int, default=1, help="processes, a thread each")
    workers.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask scheduler, or its file: its workers run the points instead; "
        "see docs/cluster.md",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where HM codecs, detectors and measures compute [%(default)s]",
    )
    parser.add_argument(
        "--resamplings",
        type=int,
        default=RESAMPLINGS,
        help="how often pictures are resampled for intervals [%(default)s]",
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="also mAP by the size of objects, and agreement with what detectors find "
        "in the uncompressed pictures",
    )
    _launch.add_cfg_options(parser)
    args = parser.parse_args()
    cfg = _launch.read_config(find_sweep(args.config))
    _launch.merge_options(cfg, args.cfg_options)
    if args.redraw:
        redraw(cfg, args.redraw)
        return
    work_dir = args.work_dir or f"work_dirs/{Path(args.config).stem}"
    # A cluster's workers have GPUs that this machine need not have.
    sweep = Sweep(cfg, work_dir, "cpu" if args.scheduler else args.device)
    run(sweep, args.jobs, args.scheduler, args.device)
    curves, reference = measure(sweep, args.resamplings, details=args.details)
    comparisons = compare(curves, cfg.anchor)
    differing = differences(curves, cfg.get("differences", ()))
    of_seeds = over_seeds(curves, cfg.get("seeds", ()))
    folder = export.write(sweep, curves, comparisons, reference, differing, of_seeds)
    for name, metrics in reference.items():
        for metric, value in metrics.items():
            print(f"{name}, uncompressed: {metric} {value:.4f}")
    if all(len(c.bpp) == 1 for c in curves):
        print(tables.points(curves))
    else:
        print(f"Against {cfg.anchor} by pchip [95 % over resampled pictures]")
        print(tables.bd_values(comparisons))
    if of_seeds:
        print("Means over trainings [95 % over resampled pictures and trainings]")
        print(tables.bd_values(of_seeds))
    for row in differing:
        print(tables.difference(row))
    for line in tables.transfer(sweep, comparisons):
        print(" | ".join(line))
    page = report.write(sweep, curves, comparisons, reference, command=sys.argv)
    print(f"results in {folder}, report in {page}")


def redraw(cfg: Config, folder: Path) -> None:
    """The plots of recorded results, which need neither weights nor pictures."""
    curves, reference = export.read_points(folder / "points.csv")
    known = {codec.name: codec for codec in cfg.codecs}
    for curve in curves:
        if curve.codec not in known:
            raise ValueError(
                f"{folder / 'points.csv'}: {curve.codec!r} is no codec of the config, "
                f"which has {', '.join(known)}"
            )
        curve.is_curve = known[curve.codec].get("curve", True)
    report.draw_charts(cfg, folder / "plots", curves, reference)
    print(f"plots in {folder / 'plots'}")


def find_sweep(path: str) -> Path:
    """A sweep's config, also by its path of before, which is told.

    Raises:
        FileNotFoundError: If there is none.
    """
    found = Path(path)
    *_, above, folder, name = ("", "", *found.absolute().parts)
    if not found.is_file() and (above, folder) == ("mmdet_configs", "rate_accuracy"):
        moved = found.absolute().parents[2] / SWEEPS / name
        if moved.is_file():
            print(f"{path} has moved to {SWEEPS}/{name}", file=sys.stderr)
            return moved
    return _launch.find_config(found, SWEEPS)


if __name__ == "__main__":
    _command.run(main, "stopped; finished points are kept, the same command goes on")
