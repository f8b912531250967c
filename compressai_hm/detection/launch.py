"""What tools/train.py and tools/test.py share: options, config, processes."""

import argparse
import os
import re
import sys
from pathlib import Path

import torch
from mmengine.config import Config, DictAction


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that MMDetection's train and test tools share."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("config", help="config file")
    p.add_argument(
        "--work-dir", help="folder for logs and checkpoints [work_dirs/CONFIG]"
    )
    p.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help="settings that override the config's, as key=value; nested keys with "
        "dots, lists and tuples in quotes without spaces: key='[(a,b),(c,d)]'",
    )
    p.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes, if there are several",
    )
    p.add_argument("--local_rank", "--local-rank", type=int, default=0)
    return p


def load_config(args: argparse.Namespace, demo_if_absent: bool = False) -> Config:
    """The config with the options merged in, its work folder set.

    Args:
        args: Of :func:`parser`.
        demo_if_absent: Where the config's COCO is missing and it names a
            ``demo_config``, whether that one is returned instead, after three lines
            that say so. Defaults to False.

    Raises:
        SystemExit: If there is no such config.
    """
    path = Path(args.config)
    if not path.is_file():
        sys.exit(f"{path} does not exist; the configs are in mmdet_configs/")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = Config.fromfile(path)
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
            cfg = Config.fromfile(path)
            if args.work_dir:
                args.work_dir += "_demo"
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
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


def latest_checkpoint(work_dir: str) -> str | None:
    """The last ``epoch_N.pth`` in a work folder.

    By name, not by MMEngine's ``last_checkpoint``, which a kill can leave empty.
    """
    found = {
        int(match[1]): path
        for path in Path(work_dir).glob("epoch_*.pth")
        if (match := re.fullmatch(r"epoch_(\d+)", path.stem))
    }
    return str(found[max(found)]) if found else None
