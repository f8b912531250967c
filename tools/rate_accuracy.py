"""Measures codecs as bits against accuracy: real files, any detector, BD figures.

    python tools/rate_accuracy.py mmdet_configs/rate_accuracy/demo.py

Unfinished points are run, finished ones are kept.
"""

import sys
from pathlib import Path

import _command

from compressai_hm.detection import launch
from compressai_hm.evaluation import report, results
from compressai_hm.evaluation.sweep import Sweep


def main() -> None:
    parser = _command.parser(__doc__)
    parser.add_argument("config", help="the sweep: codecs, sets, detectors")
    parser.add_argument("--work-dir", help="folder for everything [work_dirs/CONFIG]")
    parser.add_argument("--jobs", type=int, default=1, help="processes, a thread each")
    parser.add_argument(
        "--resamplings",
        type=int,
        default=results.RESAMPLINGS,
        help="bootstrap draws over the pictures for intervals [%(default)s]",
    )
    launch.add_cfg_options(parser)
    args = parser.parse_args()
    cfg = launch.read_config(args.config)
    launch.merge_options(cfg, args.cfg_options)
    work_dir = args.work_dir or f"work_dirs/{Path(args.config).stem}"
    sweep = Sweep(cfg, work_dir)
    sweep.run(args.jobs)
    curves, reference = results.measure(sweep, args.resamplings)
    rows = results.compare(curves, cfg.anchor)
    differing = results.differences(curves, cfg.get("differences", ()))
    folder = results.write(sweep, curves, rows, reference, differing)
    for name, metrics in reference.items():
        for metric, value in metrics.items():
            print(f"{name}, uncompressed: {metric} {value:.4f}")
    if all(len(c.bpp) == 1 for c in curves):
        print(results.points(curves))
    else:
        print(f"Against {cfg.anchor} by pchip [95 % over resampled pictures]")
        print(results.table(rows))
    for row in differing:
        low, high = row["interval"]
        print(
            f"{row['set']}, {results.title(row['metric'])}: {row['of']} less "
            f"{row['against']} {row['value']:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    for line in results.transfer(sweep, rows):
        print(" | ".join(line))
    page = report.write(sweep, curves, rows, reference, command=sys.argv)
    print(f"figures in {folder}, report in {page}")


if __name__ == "__main__":
    _command.run(main, "stopped; finished points are kept, the same command goes on")
