"""What tools/train.py and tools/test.py share: options, config, processes."""

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
from mmengine.config import Config, DictAction
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from compressai_hm.detection.hooks.check_data_hook import check_batches

_LAUNCHED = {
    "pytorch": ("RANK", "python -m torch.distributed.run --nproc_per_node=N"),
    "slurm": ("SLURM_PROCID", "srun"),
    "mpi": ("OMPI_COMM_WORLD_LOCAL_RANK", "mpirun"),
}
"""By launcher, what it sets in the environment, and its command."""


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that MMDetection's train and test tools share."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("config", help="config file, or the name of one that ships")
    add_list(p)
    p.add_argument(
        "--work-dir", help="folder for logs and checkpoints [work_dirs/CONFIG]"
    )
    add_cfg_options(p)
    p.add_argument(
        "--launcher",
        choices=["none", *_LAUNCHED],
        default="none",
        help="what started the processes, if there are several",
    )
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
"""What mmdet_configs/ and results/sweeps/ are in: of a wheel, or the repository."""


def find_config(path: str | Path, folder: str = "mmdet_configs") -> Path:
    """A config's file: that of a path, or the one that ships under a name.

    Args:
        path: Such as ``mmdet_configs/hm_faster_rcnn.py``, or ``hm_faster_rcnn.py``.
        folder: Where those are that ship.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(path)
    for found in (path, SHIPPED / folder / path, SHIPPED / path):
        if found.is_file():
            return found
    raise FileNotFoundError(
        f"{path} does not exist; --list names the configs that there are"
    )


def add_list(p: argparse.ArgumentParser, folder: str = "mmdet_configs") -> None:
    """Adds ``--list``, which prints the names of the configs that ship, and ends."""

    class List(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
            for path in sorted((SHIPPED / folder).rglob("*.py")):
                name = path.relative_to(SHIPPED / folder).as_posix()
                if not name.startswith("_"):
                    print(name)
            parser.exit()

    p.add_argument("--list", action=List, nargs=0, help="name the configs, and end")


def read_config(path: str | Path) -> Config:
    """The content of a config, see :func:`find_config`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    path = find_config(path)
    try:
        return Config.fromfile(path)
    except Exception as e:  # it runs: it can raise anything
        raise ValueError(f"config {path}: {type(e).__name__}: {e}") from e


def merge_options(cfg: Config, options: dict | None) -> None:
    """Merges ``--cfg-options`` into a config.

    Raises:
        ValueError: If one's first word looks like a misspelt setting: MMEngine would
            take it for a new one that nothing reads.
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
    """The config with the options merged in, its work folder set.

    Args:
        args: Of :func:`parser`.
        demo_if_absent: Where the config's COCO is missing and it names a
            ``demo_config``, whether that one is returned instead, after three lines
            that say so. Defaults to False.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If the launcher's variables or GPUs are not there.
    """
    path = find_config(args.config)
    _check_launcher(args.launcher)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(path)
    demo = cfg.pop("demo_config", None)
    if demo and demo_if_absent:
        dataset = cfg.train_dataloader.dataset
        wanted = Path(dataset.data_root, dataset.ann_file)
        if not wanted.is_file():
            path = path.parent / demo
            print(
                f"COCO 2017 was not found: there is no {wanted}.\n"
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
        # MMEngine's launcher and its default wrapper want a GPU for each process.
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
    """The config's runner, which lists environment, config and hooks in the file alone.

    On the screen their 500 lines would bury what is wrong.
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
            check_batches(loop.dataloader)  # before schedulers trip over it
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
    """Ends the threads of gloo, which can abort an interpreter that is going down."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _is_for_users(record: logging.LogRecord) -> bool:
    listings = r"Config:|Hooks will be executed|\s*-+\s*System environment:"
    # MMEngine tells of its own use of what it has deprecated.
    return not re.match(rf"{listings}|.* will be deprecated", str(record.msg))


def checkpoint_to_resume(cfg: Config, asked: str = "auto") -> str | None:
    """The checkpoint that training goes on from.

    Args:
        cfg: The config.
        asked: A checkpoint, or "auto": the :func:`latest_checkpoint` of where the
            config's CheckpointHook writes.

    Raises:
        ValueError: If it is not known what to go on from.
    """
    if asked != "auto":
        if Path(asked).is_file() and not _progress(Path(asked)):
            raise ValueError(
                f"{asked} holds weights, and nothing to go on from; to start from them "
                f"leave --resume out and give --cfg-options load_from={asked}"
            )
        return asked
    folder, pattern = Path(cfg.work_dir).absolute(), "*.pth"
    hooks = [*cfg.get("default_hooks", {}).values(), *(cfg.get("custom_hooks") or ())]
    for hook in hooks:
        if hook and str(hook["type"]).endswith("CheckpointHook"):
            out = hook.get("out_dir")
            if out and "://" in str(out):
                raise ValueError(
                    f"{out} cannot be searched: name the checkpoint to go on from, "
                    "--resume CHECKPOINT"
                )
            folder = Path(out, folder.name) if out else folder
            pattern = (hook.get("filename_tmpl") or pattern).replace("{}", "*")
    return latest_checkpoint(folder, pattern)


def latest_checkpoint(folder: str | Path, pattern: str = "*.pth") -> str | None:
    """The checkpoint in a folder that has trained longest.

    By what the files hold. MMEngine's ``last_checkpoint`` can be left empty by a kill,
    and names are the config's.

    Args:
        folder: Need not exist.
        pattern: Of names that are looked at besides ``*.pth``.

    Returns:
        Its path; None where there is no checkpoint.

    Raises:
        ValueError: If one cannot be read, or none is of a training, so that it is not
            known what may be overwritten.
    """
    folder, found = Path(folder), {}
    paths = {p for p in (*folder.glob("*.pth"), *folder.glob(pattern)) if p.is_file()}
    for path in sorted(p for p in paths if not p.name.startswith(".")):
        with contextlib.suppress(FileNotFoundError):  # a training has just removed it
            found[path] = _progress(path)
    resumable = {path: progress for path, progress in found.items() if progress}
    if found and not resumable:
        raise ValueError(
            f"{folder} holds {', '.join(p.name for p in found)}, and no checkpoint of "
            "a training; name one, --resume CHECKPOINT, or take another --work-dir"
        )
    return str(max(resumable, key=resumable.get)) if resumable else None


def _progress(path: Path) -> tuple[bool, int] | None:
    """Whether the optimizer's state is there, and the iterations done.

    The best checkpoint of CheckpointHook's ``save_best`` lacks that state.
    """
    try:
        saved = torch.load(
            path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None
        )
    except FileNotFoundError:
        raise
    except Exception as e:  # unpickling rubbish raises almost anything
        raise ValueError(
            f"{path} is broken. Remove it, if a training was killed while writing it, "
            "or name the checkpoint to go on from: --resume CHECKPOINT"
        ) from e
    meta = saved.get("meta") if isinstance(saved, dict) else None
    if not isinstance(meta, dict) or "iter" not in meta:
        return None
    return "optimizer" in saved, meta["iter"]
