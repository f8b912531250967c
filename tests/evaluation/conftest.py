"""A sweep that runs in seconds."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from compressai_hm.detection.datasets import drawn
from compressai_hm.evaluation import result_files as export
from compressai_hm.evaluation.statistics.comparisons import compare
from compressai_hm.evaluation.statistics.curves import measure
from compressai_hm.evaluation.sweep import Sweep, run

from ..detection.conftest import drawn_set  # noqa: F401

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "mmdet_configs/sweeps/demo.py"


@pytest.fixture
def cfg(drawn_set, tmp_path):  # noqa: F811
    """The demo's sweep on four pictures, and two of odd size for people."""
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("odd.png", (171, 165)), ("small.png", (31, 17))):
        smooth = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize(size, Image.BICUBIC).save(folder / name)
    cfg = Config.fromfile(DEMO)
    dataset = cfg.sets[0].dataset
    classes = tuple(drawn.CATEGORIES.values())
    dataset.update(
        type="CheckedCocoDataset",
        data_root=str(drawn_set),
        metainfo=dict(classes=classes),
    )
    cfg.codecs[0].qualities = [10, 30, 60]
    cfg.codecs[1].qualities = [5, 50]
    del cfg.codecs[2]["steps"]
    cfg.codecs[2].checkpoints = [str(ROOT / "compressai_hm/zoo/weights/demo_codec.pth")]
    cfg.sets = [*cfg.sets, dict(name="people", pictures=str(folder))]
    return cfg


def finish(cfg, work_dir, **kwargs):
    """A sweep's way through all rooms but the report."""
    one = Sweep(cfg, work_dir)
    run(one, **kwargs)
    curves, reference = measure(one, 20)
    comparisons = compare(curves, cfg.anchor)
    export.write(one, curves, comparisons, reference)
    return one, curves, comparisons, reference


def same_files(one, other):
    """That two work folders hold the same JSON, seconds apart."""
    paths = {p.relative_to(one) for p in one.rglob("*.json") if "times" not in p.parts}
    assert paths
    for path in paths:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path
