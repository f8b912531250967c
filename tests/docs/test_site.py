"""Links of the Markdown files, and the site that is made of them."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".", "docs", "docs/*", "results", "tools/pictures")
PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (*FOLDERS, "compressai_hm/zoo/weights")
    for page in ROOT.glob(f"{folder}/*.md")
)
LINK = re.compile(r'(?:\]\(|(?:src|href)=")(?![a-z]+:|#)([^)\s"#=]+)(?=[)"#])')
LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]+src="?(?:https?:)?//[^ >]+'
    r'|<link[^>]+rel="?(?:stylesheet|preconnect|preload|icon)[^>]+href="?(?:https?:)?//'
    r"|(?:@import|url\()[^)]{0,8}(?:https?:)?//"
)


def test_links_lead_somewhere():
    assert {"README.md", "docs/index.md", "results/README.md"} <= set(map(str, PAGES))
    lost = [
        f"{page}: {target}"
        for page in PAGES
        for target in LINK.findall((ROOT / page).read_text(encoding="utf-8"))
        if not (ROOT / page.parent / target).exists()
    ]
    assert not lost


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("needs pip install -e .[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", folder],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_is_loaded_from_another_host(site):
    read = [p for p in site.rglob("*") if p.suffix in (".html", ".css")]
    assert site / "index.html" in read
    found = {p: LOADED.findall(p.read_text(encoding="utf-8")) for p in read}
    assert not {p: links for p, links in found.items() if links}


def test_no_link_or_role_is_left_over(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert ".md" not in re.findall(r'href="(?!https?:)[^"]*(\.md)"', text), page
        assert not re.search(r":(class|func|meth|mod|attr|data):", text), page
