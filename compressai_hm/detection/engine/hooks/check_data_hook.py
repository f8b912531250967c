"""Checks of data sets against the detector before any work begins."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from mmdet.datasets import XMLDataset
from mmdet.evaluation import CocoMetric
from mmengine.dist import get_world_size
from mmengine.fileio import get_local_path, join_path, list_from_file
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...datasets.coco import loads_masks, one_name
from ...load import read_classes
from ..unwrap import unwrap_model


@HOOKS.register_module()
class CheckDataHook(Hook):
    """Checks before any work that the data sets fit the detector.

    MMDetection's NumClassCheckHook compares numbers of classes. This hook also compares
    their names, if the detector's checkpoint holds them (``dataset_meta``), and checks
    that data sets have what losses and metrics need. If no loss needs labels, any
    classes fit.

    Raises:
        ValueError: If classes, masks, annotations or the number of pictures do not fit.
    """

    def __init__(self):
        self.classes: tuple[str, ...] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if _has_no_detector(runner):
            return
        meta = checkpoint.get("meta") or {}
        # A HumanMachineDetector may have been trained on pictures of any classes.
        coded = hasattr(unwrap_model(runner.model), "codec")
        self.classes = meta.get("detector_classes") if coded else read_classes(meta)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.classes and hasattr(unwrap_model(runner.model), "codec"):
            checkpoint["meta"]["detector_classes"] = tuple(self.classes)

    def before_train(self, runner: Runner) -> None:
        check_batches(runner.train_dataloader)
        self._check_training(runner, unwrap_model(runner.model))
        if runner.val_loop is not None:
            self._check_evaluation(runner, "val_dataloader", runner.val_loop)

    def before_val(self, runner: Runner) -> None:
        if runner.iter == 0:  # else before_train has checked it
            self._check_evaluation(runner, "val_dataloader", runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        self._check_evaluation(runner, "test_dataloader", runner.test_loop)

    def _check_training(self, runner: Runner, model: nn.Module) -> None:
        annotated, labeled, trains = True, {"the detector": model}, True
        trained_for = {}
        if hasattr(model, "codec"):
            losses = model.machine_losses.losses if model._uses_machine_loss else []
            annotated = any(loss.annotations for loss in losses)
            labeled = {}
            for loss in losses:
                if loss.annotations != "labels":
                    continue
                if loss.detector is None:
                    labeled["the detector"] = model.detector
                else:
                    name = f"model.machine_losses' {loss.detector.name}"
                    labeled[name] = loss.detector.module
                    trained_for[name] = loss.detector.classes
            trains = "detector" in model.trainable
        self.classes = None if trains else model.detector_classes
        for dataset in _list_datasets(runner.train_dataloader.dataset):
            what = f"train_dataloader's {type(dataset).__name__}"
            classes = _get_classes(dataset, what)
            _warn_of_names(dataset, what, runner.logger)
            if annotated and not classes:
                raise ValueError(
                    f"{what} has no classes, and model.machine_losses needs annotated "
                    "pictures: take another data set, or dict(features=1.0)"
                )
            for name, detector in labeled.items():
                names = trained_for.get(name, self.classes)
                _check_classes(dataset, what, detector, name, names)
                _check_masks(dataset, what, detector)
            if trains and "the detector" in labeled:
                self.classes = classes

    def _check_evaluation(self, runner: Runner, name: str, loop: BaseLoop) -> None:
        model = unwrap_model(runner.model)
        if not _has_no_detector(runner):
            self.classes = self.classes or getattr(model, "detector_classes", None)
        for dataset in _list_datasets(loop.dataloader.dataset):
            what = f"{name}'s {type(dataset).__name__}"
            metrics = [
                metric
                for metric in loop.evaluator.metrics
                if isinstance(metric, CocoMetric) and not metric.format_only
            ]
            if not metrics:
                continue
            if _has_no_detector(runner):
                raise ValueError(
                    f"{what}: CocoMetric needs a detector, and model.detector is None; "
                    "leave it out of the evaluator"
                )
            _warn_of_names(dataset, what, runner.logger)
            detector = getattr(model, "detector", model)
            _check_classes(dataset, what, detector, "the detector", self.classes)
            objects = list(_list_objects(dataset))
            if not objects:
                raise ValueError(
                    f"{what} has no annotations; CocoMetric needs them, unless it has "
                    "format_only=True and an outfile_prefix"
                )
            without = sum("mask" not in item for item in objects)
            if without and any("segm" in metric.metrics for metric in metrics):
                raise ValueError(
                    f"{what}: {without} of {len(objects)} objects have no "
                    'segmentation, which CocoMetric(metric="segm") compares: set '
                    'metric="bbox"'
                )


def check_batches(loader: DataLoader) -> None:
    """Checks that a loader has at least one batch.

    Args:
        loader: The training data loader.

    Raises:
        ValueError: If there are fewer pictures than a batch takes.
    """
    sampler = loader.batch_sampler
    if len(loader) or not getattr(sampler, "drop_last", False):
        return
    ranks = get_world_size()
    raise ValueError(
        f"train_dataloader has {len(loader.dataset)} pictures"
        + (f" for {ranks} processes" if ranks > 1 else "")
        + f", fewer than a batch of {sampler.batch_size}: lower batch_size, or set "
        "drop_last=False"
    )


def _has_no_detector(runner: Runner) -> bool:
    model = unwrap_model(runner.model)
    return hasattr(model, "codec") and model.detector is None


def _list_datasets(dataset: Dataset) -> Iterator[Dataset]:
    """Yields the data sets inside a ConcatDataset or another wrapper."""
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    if inner[0] is None:
        yield dataset
        return
    for part in inner:
        yield from _list_datasets(part)


def _list_objects(dataset: Dataset) -> Iterator[dict]:
    for i in range(len(dataset)):
        yield from dataset.get_data_info(i).get("instances", ())


def _get_classes(dataset: Dataset, what: str) -> tuple[str, ...] | None:
    classes = getattr(dataset, "metainfo", {}).get("classes")
    if isinstance(classes, str):
        raise ValueError(one_name(what, classes))
    return classes


def _warn_of_names(dataset: Dataset, what: str, logger: logging.Logger) -> None:
    """Warns of a VOC-like set's objects that are left out because of their names."""
    reads = getattr(type(dataset), "load_data_list", None)
    if reads is not XMLDataset.load_data_list:  # other classes have other folders
        return
    names: Counter[str | None] = Counter()
    folder = join_path(dataset.sub_data_root, dataset.ann_subdir)
    options = dict(backend_args=dataset.backend_args)
    for number in list_from_file(dataset.ann_file, **options):
        with get_local_path(join_path(folder, f"{number}.xml"), **options) as path:
            objects = ElementTree.parse(path).iter("object")
            names.update(item.findtext("name") for item in objects)
    for name in dataset.metainfo["classes"]:
        del names[name]
    if names:
        listed = ", ".join(f"{name!r} ({n})" for name, n in names.most_common(10))
        logger.warning(
            f"{what}: {names.total()} objects are left out, for metainfo.classes lacks "
            f"their names: {listed}"
        )


