"""Figures of evaluated pictures."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.axes
import matplotlib.figure
import matplotlib.patches
import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

from ....distortion import psnr
from ....entropy import QuantSteps
from ....geometry import latent_size
from ....models.human_machine import HumanMachineMixin
from ...models.detector import HumanMachineDetector
from ..unwrap import unwrap_model


@HOOKS.register_module()
class DrawViewsHook(Hook):
    """Draws x, x_hat, x_bar, their difference, the bits by place, and the boxes.

    With detector_regions it also draws the map of steps. It writes one PNG a picture,
    under ``<work_dir>/views`` or ``out_dir``.

    Args:
        num_pictures: Number of pictures of each evaluation. Defaults to 4.
        out_dir: The folder, relative to the work folder. Defaults to "views".
    """

    def __init__(self, num_pictures: int = 4, out_dir: str = "views"):
        self.num_pictures = num_pictures
        self.out_dir = out_dir

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: SampleList | None = None,
    ) -> None:
        # In a loop by iterations the epoch is always 0.
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
        model = unwrap_model(runner.model)
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
            figure = draw_views(model, picture, sample, classes.get("classes"))
            figure.savefig(target, dpi=110, bbox_inches="tight")


def draw_views(
    model: HumanMachineDetector,
    picture: Tensor,
    sample: DetDataSample,
    classes: Sequence[str] | None = None,
) -> matplotlib.figure.Figure:
    """Draws one evaluated picture.

    Args:
        model: The HumanMachineDetector.
        picture: The picture before coding, ``(3, H, W)`` BGR uint8.
        sample: The sample that the model predicted.
        classes: Names of the labels, to be written at the boxes. Defaults to None.

    Returns:
        A matplotlib figure.
    """
    views = [view.cpu() for view in (picture.flip(0), sample.x_hat, sample.x_bar)]
    decibels = [psnr(view, views[0], 255) for view in views[1:]]
    x, x_hat, x_bar = (view.permute(1, 2, 0).numpy() for view in views)
    steps = sample.metainfo.get("steps", QuantSteps())
    columns = 3 if steps.offsets is None else 4

    figure = matplotlib.figure.Figure(
        figsize=(5 * columns, 15 * x.shape[0] / x.shape[1] / 1.4)
    )
    axes = figure.subplots(2, columns)
    bpp = sample.metainfo["bits"] / (x.shape[0] * x.shape[1])
    panels = [
        ("x", x),
        (f"x_hat, {bpp:.3f} bpp, {decibels[0]:.2f} dB", x_hat),
        (f"x_bar, {decibels[1]:.2f} dB", x_bar),
        ("x_bar - x_hat, times 4", _amplify_difference(x_bar, x_hat)),
        ("bits of y_hat, by place", _compute_bits(model.codec, picture, steps)),
        (
            f"read from {model.task_view}",
            x_bar if model.task_view == "x_bar" else x_hat,
        ),
    ]
    if steps.offsets is not None:
        values = _crop_places(steps.values(steps.offsets.shape), picture)
        title = f"steps, {values.max():.2f} (dark) to {values.min():.2f}"
        panels.append((title, -np.log2(values)))
    for ax in axes.flat:
        ax.set_axis_off()
    shown = [*axes[0, :3], *axes[1, :3], *axes[0, 3:]][: len(panels)]
    for ax, (title, panel) in zip(shown, panels, strict=True):
        ax.imshow(panel, cmap="inferno" if panel.ndim == 2 else None)
        ax.set_title(title, fontsize=10)
    if "pred_instances" in sample:
        draw_boxes(axes[1, 2], sample.pred_instances, classes)
    return figure


def draw_boxes(
    ax: matplotlib.axes.Axes,
    instances: InstanceData,
    classes: Sequence[str] | None = None,
    score_thr: float = 0.3,
) -> None:
    """Draws boxes onto matplotlib axes.

    Args:
        ax: The axes, in pixels of the picture.
        instances: ``pred_instances`` of a detector.
        classes: Names of the labels; None writes their numbers. Defaults to None.
        score_thr: The lowest score of boxes that are drawn. Defaults to 0.3.
    """
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


def _compute_bits(
    codec: HumanMachineMixin, picture: Tensor, steps: QuantSteps
) -> np.ndarray:
    """Returns the bits of y_hat by place, ``(h, w)``.

    For a classical codec the bits by place are unknown, and returned as one 0.
    """
    if not codec.learned:
        return np.zeros((1, 1))
    with torch.no_grad():
        x = picture.flip(0)[None].to(next(codec.parameters()).device).float() / 255
        latent = codec.code_latent(codec.analyze(x), [steps])
    bits = -latent["likelihoods"]["y"][0].float().log2()
    return _crop_places(bits.sum(0).cpu().numpy(), picture)


def _crop_places(places: np.ndarray, picture: Tensor) -> np.ndarray:
    """Returns the places without those of the padding."""
    rows, cols = latent_size(picture.shape[-2:])
    return places[:rows, :cols]


def _amplify_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (128 + 4 * (a.astype(int) - b)).clip(0, 255).astype(np.uint8)
