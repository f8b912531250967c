"""Whole runs, through MMEngine's Runner and the command-line tools."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import _launch
import mmdet
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.hooks import Hook
from mmengine.runner import Runner

from compressai_hm import HMMeanScaleHyperprior

from . import tiny

MMDET_TOOLS = Path(mmdet.__file__).parent / ".mim/tools"
STEPS = dict(low=0.5, high=2.0, regions=0.5)


def train(cfg) -> dict:
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def checkpoint(work_dir, name="epoch_2.pth") -> dict:
    return torch.load(Path(work_dir) / name, weights_only=False)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def tool(script, *args, timeout=300, **kwargs):
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        **kwargs,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def metric(log, name) -> float:
    line = [line for line in log.splitlines() if f"{name}: " in line][-1]
    return float(line.split(f"{name}: ")[1].split()[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_set):
    """Two epochs in one go: the config's file, and its work folder."""
    work_dir = tmp_path_factory.mktemp("trained")
    cfg = tiny.config(work_dir, drawn_set)
    cfg.custom_hooks.append(dict(type="EMAHook", momentum=0.5))
    cfg.model.steps = STEPS
    cfg.dump(work_dir / "tiny.py")
    train(cfg)
    return work_dir


def test_a_run_leaves_what_it_should(trained, drawn_set):
    names = {p.name for p in trained.iterdir()}
    assert {"epoch_1.pth", "epoch_2.pth", "codec.pth.tar", "views"} <= names
    assert not [n for n in names if n.startswith(".")]
    pictures = [p.name for p in (trained / "views").iterdir()]
    assert sorted(pictures) == [f"epoch_2_{i:012d}.png" for i in range(1, 5)]
    saved = checkpoint(trained)["state_dict"]
    assert not any("cdf" in key for key in saved)


def test_the_exported_codec_is_the_averaged_one(trained):
    exported = torch.load(trained / "codec.pth.tar", weights_only=True)["state_dict"]
    saved = checkpoint(trained)  # EMAHook puts its weights under state_dict
    for key, value in saved["state_dict"].items():
        if key.startswith("codec."):
            assert torch.equal(exported[key[6:]], value)
    raw = saved["ema_state_dict"]["module.codec.g_a.0.weight"]
    assert not torch.equal(exported["g_a.0.weight"], raw)
    net = HMMeanScaleHyperprior.from_state_dict(exported).eval()
    net.update = None  # the tables came along
    assert net.compress(torch.rand(1, 3, 64, 64))["strings"][0][0]


@pytest.mark.parametrize("changes", [{}, {"model.steps": STEPS}])
def test_resumed_training_is_bit_identical(tmp_path, drawn_set, changes):
    train(tiny.config(tmp_path / "straight", drawn_set, **changes))
    stopped = Runner.from_cfg(tiny.config(tmp_path / "resumed", drawn_set, **changes))
    stopped.register_hook(StopInSecondEpoch(), "LOWEST")
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    train(tiny.config(tmp_path / "resumed", drawn_set, resume=True, **changes))
    a, b = (checkpoint(tmp_path / d) for d in ("straight", "resumed"))
    assert_same(a["state_dict"], b["state_dict"])
    for i, state in a["optimizer"]["state"].items():
        assert_same(state, b["optimizer"]["state"][i])


