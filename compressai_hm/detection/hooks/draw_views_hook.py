from collections.abc import Sequence
from pathlib import Path

import matplotlib.axes
import matplotlib.figure
import matplotlib.patches
import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

from ...codecs import HumanMachineMixin
from ...codecs.distortion import psnr
from ..detector import HumanMachineDetector


@HOOKS.register_module()
class DrawViewsHook(Hook):
    """Draws x, x_hat, x_bar, what g_t changed, where the bits went, and the boxes.

    One PNG a picture, under ``<work_dir>/views`` or ``out_dir``.

    Args:
        num_pictures: How many pictures of each evaluation. Defaults to 4.
        score_thr: Boxes from this score up. Defaults to 0.3.
        out_dir: Where to; relative to the work folder. Defaults to "views".
    """

    def __init__(
        self, num_pictures: int = 4, score_thr: float = 0.3, out_dir: str = "views"
    ):
        self.num_pictures = num_pictures
        self.score_thr = score_thr
        self.out_dir = out_dir

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: SampleList | None = None,
    ) -> None:
        # In a loop by iterations the epoch stays 0.
        when = f"epoch_{runner.epoch}" if runner.epoch else f"iter_{runner.iter}"
        self._draw(runner, batch_idx, data_batch, outputs, f"{when}_")

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: SampleList | None = None,
    ) -> None:
        self._draw(runner, batch_idx, data_batch, outputs, "")

    def _draw(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict,
        outputs: SampleList,
        prefix: str,
    ) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        classes = runner.visualizer.dataset_meta or {}
        first = batch_idx * len(outputs)
        for i, (picture, sample) in enumerate(
            zip(data_batch["inputs"], outputs, strict=True)
        ):
            if first + i >= self.num_pictures:
                return
            name = Path(sample.metainfo.get("img_path") or f"{first + i}").stem
            target = Path(runner.work_dir) / self.out_dir / f"{prefix}{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            figure = draw_views(
                model, picture, sample, classes.get("classes"), self.score_thr
            )
            figure.savefig(target, dpi=110, bbox_inches="tight")


def draw_views(
    model: HumanMachineDetector,
    picture: Tensor,
    sample: DetDataSample,
    classes: Sequence[str] | None = None,
    score_thr: float = 0.3,
) -> matplotlib.figure.Figure:
    """A figure of one evaluated picture.

    Args:
        model: The HumanMachineDetector.
        picture: Before coding, ``(3, H, W)`` BGR uint8.
        sample: What it predicted.
        classes: Names of the labels, if the boxes are to be named.
        score_thr: Boxes from this score up.

    Returns:
        A matplotlib figure.
    """
    views = picture.flip(0), sample.x_hat, sample.x_bar
    decibels = [psnr(view.cpu(), views[0].cpu(), 255) for view in views[1:]]
    x, x_hat, x_bar = (view.permute(1, 2, 0).cpu().numpy() for view in views)
    bits = _bits(model.codec, picture)

    figure = matplotlib.figure.Figure(figsize=(15, 15 * x.shape[0] / x.shape[1] / 1.4))
    axes = figure.subplots(2, 3)
    bpp = sample.metainfo["bits"] / (x.shape[0] * x.shape[1])
    panels = (
        ("x", x),
        (f"x_hat, {bpp:.3f} bpp, {decibels[0]:.2f} dB", x_hat),
        (f"x_bar, {decibels[1]:.2f} dB", x_bar),
        ("x_bar - x_hat, times 4", _difference(x_bar, x_hat)),
        ("bits of y_hat, by place", bits),
        (
            f"read from {model.task_view}",
            x_bar if model.task_view == "x_bar" else x_hat,
        ),
    )
    for ax, (title, panel) in zip(axes.flat, panels, strict=True):
        ax.imshow(panel, cmap="inferno" if panel.ndim == 2 else None)
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    if "pred_instances" in sample:
        draw_boxes(axes[1, 2], sample.pred_instances, classes, score_thr)
    return figure


def draw_boxes(
    ax: matplotlib.axes.Axes,
    instances: InstanceData,
    classes: Sequence[str] | None = None,
    score_thr: float = 0.3,
) -> None:
    """Draws the boxes of ``pred_instances`` from a score up onto matplotlib axes."""
    colors = matplotlib.colormaps["tab10"]
    for box, score, label in zip(
        instances.bboxes.tolist(),
        instances.scores.tolist(),
        instances.labels.tolist(),
        strict=True,
    ):
        if score < score_thr:
            continue
        color = colors(label % 10)
        ax.add_patch(
            matplotlib.patches.Rectangle(
                box[:2], box[2] - box[0], box[3] - box[1], fill=False, color=color
            )
        )
        name = classes[label] if classes else label
        label_box = dict(facecolor=color, pad=0.5, linewidth=0)
        ax.text(
            *box[:2], f"{name} {score:.2f}", color="white", fontsize=7, bbox=label_box
        )


def _bits(codec: HumanMachineMixin, picture: Tensor) -> np.ndarray:
    """Bits of y_hat by place; a classical codec does not tell where its bits go."""
    if not codec.learned:
        return np.zeros((1, 1))
    with torch.no_grad():
        x = picture.flip(0)[None].to(next(codec.parameters()).device).float() / 255
        likelihood = codec(x)["likelihoods"]["y"][0]
    bits = (-likelihood.float().log2()).sum(0).cpu().numpy()
    return bits[: -(-x.shape[2] // 16), : -(-x.shape[3] // 16)]


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (128 + 4 * (a.astype(int) - b)).clip(0, 255).astype(np.uint8)
