import re
import shutil
import subprocess

import pytest

from compressai_hm.evaluation import report

from ..conftest import finish


def test_the_report_shows_every_number(cfg, tmp_path):
    cfg.dial = True
    page = report.write(*finish(cfg, tmp_path / "w"), command=["tool.py", "a b"])
    text = page.read_text()
    assert "BODY" not in text and "python tool.py &#x27;a b&#x27;" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)  # needs nothing else
    assert text.count('role="img"') > 20
    plots = {p.name for p in (tmp_path / "w/plots").iterdir()}
    assert {"people_psnr.png", "people_psnr.svg"} <= plots
    assert "drawn_dial_mAP_Faster_R-CNN_R18.png" in plots


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the browser chromium")
def test_the_report_runs_in_a_browser_without_errors(cfg, tmp_path):
    page = report.write(*finish(cfg, tmp_path / "w"), command=["tool.py"])
    dom = in_browser(page, tmp_path)
    assert '<div id="tip"' in dom


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the browser chromium")
def test_a_point_shows_its_numbers(cfg, tmp_path):
    page = report.write(*finish(cfg, tmp_path / "w"), command=["tool.py"])
    pointed = page.read_text().replace("</script>", POINT + "</script>")
    page.write_text(pointed)
    (tip,) = re.findall(
        '<div id="tip" style="display: block;[^>]*>([^<]*)', in_browser(page, tmp_path)
    )
    assert re.fullmatch(r"JPEG: \d\.\d{4} bpp, [\d.]+ \(quality 10\)", tip)


POINT = """
const point = document.querySelector("use[aria-label^=JPEG]");
point.dispatchEvent(new MouseEvent("mousemove", { clientX: 9, clientY: 9 }));
"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the browser chromium")
def test_a_phone_shows_charts_whole(cfg, tmp_path):
    report.write(*finish(cfg, tmp_path / "w"), command=["tool.py"])
    (tmp_path / "w/phone.html").write_text(PHONE)
    (found,) = re.findall(
        "<pre>(.*)</pre>", in_browser(tmp_path / "w/phone.html", tmp_path)
    )
    width, *charts = map(float, found.split())
    assert width <= 390 and len(charts) == 4  # nothing is wider than the screen
    assert 300 < min(charts) <= max(charts) <= 390


PHONE = """<iframe src="report.html" width="390" height="800" style="border: 0"
onload="const page = this.contentDocument;
const charts = [...page.querySelectorAll('svg')];
const right = charts.map((chart) => chart.getBoundingClientRect().right);
const all = [page.documentElement.scrollWidth, ...right].join(' ');
document.body.insertAdjacentHTML('beforeend', `<pre>${all}</pre>`)"></iframe>"""


def in_browser(page, folder):
    """A page's content after it has run; an error of its scripts fails the test."""
    options = "--headless --no-sandbox --disable-gpu --enable-logging=stderr --v=0"
    browser = subprocess.run(
        ["chromium", *options.split(), f"--user-data-dir={folder}/profile",
         "--allow-file-access-from-files", "--virtual-time-budget=2000", "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in browser.stderr
    return browser.stdout
