"""Options, configs, processes and checkpoints of tools/train.py and tools/test.py."""

import argparse
import contextlib
import difflib
import inspect
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from _command import add_debug
from mmengine.config import Config, DictAction
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from compressai_hm.detection.engine.hooks.check_data_hook import check_batches

_LAUNCHED = {
    "pytorch": ("RANK", "python -m torch.distributed.run --nproc_per_node=N"),
    "slurm": ("SLURM_PROCID", "srun"),
    "mpi": ("OMPI_COMM_WORLD_LOCAL_RANK", "mpirun"),
}
"""Each launcher sets a variable in the environment, and has a command."""


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of MMDetection's train and test tools."""
    p = argparse.ArgumentParser(description=description)
    add_debug(p)
    p.add_argument("config", help="config file, or the name of one of this package's")
    add_list(p)
    text = "folder for logs and checkpoints [work_dirs/CONFIG]"
    p.add_argument("--work-dir", help=text)
    add_cfg_options(p)
    launchers, text = ["none", *_LAUNCHED], "launcher of several processes [none]"
    p.add_argument("--launcher", choices=launchers, default="none", help=text)
    p.add_argument("--local_rank", "--local-rank", type=int, default=0)
    return p


class _Settings(DictAction):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        for value in values:
            if "=" not in value:
                raise ValueError(f"{option_string} takes key=value, got {value!r}")
            if any(value.count(a) != value.count(b) for a, b in ("()", "[]")):
                raise ValueError(f"{option_string}: unbalanced brackets in {value!r}")
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(p: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options key=value ...``."""
    p.add_argument(
        "--cfg-options",
        nargs="+",
        action=_Settings,
        help="settings that override the config's, as key=value; nested keys with "
        "dots, lists and tuples in quotes without spaces: key='[(a,b),(c,d)]'",
    )


_HERE = Path(__file__).resolve().parent
SHIPPED = _HERE if (_HERE / "mmdet_configs").is_dir() else _HERE.parent
"""The folder of a wheel or of the repository that contains mmdet_configs/."""


SWEEPS = "mmdet_configs/sweeps"
"""Configs for tools/rate_accuracy.py, which the other tools do not list."""


def find_config(path: str | Path, folder: str = "mmdet_configs") -> Path:
    """Finds the file of a config by its path, or by its name in this package.

    Args:
        path: Such as ``mmdet_configs/hm_faster_rcnn.py``, or ``hm_faster_rcnn.py``.
        folder: Folder of the package's configs.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    path = Path(path)
    for candidate in (path, SHIPPED / folder / path, SHIPPED / path):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path} does not exist; --list names the configs")


