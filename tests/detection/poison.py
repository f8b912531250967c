"""For configs of tests: weights of one rank become nan in the sixth iteration."""

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class PoisonHook(Hook):
    def __init__(self, rank: int = 0):
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model
        bias = (model.module if is_model_wrapper(model) else model).codec.g_s[-1].bias
        if get_rank() == self.rank and runner.iter >= 5:
            with torch.no_grad():
                bias.fill_(float("nan"))
