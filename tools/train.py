"""Trains what a config says: python tools/train.py mmdet_configs/hm_faster_rcnn.py"""

import _command
import _launch
import torch

from compressai_hm.compat import has_bfloat16


def main() -> None:
    parser = _launch.parser(__doc__)
    _command.add_debug(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from the newest checkpoint of the work folder, or from the one "
        "given",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision: float16, or bfloat16 on Apple's MPS and on CPUs that "
        "have instructions for it",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the batch size (needs auto_scale_lr in the "
        "config)",
    )
    args = parser.parse_args()
    cfg = _launch.load_config(args, demo_if_absent=True)
    if args.amp:
        if torch.cuda.is_available():
            cfg.optim_wrapper.type = "AmpOptimWrapper"
            cfg.optim_wrapper.loss_scale = "dynamic"
        elif torch.backends.mps.is_available() or has_bfloat16():
            cfg.optim_wrapper.type = "BFloat16OptimWrapper"
        else:
            print(
                "--amp: this CPU has no instructions for bfloat16, with which training "
                "would take many times as long; it goes on in float32",
                flush=True,
            )
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise ValueError(
                "--auto-scale-lr needs auto_scale_lr.base_batch_size in the config"
            )
        cfg.auto_scale_lr.enable = True
    resume = args.resume
    if cfg.get("resume") and not cfg.get("load_from"):
        resume = resume or "auto"  # else MMEngine looks, which a kill can mislead
    if resume:
        checkpoint = _launch.checkpoint_to_resume(cfg, resume)
        print(f"resuming from {checkpoint or 'nothing: starting anew'}", flush=True)
        cfg.resume = bool(checkpoint)
        cfg.load_from = checkpoint or cfg.get("load_from")
    runner = _launch.build_runner(cfg)
    runner.train()


if __name__ == "__main__":
    _command.run(main, "stopped; with --resume it goes on")
