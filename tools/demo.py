"""Adapts a codec to a detector on a drawn data set, and shows the gain.

The table has three rows: the codec at the start, after more training for humans only,
and after as much training for humans and the detector. Unfinished training is resumed.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import _command
import _launch
import matplotlib.figure
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from compressai_hm.detection import DrawnCocoDataset
from compressai_hm.detection.engine.hooks.draw_views_hook import draw_boxes

CONFIGS = _launch.SHIPPED / "mmdet_configs"


class ProgressHook(Hook):
    """Shows a progress bar, and collects the first landscape pictures."""

    def __init__(self, title: str, count: int = 3):
        self.title, self.count = title, count
        self.examples = []

    def before_train(self, runner: Runner) -> None:
        """Starts the bar at the iterations that are done."""
        total, done = runner.max_iters, runner.iter
        self.bar = tqdm(total=total, initial=done, desc=self.title, unit="step")

    def before_test(self, runner: Runner) -> None:
        """Starts the bar."""
        total = len(runner.test_dataloader)
        self.bar = tqdm(total=total, desc=self.title, unit="picture")

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Moves the bar."""
        self.bar.update()

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Any = None,
    ) -> None:
        """Moves the bar, and collects a picture."""
        self.bar.update()
        _, height, width = data_batch["inputs"][0].shape
        if width > height and len(self.examples) < self.count:
            self.examples.append((data_batch["inputs"][0], outputs[0]))

    def after_run(self, runner: Runner) -> None:
        """Closes the bar."""
        self.bar.close()

    after_train = after_test = after_run


