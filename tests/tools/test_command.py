"""What all tools share, as it is typed."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(p.stem for p in (ROOT / "tools").glob("[a-z]*.py"))
SWEEP = "mmdet_configs/sweeps/demo.py"
DEMO = "mmdet_configs/hm_faster_rcnn_demo.py"
WEIGHTS = "compressai_hm/zoo/weights"
COMMAND = runpy.run_path(str(ROOT / "tools/_command.py"))


def tool(name, *args, env=(), **kwargs):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **dict(env)}
    env.pop("PYTHONWARNINGS", None)
    return subprocess.run(
        [sys.executable, ROOT / f"tools/{name}.py", *map(str, args)],
        capture_output=True, text=True, timeout=120, env=env, cwd=ROOT, **kwargs,
    )  # fmt: skip


def small(folder):
    """The demo's data, drawn in no time, in a run of its own."""
    yield f"experiment_name={folder.name}"
    for split in ("val", "test"):
        truth = f"{folder}/set/annotations/instances_val2017.json"
        yield f"{split}_evaluator.0.ann_file={truth}"
    for split in ("train", "val", "test"):
        for setting in (f"data_root={folder}/set", "num_train=8", "num_val=2"):
            yield f"{split}_dataloader.dataset.{setting}"


@pytest.fixture
def in_process(monkeypatch, capfd):
    """Runs a tool as its last lines do: a process of its own takes seconds."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RANK", raising=False)

    def run(name, *args):
        path = str(ROOT / f"tools/{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            COMMAND["run"](runpy.run_path(path)["main"])
        return stop.value.code, *capfd.readouterr()

    return run


def test_the_first_that_is_seen_is_the_tools_own():
    done = tool("rate_accuracy", "--help")  # which imports everything
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_can_show_the_trace(name, in_process):
    code, out, err = in_process(name, "--help")
    assert not code and not err
    assert out.startswith("usage: ") and "--debug" in out


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("train", ["none.py"], "none.py does not exist"),
        ("train", ["README.md"], "config README.md: "),
        ("train", ["mmdet_configs/sweeps/demo.py"], "'model' is missing"),
        ("train", [DEMO, "--cfg-options", "model.codec.N=32"], "starting weights"),
        ("train", [DEMO, "--cfg-options", "default_hooks.a=None"], "hook is not None"),
        ("train", [DEMO, "--resume", f"{WEIGHTS}/demo_codec.pth"], "nothing to go on"),
        ("train", [DEMO, "--cfg-options", "a"], "takes key=value, got 'a'"),
        ("train", [DEMO, "--cfg-options", "a=[1"], "unbalanced brackets in 'a=[1'"),
        ("train", [DEMO, "--cfg-options", "modle.lambda_human=1"], "mean model?"),
        ("train", [DEMO, "--cfg-options", "model.lambda_humen=1"], "lambda_humen"),
        ("train", [DEMO, "--cfg-options", "model.codec.type=foo"], "'foo' is unknown"),
        ("train", [DEMO, "--cfg-options", "optim_wrapper.type=Foo"], "Foo is not in"),
        ("train", [DEMO, "--cfg-options", "train_cfg.max_epoch=1"], "max_epoch"),
        ("train", [DEMO, "--launcher", "pytorch"], "torch.distributed.run"),
        ("train", ["mmdet_configs/person/rtmdet_mobilenetv2.py"], "whole_train.json"),
        ("test", [DEMO, "none.pth"], "none.pth"),
        ("test", [DEMO, f"{WEIGHTS}/demo_detector.pth"], "of another model"),
        ("test", [DEMO, "README.md"], "README.md"),
        ("rate_accuracy", ["none.py"], "none.py does not exist"),
        ("rate_accuracy", ["mmdet_configs/sweeps/coco.py"], "val2017.json"),
        ("rate_accuracy", [SWEEP, "--device", "cuda:99"], "'cuda:99' cannot be used"),
        ("coco_subsets", ["none", "out"], "none/annotations"),
    ],
)
def test_a_user_error_is_one_line(name, args, told, tmp_path, in_process):
    if name != "coco_subsets":
        args = [*args, "--work-dir", tmp_path]
    if DEMO in args:
        args += ["--cfg-options", *small(tmp_path)]
    code, out, err = in_process(name, *args)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ") and told in line and len(line) < 600
    assert "Config:" not in out and len(out.splitlines()) < 80


def test_debug_shows_the_trace():
    done = tool("train", "none.py", "--debug")
    assert done.returncode == 2 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: none.py does not exist")


def test_a_missing_extra_is_named(tmp_path):
    stub = "raise ModuleNotFoundError(name='mmengine')"
    (tmp_path / "mmengine.py").write_text(stub)
    done = tool("train", DEMO, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    told = 'error: mmengine is missing: pip install "compressai-hm[openmmlab]"\n'
    assert done.returncode == 1 and done.stderr == told


def failing(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("a\n  b"), "error: a b"),
        (KeyError("model"), "error: 'model' is missing"),
        (FileNotFoundError(2, "No such file", "x.pth"), "error: x.pth: No such file"),
        (
            RuntimeError("In worker 0.\nOriginal Traceback\n  File\nOSError: broken\n"),
            "error: OSError: broken",
        ),
    ],
)
def test_what_is_said(error, told, capsys):
    if isinstance(error, KeyError):
        assert COMMAND["sentence"](error) == told.removeprefix("error: ")
        return
    with pytest.raises(SystemExit) as stop:
        COMMAND["run"](failing(error))
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(told)


def test_the_helpful_sentence_of_a_chain_is_said():
    try:
        try:
            raise ValueError("the reason")
        except ValueError as e:
            raise RuntimeError from e
    except RuntimeError as e:
        assert COMMAND["sentence"](e) == "the reason"


@pytest.mark.parametrize("error", [IndexError("i"), TypeError("t"), KeyError("k")])
def test_a_fault_of_the_program_keeps_its_trace(error):
    with pytest.raises(type(error)):
        COMMAND["run"](failing(error))


def test_ctrl_c_is_a_sentence():
    with pytest.raises(SystemExit) as stop:
        COMMAND["run"](failing(KeyboardInterrupt()), "stopped; goes on")
    assert stop.value.code == "stopped; goes on"


def test_threads_wait_politely_unless_told_otherwise():
    code = "import _command, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for given, found in (
        ({}, "2000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ):
        env = {k: v for k, v in os.environ.items() if k not in names}
        env.update(given, PYTHONPATH=str(ROOT / "tools"))
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=env
        )
        assert done.stdout.strip() == found


@pytest.mark.parametrize("path", ["demo.py", "sweeps/demo.py", SWEEP])
def test_a_sweep_is_found_by_its_name_and_by_its_path(path, tmp_path, monkeypatch):
    launch = runpy.run_path(str(ROOT / "tools/_launch.py"))
    monkeypatch.chdir(tmp_path)
    folder = "mmdet_configs" if path.startswith("sweeps") else launch["SWEEPS"]
    assert launch["find_config"](path, folder).samefile(ROOT / SWEEP)
    own = tmp_path / path
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("a = 1")
    assert launch["find_config"](path, folder).samefile(own)


def test_each_tool_lists_its_own_configs(in_process):
    _, trainings, _ = in_process("train", "--list")
    _, sweeps, _ = in_process("rate_accuracy", "--list")
    assert "hm_compact.py" in trainings.split() and "sweeps/" not in trainings
    assert {"demo.py", "coco.py"} <= set(sweeps.split())


RECORDED = [path.parent.name for path in (ROOT / "results").glob("*/points.csv")]


@pytest.mark.parametrize("folder", RECORDED)
def test_recorded_results_are_drawn_anew(folder, tmp_path, monkeypatch):
    main = runpy.run_path(str(ROOT / "tools/rate_accuracy.py"))["main"]
    monkeypatch.chdir(ROOT)
    kept = ROOT / "results" / folder
    points = (kept / "points.csv").read_text(encoding="utf-8")
    (tmp_path / "points.csv").write_text(points, encoding="utf-8")
    command = ["rate_accuracy.py", f"{folder}.py", "--redraw", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    recorded = list((kept / "plots").iterdir())
    assert 1 <= len(recorded) <= 2
    for path in recorded:
        drawn, shown = (
            # Where lines are and what they are called; the rest is matplotlib's.
            re.findall(r"<text[^>]*>([^<]*)|stroke-dasharray: ([^;]+)", p.read_text())
            for p in (tmp_path / "plots" / path.name, path)
        )
        assert drawn == shown and len(drawn) > 20
    codec = points.splitlines()[1].split(",")[1]
    (tmp_path / "points.csv").write_text(points.replace(f",{codec},", ",x,"))
    with pytest.raises(ValueError, match="'x' is no codec of the config, which has"):
        main()
