import re
from xml.etree import ElementTree

import numpy as np
import pytest
from mmengine.config import Config

from compressai_hm.evaluation.report.charts import draw_charts
from compressai_hm.evaluation.statistics.curves import MeasuredCurve


class Drawn:
    """What charts read of a sweep."""

    def __init__(self, work_dir, **cfg):
        codecs = [dict(name=name) for name in "abcdefghijk"]
        self.cfg, self.work_dir = Config(dict(codecs=codecs, **cfg)), work_dir


def curves():
    """Each of 11 codecs by two views; the last has no value at one point."""
    out = []
    for i, codec in enumerate("abcdefghijk"):
        for j, view in enumerate(("x_hat", "x_bar")):
            accuracy = [0.1 + i / 20, 0.2 + j / 10, np.nan if codec == "k" else 0.4]
            metrics = {"psnr": [20.0 + i, 30, 40], "mAP D": accuracy}
            bpp = [0.1, 0.2, 0.3]
            out.append(
                MeasuredCurve(codec, "s", view, [1, 2, 3], bpp, [9] * 3, metrics)
            )
    return out


@pytest.fixture
def charts(tmp_path):
    sweep = Drawn(tmp_path, published=dict(s="detection"), dial=True)
    return draw_charts(sweep, curves(), {"s": {"mAP D": 0.5}})


def test_every_point_says_its_numbers(charts):
    psnr, accuracy, dial = charts
    assert 'role="img" aria-label="a: 0.1000 bpp, 20 (quality 1)"' in psnr
    assert 'aria-label="c x_bar: 0.2000 bpp, 30 (quality 2)"' in psnr
    assert 'aria-label="method (published): 0.1610 bpp, 31.6"' in accuracy
    assert 'aria-label="b: 21.00 dB, 15, 0.1000 bpp"' in dial
    points = [chart.count('role="img"') for chart in charts]
    published = 26  # points of the paper's seven curves
    assert points == [66, 66 - 2 + published, 66 - 2]  # none for nan


def test_points_and_tips_are_in_the_same_order(charts):
    root = ElementTree.fromstring(charts[0])
    points = [e for e in root.iter() if e.get("role") == "img"]
    own = [e for e in points if e.get("aria-label").startswith("d: ")]
    x, y = ([float(e.get(axis)) for e in own] for axis in "xy")
    assert x == sorted(x) and y == sorted(y, reverse=True)  # y grows downwards
    assert [e.get("aria-label")[3:9] for e in own] == ["0.1000", "0.2000", "0.3000"]


def test_text_is_text_and_nothing_is_loaded(charts):
    for chart in charts:
        for words in ("s: ", "a</text>", "k x_bar</text>"):
            assert words in chart
    assert "uncompressed</text>" in charts[1] and "0.100 bpp</text>" in charts[2]
    for address in re.findall(r"https?://[^\s\"<]+", "".join(charts)):
        assert address.startswith("http://www.w3.org/")  # names of XML, not addresses
    assert not re.search("<image|<script|<\\?xml|DOCTYPE", "".join(charts))


def test_ids_are_not_shared_by_charts_of_a_page(charts):
    ids = [re.findall(r' id="([^"]+)"', chart) for chart in charts]
    together = [one for own in ids for one in own]
    assert len(together) == len(set(together))
    for chart, own in zip(charts, ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', chart)) <= set(own)


def test_codecs_and_views_differ_without_colour(charts):
    root = ElementTree.fromstring(charts[0])
    shapes = {e.get("id"): e.get("d") for e in root.iter() if e.get("d")}
    drawn = {}
    for e in root.iter():
        if e.get("role") == "img":
            (shape,) = (v for k, v in e.items() if k.endswith("href"))
            hollow = "fill: #ffffff" in e.get("style")
            drawn[e.get("aria-label").split(":")[0]] = shapes[shape[1:]], hollow
    assert len(set(drawn.values())) == len(drawn) == 22
    assert not any(drawn[codec][1] for codec in "abcdefghijk")
    assert all(drawn[f"{codec} x_bar"][1] for codec in "abcdefghijk")
    assert "stroke-dasharray" in charts[0]


def test_the_same_chart_is_the_same_file(charts, tmp_path):
    before = {p: p.read_bytes() for p in (tmp_path / "plots").iterdir()}
    assert {p.name for p in before} == {
        f"s_{name}.{suffix}"
        for name in ("psnr", "mAP_D", "dial_mAP_D")
        for suffix in ("png", "svg")
    }
    sweep = Drawn(tmp_path, published=dict(s="detection"), dial=True)
    draw_charts(sweep, curves(), {"s": {"mAP D": 0.5}})
    assert all(p.read_bytes() == data for p, data in before.items())
