"""MMEngine's InstanceData on devices that it does not know, such as Apple's MPS."""

import functools
from typing import Any, get_args

from torch import Tensor


def index_instances_anywhere() -> None:
    """Lets instances be indexed by tensors of any device. Can be called repeatedly.

    InstanceData asserts that an index is of the CPU or of the one kind of GPU that it
    found when it was imported; MPS is none. From the CPU an index fits every tensor.
    """
    from mmengine.structures import InstanceData
    from mmengine.structures.instance_data import IndexType

    getitem = InstanceData.__getitem__
    if getattr(getitem, "anywhere", False):
        return

    @functools.wraps(getitem)
    def anywhere(self: InstanceData, item: Any) -> Any:
        if isinstance(item, Tensor) and not isinstance(item, get_args(IndexType)):
            item = item.cpu()
        return getitem(self, item)

    anywhere.anywhere = True
    InstanceData.__getitem__ = anywhere
