"""Trains a config's model: python tools/train.py mmdet_configs/hm_faster_rcnn.py."""

import _command
import _launch
import torch

from compressai_hm.compat import has_bfloat16


def main() -> None:
    """Trains the model of a config."""
    parser = _launch.parser(__doc__)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from this checkpoint; default: the newest of the work folder",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision: float16, or bfloat16 on Apple's MPS and on CPUs that "
        "have instructions for it",
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
                "--amp: this CPU has no instructions for bfloat16, so that it would "
                "be many times slower; training continues in float32",
                flush=True,
            )
    resume = args.resume
    if cfg.get("resume") and not cfg.get("load_from"):
        # A kill can leave MMEngine's record of the last checkpoint empty.
        resume = resume or "auto"
    if resume:
        checkpoint = _launch.checkpoint_to_resume(cfg, resume)
        print(f"resuming from {checkpoint or 'nothing: starting anew'}", flush=True)
        cfg.resume = bool(checkpoint)
        cfg.load_from = checkpoint or cfg.get("load_from")
    _launch.build_runner(cfg).train()


if __name__ == "__main__":
    _command.run(main, "stopped; --resume continues")
