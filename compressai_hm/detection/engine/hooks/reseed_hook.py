"""Random numbers of trainings that are resumed."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner


@HOOKS.register_module()
class ReseedHook(Hook):
    """Seeds every random number from (seed, epoch, rank) before each epoch.

    MMEngine saves no state of the random number generators. With this hook, a run that
    is resumed at the end of an epoch continues as if it had not stopped. Loader workers
    are seeded from (seed, epoch, rank, worker).

    A loop by iterations is one long epoch. In it, the numbers of each iteration come
    from (seed, iteration, rank), and a resumed run repeats none. The run continues
    exactly if the loader has no workers and MMEngine skips batches without reading them
    (InfiniteSampler, MMEngine from 0.10.12 on); otherwise augmentations differ.

    Raises:
        ValueError: If the workers of the training loader are persistent, because they
            would keep their generators over the epochs.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        loader = runner.train_dataloader
        if _is_by_iteration(runner):
            _seed((runner.seed, runner.iter, get_rank()))
            loader.worker_init_fn = _seed_from_loader
            return
        if loader.num_workers and loader.persistent_workers:
            raise ValueError(
                "ReseedHook needs train_dataloader.persistent_workers=False"
            )
        key = (runner.seed, runner.epoch, get_rank())
        _seed(key)
        loader.worker_init_fn = _WorkerSeed(key)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        if _is_by_iteration(runner):
            _seed((runner.seed, runner.iter, get_rank(), 1))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        if _is_by_iteration(runner):  # the next batch is read before its own hooks run
            _seed((runner.seed, runner.iter + 1, get_rank()))


def _is_by_iteration(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def _seed_from_loader(worker_id: int) -> None:
    """Seeds a worker from the seed that torch draws anew in each pass."""
    _seed((torch.initial_seed(),))


class _WorkerSeed:
    def __init__(self, key: tuple[int, ...]):
        self.key = key

    def __call__(self, worker_id: int) -> None:
        _seed((*self.key, worker_id))


def _seed(key: tuple[int, ...]) -> None:
    value = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)  # CUDA's too
