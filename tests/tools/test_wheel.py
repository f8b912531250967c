"""From a wheel, in an environment and a folder of its own."""

import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from .test_command import ROOT, TOOLS, small

DEMO = "compressai_hm://demo_codec.pth"


def run(*command, cwd=ROOT):
    env = {**os.environ}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=cwd, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # Of a copy: a build leaves folders beside what it reads.
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("compressai_hm", "mmdet_configs", "tools"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (folder / name).symlink_to(ROOT / name)
    pip = sys.executable, "-m", "pip"
    run(*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-q", cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """Runs a command of the installed wheel; all else is this environment's."""
    venv, away = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("away")
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    packages = run(
        venv / "bin/python", "-c", "import site; print(site.getsitepackages()[0])"
    )
    Path(packages.strip(), "base.pth").write_text("\n".join(site.getsitepackages()))
    pip = sys.executable, "-m", "pip", "--python", venv / "bin/python", "install"
    run(*pip, "--no-deps", "--ignore-installed", "-q", wheel)

    def called(name, *args):
        return run(venv / "bin" / name, *args, cwd=away)

    called.folder = away
    return called


def test_it_is_whole(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    assert not any("results" in name for name in held)
    for path in (ROOT / "mmdet_configs").rglob("*"):
        if path.suffix in (".py", ".json"):
            assert f"compressai_hm_tools/{path.relative_to(ROOT)}" in held
    assert {f"compressai_hm_tools/{name}.py" for name in TOOLS} <= held
    for path in (ROOT / "tools").glob("p*/*"):  # page and pictures
        assert f"compressai_hm_tools/{path.relative_to(ROOT / 'tools')}" in held
    for path in (ROOT / "compressai_hm").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in held


def test_its_commands_work_anywhere(command):
    Image.effect_noise((80, 70), 60).convert("RGB").save(command.folder / "x.png")
    command("hm-codec", "encode", "x.png", "--checkpoint", DEMO)
    command("hm-codec", "decode", "x.hmc", "--checkpoint", DEMO, "--out", "out")
    assert (command.folder / "out/x.human.png").exists()
    assert "hm_faster_rcnn.py" in command("hm-train", "--list").split()
    assert "demo.py" in command("hm-sweep", "--list").split()
    one = "train_cfg._delete_=True", "train_cfg.type=IterBasedTrainLoop"
    one = *one, "train_cfg.max_iters=1", "train_dataloader.batch_size=2"
    options = *one, *small(command.folder / "run")
    command("hm-train", "hm_faster_rcnn_demo.py", "--cfg-options", *options)
    assert (command.folder / "work_dirs/hm_faster_rcnn_demo/codec.pth.tar").exists()
