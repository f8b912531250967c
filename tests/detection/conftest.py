import pytest

from compressai_hm.detection.datasets import drawn


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory):
    """A drawn COCO set of 8 training and 4 validation pictures."""
    root = tmp_path_factory.mktemp("data") / "drawn_set"
    drawn.make_coco(root, num_train=8, num_val=4, seed=0)
    return root