def add_list(p: argparse.ArgumentParser, folder: str = "mmdet_configs") -> None:
    """Adds ``--list``, which prints the names of the package's configs, and ends."""

    class List(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
            for path in sorted((SHIPPED / folder).rglob("*.py")):
                name = path.relative_to(SHIPPED / folder).as_posix()
                if not name.startswith(("_", f"{Path(SWEEPS).name}/")):
                    print(name)
            parser.exit()

    p.add_argument("--list", action=List, nargs=0, help="print the configs' names")


def read_config(path: str | Path) -> Config:
    """Reads a config, see :func:`find_config`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    path = find_config(path)
    try:
        return Config.fromfile(path)
    except Exception as e:  # a config is a program, and can raise any error
        raise ValueError(f"config {path}: {type(e).__name__}: {e}") from e


def merge_options(cfg: Config, options: dict | None) -> None:
    """Merges ``--cfg-options`` into a config.

    Raises:
        ValueError: If the first word of a key looks like a misspelt setting, which
            MMEngine would add as a new one without effect.
    """
    known = {*cfg, *inspect.signature(Runner).parameters}
    for key in options or {}:
        first = key.split(".")[0]
        meant = difflib.get_close_matches(first, known, n=1, cutoff=0.8)
        if first not in known and meant:
            raise ValueError(
                f"--cfg-options {key}: there is no {first}; did you mean {meant[0]}?"
            )
    cfg.merge_from_dict(options or {})


def load_config(args: argparse.Namespace, demo_if_absent: bool = False) -> Config:
    """Reads a config, merges the options, and sets its work folder.

    Args:
        args: Options of :func:`parser`.
        demo_if_absent: Whether to return the config's ``demo_config``, if it has one
            and its COCO is missing, and to say so. Defaults to False.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If the launcher's variables or GPUs are missing.
    """
    path = find_config(args.config)
    _check_launcher(args.launcher)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(path)
    demo = cfg.pop("demo_config", None)
    if demo and demo_if_absent:
        dataset = cfg.train_dataloader.dataset
        annotations = Path(dataset.data_root, dataset.ann_file)
        if not annotations.is_file():
            path = path.parent / demo
            print(
                f"COCO 2017 was not found: there is no {annotations}.\n"
                "To use it, unpack it there from https://cocodataset.org/#download, or "
                "set MMDET_DATASETS to its folder.\n"
                f"Instead, the demo runs on a drawn data set: {path}.",
                flush=True,
            )
            cfg = read_config(path)
            if args.work_dir:
                args.work_dir += "_demo"
    merge_options(cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir or not cfg.get("work_dir"):
        cfg.work_dir = args.work_dir or f"work_dirs/{path.stem}"
    if args.launcher == "pytorch" and not torch.cuda.is_available():
        # MMEngine's launcher and its default wrapper need a GPU for each process.
        torch.distributed.init_process_group("gloo")
        cfg.model_wrapper_cfg = dict(
            type="MMDistributedDataParallel",
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get("find_unused_parameters", False),
        )
    return cfg


def _check_launcher(launcher: str) -> None:
    if launcher == "none":
        return
    variable, start = _LAUNCHED[launcher]
    if variable not in os.environ:
        raise ValueError(
            f"--launcher {launcher}: {variable} is not set; start the tool by {start}, "
            "or leave --launcher out"
        )
    gpus = torch.cuda.device_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if launcher == "pytorch" and 0 < gpus < processes:
        raise ValueError(
            f"--launcher {launcher}: {processes} processes and {gpus} GPU"
            f"{'s' * (gpus > 1)}: start one for each GPU, or set CUDA_VISIBLE_DEVICES= "
            "to train on the CPU"
        )
    if launcher != "pytorch" and not torch.cuda.is_available():
        raise ValueError(
            f"--launcher {launcher} needs a GPU for each process; on CPUs use "
            "--launcher pytorch"
        )


def build_runner(cfg: Config) -> Runner:
    """Builds the config's runner, which lists environment and config in its file only.

    On the screen their 500 lines would hide errors.
    """
    base = RUNNERS.get(cfg.get("runner_type", "Runner"))

    class ToolRunner(base):
        def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
            logger = super().build_logger(*args, **kwargs)
            screen, *_ = logger.handlers
            screen.addFilter(_is_for_users)
            return logger

        def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
            loop = super().build_train_loop(loop)
            check_batches(loop.dataloader)  # schedulers' errors are less clear
            if isinstance(loop, IterBasedTrainLoop) and any(
                isinstance(h, CheckpointHook) and h.by_epoch for h in self.hooks
            ):
                self.logger.warning(
                    "no checkpoint is written before the end: an IterBasedTrainLoop "
                    "has one epoch; set default_hooks.checkpoint.by_epoch=False"
                )
            return loop

        def train(self) -> torch.nn.Module:
            model = super().train()
            _leave_process_group()
            return model

        def test(self) -> dict[str, float]:
            metrics = super().test()
            _leave_process_group()
            return metrics

    return ToolRunner.from_cfg(cfg)


def _leave_process_group() -> None:
    """Ends the threads of gloo, which can abort the interpreter when it exits."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _is_for_users(record: logging.LogRecord) -> bool:
    listings = r"Config:|Hooks will be executed|\s*-+\s*System environment:"
    # MMEngine itself uses functions that it has deprecated.
    return not re.match(rf"{listings}|.* will be deprecated", str(record.msg))


def checkpoint_to_resume(cfg: Config, checkpoint: str = "auto") -> str | None:
    """Finds the checkpoint from which training continues.

    Args:
        cfg: The config.
        checkpoint: A checkpoint. Defaults to "auto", the :func:`latest_checkpoint` of
            the folder of the config's CheckpointHook.

    Raises:
        ValueError: If the checkpoint is not of a training, or none can be chosen.
    """
    if checkpoint != "auto":
        if Path(checkpoint).is_file() and not _read_progress(Path(checkpoint)):
            raise ValueError(
                f"{checkpoint} holds weights, and nothing to go on from; to start from "
                f"them leave --resume out and give --cfg-options load_from={checkpoint}"
            )
        return checkpoint
    folder, pattern = Path(cfg.work_dir).absolute(), "*.pth"
    hooks = [*cfg.get("default_hooks", {}).values(), *(cfg.get("custom_hooks") or ())]
    for hook in hooks:
        if hook and str(hook["type"]).endswith("CheckpointHook"):
            out = hook.get("out_dir")
            if out and "://" in str(out):
                raise ValueError(
                    f"{out} cannot be searched: name one by --resume CHECKPOINT"
                )
            folder = Path(out, folder.name) if out else folder
            pattern = (hook.get("filename_tmpl") or pattern).replace("{}", "*")
    return latest_checkpoint(folder, pattern)


def latest_checkpoint(folder: str | Path, pattern: str = "*.pth") -> str | None:
    """Finds the checkpoint in a folder that has trained longest.

    The content of the files decides: a kill can leave MMEngine's ``last_checkpoint``
    empty, and a config can choose any names.

    Args:
        folder: The folder; it need not exist.
        pattern: Pattern of further names. Defaults to ``*.pth``, which always counts.

    Returns:
        Its path; None if there is no checkpoint.

    Raises:
        ValueError: If a checkpoint cannot be read, or files exist and none of them is a
            checkpoint of a training: they could be overwritten.
    """
    folder, progress = Path(folder), {}
    paths = {p for p in (*folder.glob("*.pth"), *folder.glob(pattern)) if p.is_file()}
    for path in sorted(p for p in paths if not p.name.startswith(".")):
        with contextlib.suppress(FileNotFoundError):  # a training has just removed it
            progress[path] = _read_progress(path)
    resumable = {path: done for path, done in progress.items() if done}
    if progress and not resumable:
        raise ValueError(
            f"{folder} holds {', '.join(p.name for p in progress)}, and no checkpoint "
            "of a training; name one, --resume CHECKPOINT, or take another --work-dir"
        )
    return str(max(resumable, key=resumable.get)) if resumable else None


def _read_progress(path: Path) -> tuple[bool, int] | None:
    """Returns whether a checkpoint has the optimizer's state, and its iterations.

    The best checkpoint of CheckpointHook's ``save_best`` lacks that state. Files that
    are not of a training return None.
    """
    try:
        saved = torch.load(
            path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None
        )
    except FileNotFoundError:
        raise
    except Exception as e:  # unpickling a damaged file can raise any error
        raise ValueError(
            f"{path} is broken. Remove it if a training was killed while writing it, "
            "or name the checkpoint to go on from: --resume CHECKPOINT"
        ) from e
    meta = saved.get("meta") if isinstance(saved, dict) else None
    if not isinstance(meta, dict) or "iter" not in meta:
        return None
    return "optimizer" in saved, meta["iter"]
