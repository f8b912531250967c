"""Trains what a config says: python tools/train.py mmdet_configs/hm_faster_rcnn.py"""

import _command
import torch

from compressai_hm.detection import launch


def main() -> None:
    parser = launch.parser(__doc__)
    _command.add_debug(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from the work folder's last checkpoint, or from the one given",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision: float16, or bfloat16 on a CPU",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the batch size (needs auto_scale_lr in the "
        "config)",
    )
    args = parser.parse_args()
    cfg = launch.load_config(args, demo_if_absent=True)
    if args.amp:
        if torch.cuda.is_available():
            cfg.optim_wrapper.type = "AmpOptimWrapper"
            cfg.optim_wrapper.loss_scale = "dynamic"
        else:
            cfg.optim_wrapper.type = "BFloat16OptimWrapper"
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise ValueError(
                "--auto-scale-lr needs auto_scale_lr.base_batch_size in the config"
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        checkpoint = args.resume
        if checkpoint == "auto":
            checkpoint = launch.latest_checkpoint(cfg.work_dir)
            print(f"resuming from {checkpoint or 'nothing: starting anew'}", flush=True)
        if checkpoint:
            cfg.resume, cfg.load_from = True, checkpoint
    runner = launch.build_runner(cfg)
    runner.train()


if __name__ == "__main__":
    _command.run(main, "stopped; with --resume it goes on")
