import re
from xml.etree import ElementTree

import numpy as np
import pytest
from mmengine.config import Config

from compressai_hm.evaluation.report.charts import draw_charts
from compressai_hm.evaluation.statistics.curves import MeasuredCurve

CODECS = "abcdefghijk"
CFG = Config(
    dict(
        codecs=[dict(name=name) for name in CODECS],
        dial=True,
    )
)


def curves():
    """Each of 11 codecs by two views; the last has no value at one point."""
    out = []
    for i, codec in enumerate(CODECS):
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
    return draw_charts(CFG, tmp_path / "plots", curves(), {"s": {"mAP D": 0.5}})


def test_every_point_says_its_numbers(charts):
    psnr, _, dial = charts
    assert 'role="img" aria-label="a: 0.1000 bpp, 20 (quality 1)"' in psnr
    assert 'aria-label="c x_bar: 0.2000 bpp, 30 (quality 2)"' in psnr
    assert 'aria-label="b: 21.00 dB, 15, 0.1000 bpp"' in dial
    points = [chart.count('role="img"') for chart in charts]
    assert points == [66, 66 - 2, 66 - 2]  # none for nan


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


def test_codecs_and_views_differ_without_color(charts):
    root = ElementTree.fromstring(charts[0])
    shapes = {e.get("id"): e.get("d") for e in root.iter() if e.get("d")}
    drawn = {}
    for e in root.iter():
        if e.get("role") == "img":
            (shape,) = (v for k, v in e.items() if k.endswith("href"))
            hollow = "fill: #ffffff" in e.get("style")
            drawn[e.get("aria-label").split(":")[0]] = shapes[shape[1:]], hollow
    assert len(set(drawn.values())) == len(drawn) == 22
    assert not any(drawn[codec][1] for codec in CODECS)
    assert all(drawn[f"{codec} x_bar"][1] for codec in CODECS)


def lines_of(chart):
    """What is drawn of each entry: its marker's shape, and its line's style."""
    root = ElementTree.fromstring(chart)
    shapes = {e.get("id"): e.get("d") for e in root.iter() if e.get("d")}
    drawn = {}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        points = [e for e in group.iter() if e.get("role") == "img"]
        line = group.find("{http://www.w3.org/2000/svg}path")
        if points and line is not None:
            (shape,) = (v for k, v in points[0].items() if k.endswith("href"))
            style = dict(s.split(": ") for s in line.get("style").split("; "))
            drawn[points[0].get("aria-label").split(":")[0]] = shapes[shape[1:]], style
    return drawn


def test_lines_differ_by_dash_and_views_by_width(charts):
    drawn = lines_of(charts[0])
    assert len(drawn) == 22
    dashes = {c: drawn[c][1].get("stroke-dasharray") for c in CODECS}
    for i in range(len(CODECS) - 6):
        assert len({dashes[c] for c in CODECS[i : i + 7]}) == 7
    for codec in CODECS:
        width, thin = (
            float(drawn[label][1].get("stroke-width", 1))
            for label in (codec, f"{codec} x_bar")
        )
        assert thin < 0.6 * width


def test_colors_differ_in_lightness_and_to_color_blind_people(charts):
    drawn = lines_of(charts[0])
    ten = [drawn[codec][1]["stroke"] for codec in CODECS[:10]]
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in ten])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = np.sort(lab(linear)[:, 0])
    assert np.diff(lightness).min() > 4 and lightness[-1] < 70  # white has 100
    assert np.diff(np.sort(lab(linear[:5])[:, 0])).min() > 9
    for seen in (np.eye(3), *COLOR_BLIND.values()):
        found = lab((linear @ np.array(seen).T).clip(0, 1))
        apart = np.linalg.norm(found[:, None] - found, axis=-1)
        assert apart[~np.eye(10, dtype=bool)].min() > 20


COLOR_BLIND = {  # in linear RGB, by Machado, Oliveira and Fernandes 2009
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(linear):
    """CIE L*a*b* of linear sRGB, under D65."""
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722],
              [0.0193, 0.1192, 0.9503]]  # fmt: skip
    xyz = linear @ np.array(to_xyz).T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_charts_fill_any_width_and_can_be_read_on_a_phone(charts):
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert not {"width", "height"} & set(root.attrib)
        width = float(root.get("viewBox").split()[2])
        style = " ".join(e.get("style", "") for e in root.iter() if e.text)
        sizes = [float(s) for s in re.findall(r"([\d.]+)px", style)]
        assert len(sizes) > 20
        assert 360 / width * min(sizes) >= 9  # CSS pixels, 15 beside each margin


def test_the_same_chart_is_the_same_file(charts, tmp_path):
    before = {p: p.read_bytes() for p in (tmp_path / "plots").iterdir()}
    assert {p.name for p in before} == {
        f"s_{name}.{suffix}"
        for name in ("psnr", "mAP_D", "dial_mAP_D")
        for suffix in ("png", "svg")
    }
    draw_charts(CFG, tmp_path / "plots", curves(), {"s": {"mAP D": 0.5}})
    assert all(p.read_bytes() == data for p, data in before.items())
