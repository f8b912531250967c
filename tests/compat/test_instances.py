import pytest
import torch
from mmengine.structures import InstanceData

import compressai_hm.detection  # noqa: F401
from compressai_hm.compat import index_instances_anywhere


class OnMPS(torch.Tensor):
    """Says that it is on a device that InstanceData does not know."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device="mps"
        )

    def __init__(self, inner):
        self.inner = inner

    def cpu(self):
        return self.inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} of an index of another device")


@pytest.mark.parametrize(
    "index", [torch.tensor([2, 0]), torch.tensor([True, False, True])], ids=["at", "if"]
)
def test_instances_are_indexed_from_any_device(index):
    index_instances_anywhere()  # again
    instances = InstanceData(
        scores=torch.tensor([0.1, 0.2, 0.3]), names=["a", "b", "c"]
    )
    found, expected = instances[OnMPS(index)], instances[index]
    assert torch.equal(found.scores, expected.scores) and len(found) == 2
    assert found.names == expected.names


def test_what_is_no_index_is_refused():
    with pytest.raises(AssertionError):
        InstanceData(scores=torch.zeros(2))[torch.tensor([0.5])]
