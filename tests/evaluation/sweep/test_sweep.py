from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from compressai_hm.evaluation.sweep import Sweep
from compressai_hm.evaluation.sweep.sweep_codec import check_codec

from ..conftest import ROOT, finish

SHIPPED = sorted((ROOT / "mmdet_configs/sweeps").glob("*.py"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_find_what_they_inherit(path):
    cfg = Config.fromfile(path)
    assert cfg.anchor in [codec.name for codec in cfg.codecs]
    for own in cfg.sets:
        assert own.get("pictures") or own.dataset.ann_file
    for config in [codec.config for codec in cfg.codecs if "config" in codec]:
        assert (ROOT / config).is_file()


SMALL = "hm-mbt2018-mean"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(anchor="HM"), "anchor 'HM' is none of"),
        (dict(codecs=[dict(name="x", type="gif", qualities=[1])]), "'gif' is unknown"),
        (dict(codecs=[dict(name="x", type="jpeg")]), "'x' names no qualities"),
        (
            dict(codecs=[dict(name="x", checkpoints=["no.pth"])]),
            "no.pth does not exist",
        ),
        (dict(sets=[dict(name="x", pictures="nowhere")]), "nowhere is no folder"),
        (dict(sets=[dict(name="x"), dict(name="x")]), "sets must be a list"),
        (dict(sets=[dict(name="x", picture="y")]), "has no .'picture'"),
        (dict(sets=[dict(name="../x", pictures="y")]), "'../x' is no name"),
        (dict(codecs=[dict(name="x", type="hevc", qualities=[60])]), "0 to 51; got 60"),
        (
            dict(codecs=[dict(name="x", type="jpeg", qualities=[1], refine=5)]),
            "refine=5, config=None; for an HM codec",
        ),
        (
            dict(
                codecs=[
                    dict(
                        name="x",
                        type="hm-compact",
                        qualities=[1],
                        refine=5,
                        config=__file__,
                    )
                ]
            ),
            "config needs a quantization step of 1",
        ),
        (
            dict(codecs=[dict(name="x", type="jpeg", qualities=[9], steps=[1, 2])]),
            "steps need one checkpoint",
        ),
        (
            dict(codecs=[dict(name="x", type=SMALL, qualities=[1, 2], steps=[1, 2])]),
            "steps need one checkpoint, or one quality",
        ),
        (
            dict(codecs=[dict(name="x", type=SMALL, qualities=[1], steps=[1, 1])]),
            "names a step twice",
        ),
        (
            dict(codecs=[dict(name="x", type=SMALL, qualities=[1], steps=[40])]),
            "from 0.125 to 16, got 40",
        ),
        (
            dict(codecs=[dict(name="x", type=SMALL, qualities=[9], steps=[1])]),
            "there is no quality 9",
        ),
        (
            dict(
                codecs=[dict(name="x", type="jpeg", qualities=[9], detector_regions={})]
            ),
            "detector_regions need an HM codec",
        ),
        (
            dict(
                codecs=[dict(name="x", type=SMALL, qualities=[1], detector_regions={})]
            ),
            "'x': .*missing .*'detectors'",
        ),
    ],
)
def test_wrong_configs_are_explained(cfg, tmp_path, change, named):
    cfg.update(change)
    if "codecs" in change:
        cfg.anchor = "x"
    with pytest.raises(ValueError, match=named):
        Sweep(cfg, tmp_path)


def test_what_changed_is_measured_again_and_nothing_else(cfg, tmp_path):
    cfg.codecs = cfg.codecs[:1]
    finish(cfg, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "points").rglob("*.json")}
    coded = set((tmp_path / "streams").rglob("*.png-*"))

    cfg.codecs[0].qualities = [10, 20, 30, 60]  # one more
    picture = Path(cfg.sets[1].pictures) / "odd.png"
    Image.open(picture).rotate(180).save(picture)  # another of the same name
    assert len(list(Sweep(cfg, tmp_path).finished())) == 4
    finish(cfg, tmp_path)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "points").rglob("*.json")}
    kept = {p for p in before if after[p] == before[p]}
    assert {p.stem for p in kept} == {"drawn"} and len(kept) == 4
    # The new picture has files of its own; the other's were used again.
    new = {p.name[:5] for p in set((tmp_path / "streams").rglob("*.png-*")) - coded}
    assert "odd.p" in new

    cfg.codecs[0].type = "webp"
    assert len(list(Sweep(cfg, tmp_path).finished())) == 1  # the uncompressed


def test_a_reader_draws_no_map_for_hevc():
    detector = dict(
        config=str(ROOT / "mmdet_configs/person/rtmdet_latent.py"),
        checkpoint="compressai_hm://hm-compact.people.pth",
        reader="compressai_hm://hm-compact.people.reader",
    )
    regions = dict(detectors=[detector])
    entry = dict(name="x", qualities=[30], detector_regions=regions)
    with pytest.raises(ValueError, match="'x': .* a reader needs an HM codec's latent"):
        check_codec(dict(entry, type="hevc"))
    assert check_codec(dict(entry, type="hm-compact", qualities=[2])) == [2]
