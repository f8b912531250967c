"""A GPU for machines without one: tensors that say cuda:0 and compute on the CPU.

It raises where a GPU would, on tensors of two devices in one operation and on
``numpy()``, and counts what a GPU is slow at. It has no streams, and no memory of its
own.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only

from compressai_hm.entropy import devices, places

DEVICE = torch.device("cuda", 0)

VIEWS = {
    "alias", "as_strided", "detach", "diagonal", "empty", "empty_strided", "expand",
    "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t",
    "transpose", "unbind", "unsqueeze", "view", "_local_scalar_dense",
    "_reshape_alias", "_unsafe_view",
}  # fmt: skip
"""Operations that start nothing."""

WAITS = {"_local_scalar_dense", "bincount", "equal", "masked_select", "nonzero"}
"""Operations whose result the host must know, or its size."""


class _OnDevice(Tensor):
    """A tensor of the device; ``on_cpu`` is the CPU's that stands for it."""

    @staticmethod
    def __new__(cls, host: Tensor):
        own = Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=DEVICE,
        )
        own.on_cpu = host
        return own

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> list:
        """Of subclasses torch's own gives none."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} after the simulated device was left")


class SimulatedDevice(TorchDispatchMode):
    """The device, while it is entered; see :func:`simulated_device`.

    Args:
        float64: Whether it has that; Apple's have not.

    Attributes:
        launches: Operations so far that start a kernel.
        waits: Transfers, and other operations for which the host waits.
    """

    def __init__(self, float64: bool = True):
        super().__init__()
        self.float64, self.launches, self.waits = float64, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        tensors = []
        tree_map_only(Tensor, tensors.append, (args, kwargs))
        ours = [isinstance(x, _OnDevice) for x in tensors]
        to_ours = any(ours)
        if kwargs.get("device") is not None:
            to_ours = torch.device(kwargs["device"]).type == DEVICE.type
            kwargs["device"] = torch.device("cpu")
        if not to_ours and not any(ours):
            return func(*args, **kwargs)
        self._count(name, tensors, ours, to_ours)
        inner = tree_map(lambda x: getattr(x, "on_cpu", x), (args, kwargs))
        out = func(*inner[0], **inner[1])
        if out is getattr(args[0] if args else None, "on_cpu", self):
            return args[0]  # it wrote in place
        if not to_ours:  # never the device's own memory
            return tree_map_only(Tensor, Tensor.clone, out)
        return tree_map_only(Tensor, self._own, out)

    def _count(
        self, name: str, tensors: list[Tensor], ours: list[bool], to_ours: bool
    ) -> None:
        moves = name == "_to_copy" and to_ours != ours[0]
        moves |= name == "copy_" and ours[0] != ours[1]
        mixed = [x for x, own in zip(tensors, ours, strict=True) if not own and x.ndim]
        if any(ours) and mixed and not moves:
            raise RuntimeError(f"{name}: tensors on {DEVICE} and on the CPU")
        indices = tensors[1:] if name.startswith("index") else []
        by_mask = any(x.dtype is torch.bool for x in indices if x is not tensors[-1])
        self.waits += moves or name in WAITS or by_mask
        self.launches += not moves and name not in VIEWS

    def _own(self, x: Tensor) -> Tensor:
        if isinstance(x, _OnDevice):
            return x
        if x.dtype is torch.float64 and not self.float64:
            raise TypeError(f"{DEVICE} has no float64")
        return _OnDevice(x)


@contextlib.contextmanager
def simulated_device(float64: bool = True) -> Iterator[SimulatedDevice]:
    """A device for the length of a ``with``.

    Args:
        float64: See :class:`SimulatedDevice`.
    """
    torch._C._ensureCUDADeviceGuardSet()
    start, torch.cuda._lazy_init = torch.cuda._lazy_init, lambda: None
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, torch.cuda, "_lazy_init", start)
        for cached in (places._places, devices.has_float64, devices.check_products):
            stack.callback(cached.cache_clear)  # of a device that is no more
        # torch.tensor would ask the driver, and modules keep the kind of their tensors.
        for switch in (
            torch._C._set_only_lift_cpu_tensors,
            torch.__future__.set_overwrite_module_params_on_conversion,
        ):
            stack.callback(switch, False)
            switch(True)
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield stack.enter_context(SimulatedDevice(float64))