class StopInSecondEpoch(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == 1:
            raise KeyboardInterrupt


def test_a_kill_loses_at_most_the_current_epoch(tmp_path, drawn_set):
    cfg = tiny.config(tmp_path, drawn_set)
    cfg.train_cfg.max_epochs = 500
    cfg.dump(tmp_path / "cfg.py")
    process = subprocess.Popen(
        [sys.executable, tiny.ROOT / "tools/train.py", tmp_path / "cfg.py"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 280
    while _launch.latest_checkpoint(tmp_path) in (None, str(tmp_path / "epoch_1.pth")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max(int(p.stem[6:]) for p in tmp_path.glob("epoch_*.pth"))
    cfg.train_cfg.max_epochs = last + 1
    cfg.dump(tmp_path / "cfg.py")
    (tmp_path / "last_checkpoint").write_text("")  # the kill may leave it so
    log = tool(tiny.ROOT / "tools/train.py", tmp_path / "cfg.py", "--resume")
    assert f"resumed epoch: {last}" in log
    assert (tmp_path / f"epoch_{last + 1}.pth").exists()


def test_mmdetections_own_train_tool_runs_the_config(trained, tmp_path):
    tool(MMDET_TOOLS / "train.py", trained / "tiny.py", "--work-dir", tmp_path,
         "--cfg-options", "train_cfg.max_epochs=1")  # fmt: skip
    assert (tmp_path / "epoch_1.pth").exists()


def test_two_processes_train_and_test_as_one(trained, tmp_path):
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = tiny.ROOT / "tools"
    tool(*run, script / "train.py", trained / "tiny.py", "--launcher",
         "pytorch", "--work-dir", tmp_path)  # fmt: skip
    assert (tmp_path / "epoch_2.pth").exists()
    two = tool(*run, script / "test.py", trained / "tiny.py",
               tmp_path / "epoch_2.pth", "--launcher", "pytorch", "--work-dir",
               tmp_path)  # fmt: skip
    one = tool(script / "test.py", trained / "tiny.py", tmp_path / "epoch_2.pth",
               "--work-dir", tmp_path)  # fmt: skip
    for name in ("coco/bbox_mAP", "codec/bpp", "codec/psnr_x_hat", "codec/psnr_x_bar"):
        assert metric(two, name) == metric(one, name)
    start = tool(*run, script / "test.py", trained / "tiny.py", "--launcher",
                 "pytorch", "--work-dir", tmp_path)  # fmt: skip
    assert metric(start, "codec/bpp") > 0


def test_a_tool_leaves_its_process_group(tmp_path, drawn_set):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    _launch.build_runner(tiny.config(tmp_path, drawn_set)).test()
    assert not torch.distributed.is_initialized()


def test_two_processes_on_a_cpu_wait_for_no_unused_parameter(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: None)
    args = _launch.parser("").parse_args(
        [str(tiny.CONFIGS / "hm_faster_rcnn_demo.py"), "--launcher", "pytorch"]
        + ["--cfg-options", "find_unused_parameters=True"]
    )
    assert _launch.load_config(args).model_wrapper_cfg.find_unused_parameters


@pytest.mark.parametrize("gpus, processes", [(1, 2), (2, 3)])
def test_more_processes_than_gpus_are_told(gpus, processes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    with pytest.raises(ValueError, match=f"{processes} processes and {gpus} GPU"):
        _launch._check_launcher("pytorch")
    for enough in (0, processes):
        monkeypatch.setattr(torch.cuda, "device_count", lambda n=enough: n)
        _launch._check_launcher("pytorch")


def test_show_dir_and_out(trained, tmp_path):
    tool(tiny.ROOT / "tools/test.py", trained / "tiny.py", trained / "epoch_2.pth",
         "--work-dir", tmp_path, "--show-dir", tmp_path / "shown", "--out",
         tmp_path / "out.pkl")  # fmt: skip
    assert len(list((tmp_path / "shown").glob("*.png"))) == 4
    assert (tmp_path / "out.pkl").stat().st_size


def test_inference_apis_work_on_a_checkpoint(trained, drawn_set):
    model = init_detector(
        str(trained / "tiny.py"), str(trained / "epoch_2.pth"), device="cpu"
    )
    path = next((drawn_set / "val2017").iterdir())
    result = inference_detector(model, str(path))
    assert result.bits > 0 and "pred_instances" in result
    assert result.x_bar.dtype == torch.uint8


def test_without_coco_the_demo_runs_and_says_so(tmp_path):
    log = tool(
        tiny.ROOT / "tools/train.py", tiny.CONFIGS / "hm_faster_rcnn.py",
        "--cfg-options", "train_cfg.max_epochs=1", "train_dataloader.batch_size=2",
        "train_dataloader.dataset.num_train=4", "train_dataloader.dataset.num_val=2",
        "val_dataloader.dataset.num_train=4", "val_dataloader.dataset.num_val=2",
        cwd=tmp_path,
    )  # fmt: skip
    lines = log.splitlines()
    start = next(i for i, x in enumerate(lines) if x.startswith("COCO 2017 was not"))
    first, second, third = lines[start : start + 3]
    assert "data/coco/annotations/instances_train2017.json" in first
    assert "MMDET_DATASETS" in second
    assert "hm_faster_rcnn_demo.py" in third
    assert (tmp_path / "work_dirs/hm_faster_rcnn_demo/epoch_1.pth").exists()
