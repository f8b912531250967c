"""Measures codecs as bits against accuracy: real files, any detector, BD-rates.

    python tools/rate_accuracy.py mmdet_configs/sweeps/demo.py

Finished points are kept, and the others are run.
"""

import sys
from pathlib import Path

import _command
import _launch
import torch
from mmengine.config import Config

from compressai_hm.evaluation import report, result_files, text_tables
from compressai_hm.evaluation.statistics.comparisons import compare, over_seeds
from compressai_hm.evaluation.statistics.curves import RESAMPLINGS, measure
from compressai_hm.evaluation.sweep import Sweep, run


def main() -> None:
    """Runs a sweep, and writes its results and its report."""
    parser = _command.parser(__doc__)
    parser.add_argument(
        "config", help="config file of the sweep, or the name of one of this package's"
    )
    _launch.add_list(parser, _launch.SWEEPS)
    parser.add_argument("--work-dir", help="folder for all files [work_dirs/CONFIG]")
    parser.add_argument(
        "--redraw",
        type=Path,
        metavar="FOLDER",
        help="measure nothing, but redraw FOLDER/plots from FOLDER/points.csv",
    )
    workers = parser.add_mutually_exclusive_group()
    text = "number of processes with one thread each [%(default)s]"
    workers.add_argument("--jobs", type=int, default=1, help=text)
    workers.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="address or file of a Dask scheduler, whose workers then run the points; "
        "see docs/cluster.md",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device of HM codecs, detectors and metrics [%(default)s]",
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
        help="add mAP by the size of objects, and agreement with the detections in the "
        "uncompressed pictures",
    )
    _launch.add_cfg_options(parser)
    args = parser.parse_args()
    cfg = _launch.read_config(_launch.find_config(args.config, _launch.SWEEPS))
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
    of_seeds = over_seeds(curves, cfg.get("seeds", ()))
    folder = result_files.write(sweep, curves, comparisons, reference, of_seeds)
    for name, metrics in reference.items():
        for metric, value in metrics.items():
            print(f"{name}, uncompressed: {metric} {value:.4f}")
    if all(len(c.bpp) == 1 for c in curves):
        print(text_tables.points(curves))
    else:
        print(f"Against {cfg.anchor} by pchip [95 % over resampled pictures]")
        print(text_tables.bd_values(comparisons))
    if of_seeds:
        print("Means over trainings [95 % over resampled pictures and trainings]")
        print(text_tables.bd_values(of_seeds))
    page = report.write(sweep, curves, comparisons, reference, command=sys.argv)
    print(f"results in {folder}, report in {page}")


def redraw(cfg: Config, folder: Path) -> None:
    """Draws the plots of recorded results, without weights or pictures."""
    curves, reference = result_files.read_points(folder / "points.csv")
    names = [codec.name for codec in cfg.codecs]
    for curve in curves:
        if curve.codec not in names:
            raise ValueError(
                f"{folder / 'points.csv'}: {curve.codec!r} is no codec of the config, "
                f"which has {', '.join(names)}"
            )
    report.draw_charts(cfg, folder / "plots", curves, reference)
    print(f"plots in {folder / 'plots'}")


if __name__ == "__main__":
    _command.run(main, "stopped; the same command continues from the finished points")
