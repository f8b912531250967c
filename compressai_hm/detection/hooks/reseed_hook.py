import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ReseedHook(Hook):
    """Seeds every random number from (seed, epoch, rank) before each epoch.

    MMEngine saves no state of the random number generators. With this hook a run that
    is resumed at the end of an epoch goes on as if it had not stopped. Loader workers
    are seeded from (seed, epoch, rank, worker).

    Raises:
        ValueError: If the workers of the training loader are persistent: they would
            keep their generators over the epochs.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner) -> None:
        loader = runner.train_dataloader
        if loader.num_workers and loader.persistent_workers:
            raise ValueError(
                "ReseedHook needs train_dataloader.persistent_workers=False"
            )
        key = (runner.seed, runner.epoch, get_rank())
        _seed(key)
        loader.worker_init_fn = _WorkerSeed(key)


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
