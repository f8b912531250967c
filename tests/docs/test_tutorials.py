"""The tutorials, typed as they stand, in a folder that looks like a clone.

A titled block is a file, ``bash`` and ``python`` are run, and ``text`` is what the
block before it printed, its numbers apart. A block of no language is a fragment.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
BLOCK = re.compile(r'^```(\w*)(?: title="(.+?)")?\n(.*?)^```$', re.M | re.S)
COMMANDS = {
    "hm-codec": "codec",
    "hm-train": "train",
    "hm-test": "test",
    "hm-sweep": "rate_accuracy",
}


@pytest.fixture
def clone(tmp_path):
    for name in ("mmdet_configs", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    scripts = {name: f" {ROOT}/tools/{tool}.py" for name, tool in COMMANDS.items()}
    for name, script in {"python": "", **scripts}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable}{script} "$@"\n')
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}


def masked(text):
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [re.sub(r"[-+]?\d+(\.\d+)?", "#", line) for line in lines]


def run(language, text, folder, env):
    shell = ["bash", "-euo", "pipefail", "-c"]
    command = [*(shell if language == "bash" else [sys.executable, "-c"]), text]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=env, timeout=600
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_it_says_works(page, clone, environment):
    printed = None
    for language, title, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if title:
            (clone / title).write_text(text, encoding="utf-8")
        elif language == "text":
            rest = iter(masked(printed))
            for line in masked(text):
                assert line == "..." or line in rest, f"{line!r} in:\n{printed}"
        elif language:
            assert language in ("bash", "python"), text
            printed = run(language, text, clone, environment)


def test_every_block_is_seen():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(BLOCK.findall(text)) == text.count("```") / 2 > 0, page
