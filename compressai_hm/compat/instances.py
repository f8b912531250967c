"""Indexing of MMEngine's InstanceData on devices that MMEngine does not know (MPS)."""

import functools
from typing import Any, get_args

from torch import Tensor


def index_instances_anywhere() -> None:
    """Lets instances be indexed by tensors of any device. Can be called repeatedly.

    InstanceData asserts that an index lies on the CPU or on the one kind of GPU that
    was found when MMEngine was imported, and Apple's MPS is not among these kinds. An
    index from another device is moved to the CPU, from where it fits every tensor.
    """
    from mmengine.structures import InstanceData
    from mmengine.structures.instance_data import IndexType

    getitem = InstanceData.__getitem__
    if getattr(getitem, "anywhere", False):
        return

    @functools.wraps(getitem)
    def index(self: InstanceData, item: Any) -> Any:
        if isinstance(item, Tensor) and not isinstance(item, get_args(IndexType)):
            item = item.cpu()
        return getitem(self, item)

    index.anywhere = True
    InstanceData.__getitem__ = index