def _list_heads(detector: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields heads that tell classes apart, unlike a region proposal network."""
    for name, module in detector.named_modules():
        parts = name.split(".")
        head = any(p.endswith("head") for p in parts) and "rpn_head" not in parts
        if head and hasattr(module, "num_classes"):
            yield name, module


def _check_classes(
    dataset: Dataset,
    what: str,
    detector: nn.Module,
    called: str,
    trained_for: tuple[str, ...] | None,
) -> None:
    classes = _get_classes(dataset, what)
    if not classes:
        return
    for name, head in _list_heads(detector):
        if head.num_classes != len(classes):
            raise ValueError(
                f"{what} has {len(classes)} classes {_shorten(classes)}, and "
                f"{called}'s {name} {head.num_classes}: give dataset.metainfo="
                "dict(classes=...) as the detector was trained, or another detector"
            )
    if trained_for and tuple(trained_for) != tuple(classes):
        raise ValueError(
            f"{what} has the classes {_shorten(classes)}, and {called} was trained "
            f"for {_shorten(trained_for)}, in this order: its labels would "
            "mean something else"
        )


def _check_masks(dataset: Dataset, what: str, detector: nn.Module) -> None:
    names = (name.split(".")[-1] for name, _ in detector.named_modules())
    if "mask_head" in names and loads_masks(dataset) is False:
        raise ValueError(
            f"{what} loads no masks, which {type(detector).__name__} learns from: set "
            "LoadAnnotations(with_bbox=True, with_mask=True)"
        )


def _shorten(classes: Sequence[str]) -> str:
    shown = ", ".join(map(str, classes[:5]))
    return f"({shown}, ...)" if len(classes) > 5 else f"({shown})"