def run(cfg: Config, title: str, train: bool) -> tuple[dict, list] | None:
    """Trains or tests; returns metrics and examples of a test.

    The logs go to files in the work folder.
    """
    work_dir = Path(cfg.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    cfg.log_level = "WARNING"
    cfg.experiment_name = f"{title}, {time.time_ns()}"  # MMEngine's global state
    cfg.visualizer.name = cfg.experiment_name
    progress = ProgressHook(title)
    with (
        open(work_dir / "log.txt", "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
    ):
        runner = Runner.from_cfg(cfg)
        runner.register_hook(progress)
        if train:
            runner.train()
            return None
        if not cfg.load_from:
            runner.model.init_weights()
        return runner.test(), progress.examples


def evaluate(cfg: Config, title: str) -> tuple[dict, dict]:
    """Returns a row of the table, and the first pictures by view.

    Where g_t has not been trained, x_bar is x_hat and is not tested again.
    """
    row, pictures = {}, {}
    for view in ("x_hat", "x_bar"):
        if view == "x_bar" and not (cfg.load_from and cfg.model.lambda_machine):
            row["mAP x_bar"], pictures["x_bar"] = row["mAP x_hat"], pictures["x_hat"]
            continue
        cfg.model.task_view = view
        metrics, pictures[view] = run(cfg.copy(), f"{title}: test {view}", train=False)
        row[f"mAP {view}"] = metrics["coco/bbox_mAP"]
    row["bpp"] = metrics["codec/bpp"]
    row["PSNR x_hat"] = metrics["codec/psnr_x_hat"]
    return row, pictures


def adapt(name: str, title: str, root: Path, seed: int, **model) -> Config:
    """Trains the demo's config, and returns it with the weights for testing."""
    cfg = Config.fromfile(CONFIGS / "hm_faster_rcnn_demo.py")
    cfg.merge_from_dict({f"model.{key}": value for key, value in model.items()})
    cfg.work_dir = str(root / name)
    cfg.randomness = dict(seed=seed)
    cfg.train_cfg.val_interval = 10**6  # the demo tests after training
    cfg.custom_hooks = [h for h in cfg.custom_hooks if h["type"] != "DrawViewsHook"]
    last = _launch.latest_checkpoint(cfg.work_dir)
    if last and Path(last).stem == f"epoch_{cfg.train_cfg.max_epochs}":
        print(f"{title}: already trained; remove {cfg.work_dir} to train it again")
    else:
        training = cfg.copy()
        training.resume, training.load_from = bool(last), last
        run(training, f"{title}: train", train=True)
        last = _launch.latest_checkpoint(cfg.work_dir)
    cfg.load_from = last
    return cfg


def format_table(rows: dict[str, dict], ceiling: float) -> str:
    """Returns the table as text; ``ceiling`` is the mAP on uncompressed pictures."""
    columns = ("bpp", "PSNR x_hat", "mAP x_hat", "mAP x_bar")
    lines = [f"{'':26}" + "".join(f"{c:>12}" for c in columns)]
    for name, row in rows.items():
        cells = f"{row['bpp']:12.3f}{row['PSNR x_hat']:12.2f}" + "".join(
            f"{row[c]:12.3f}" for c in columns[2:]
        )
        lines.append(f"{name:26}{cells}")
    lines.append(f"{'uncompressed pictures':26}{'':36}{ceiling:12.3f}")
    return "\n".join(lines)


def draw(path: Path, original: list, control: dict, adapted: dict) -> None:
    """Draws the first pictures with their detections."""
    columns = {
        "x, uncompressed": (original, None),
        "x_hat, λ_m = 0": (control["x_hat"], "x_hat"),
        "x_hat, adapted": (adapted["x_hat"], "x_hat"),
        "x_bar, adapted": (adapted["x_bar"], "x_bar"),
    }
    classes = DrawnCocoDataset.METAINFO["classes"]
    figure = matplotlib.figure.Figure(figsize=(16, 3 * len(original)))
    axes = figure.subplots(len(original), len(columns), squeeze=False)
    for j, (title, (examples, view)) in enumerate(columns.items()):
        for i, (picture, sample) in enumerate(examples):
            shown = sample.get(view) if view else picture.flip(0)
            ax = axes[i, j]
            ax.imshow(shown.permute(1, 2, 0).cpu().numpy())
            ax.set_axis_off()
            draw_boxes(ax, sample.pred_instances, classes, score_thr=0.5)
            bits = sample.metainfo.get("bits")
            bpp = f", {bits / picture[0].numel():.3f} bpp" if bits else ""
            ax.set_title(title + bpp, fontsize=11)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def main() -> None:
    """Trains, tests, and prints the table."""
    parser = _command.parser(__doc__)
    parser.add_argument("--work-dir", default="work_dirs/demo")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    root = Path(args.work_dir) / f"seed_{args.seed}"
    started = time.monotonic()

    lambda_human = Config.fromfile(CONFIGS / "demo/codec.py").model.lambda_human
    model = Config.fromfile(CONFIGS / "hm_faster_rcnn_demo.py").model
    weights = dict(lambda_machine=0.0, lambda_human=lambda_human)
    control = adapt("control", "λ_m = 0", root, args.seed, **weights)
    adapted = adapt("adapted", "adapted", root, args.seed)
    start = control.copy()
    start.load_from, start.work_dir = None, str(root / "start")
    plain = Config.fromfile(CONFIGS / "demo/detector.py")
    plain.load_from = "compressai_hm://demo_detector.pth"
    plain.work_dir = str(root / "uncompressed")
    plain.test_dataloader.dataset.data_root = start.test_dataloader.dataset.data_root

    metrics, original = run(plain, "uncompressed: test", train=False)
    rows, pictures = {}, {}
    for title, cfg in (
        ("start", start),
        (f"λ_h = {lambda_human}, λ_m = 0", control),
        (f"λ_h = {model.lambda_human}, λ_m = {model.lambda_machine}", adapted),
    ):
        rows[title], pictures[title] = evaluate(cfg, title)
    ceiling = metrics["coco/bbox_mAP"]
    draw(root / "demo.png", original, *list(pictures.values())[1:])
    result = {"seed": args.seed, "uncompressed mAP": ceiling, "rows": rows}
    text = json.dumps(result, indent=2)
    (root / "demo.json").write_text(text, encoding="utf-8")
    print(
        f"\n{format_table(rows, ceiling)}\n\n"
        f"bpp of real bytes; PSNR in dB; 100 drawn pictures; seed {args.seed}; "
        f"{(time.monotonic() - started) / 60:.1f} minutes\n"
        f"pictures: {root / 'demo.png'}"
    )


if __name__ == "__main__":
    _command.run(main, "stopped; the same command continues")
