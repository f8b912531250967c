"""Evaluates a checkpoint: python tools/test.py CONFIG CHECKPOINT."""

import _command
import _launch
from mmengine.model import is_model_wrapper


def main() -> None:
    """Evaluates a checkpoint, or the weights that a config starts from."""
    parser = _launch.parser(__doc__)
    text = "default: the weights that the config starts from"
    parser.add_argument("checkpoint", nargs="?", help=text)
    parser.add_argument("--out", help="pickle file for the predictions")
    text = "folder for pictures of every x, x_hat and x_bar, the bits and the boxes"
    parser.add_argument("--show-dir", help=text)
    args = parser.parse_args()
    cfg = _launch.load_config(args)
    cfg.load_from = args.checkpoint
    hooks = [h for h in cfg.get("custom_hooks", ()) if h["type"] != "DrawViewsHook"]
    if args.show_dir:
        draw = dict(type="DrawViewsHook", num_pictures=10**9, out_dir=args.show_dir)
        hooks.append(draw)
    cfg.custom_hooks = hooks
    if args.out:
        dump = dict(type="DumpPredictions", out_file_path=args.out)
        evaluators = cfg.test_evaluator
        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        cfg.test_evaluator = [*evaluators, dump]
    runner = _launch.build_runner(cfg)
    if not args.checkpoint:
        model = runner.model
        (model.module if is_model_wrapper(model) else model).init_weights()
    runner.test()


if __name__ == "__main__":
    _command.run(main)
