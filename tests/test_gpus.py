"""Tests find the same with no GPU, with one and with several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
WITH_ONE = "tests/entropy/test_latent_coder.py"


def collected(*options):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", WITH_ONE, *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return {line.split("[")[0].split("::")[-1] for line in done.stdout.splitlines()}


def test_gpus_are_asked_for():
    test = "test_a_gpu_decodes_what_a_cpu_coded"
    asked = collected("--gpu")
    assert test in asked and len({n for n in asked if n.startswith("test_")}) == 1
    assert {test, "test_measure_is_what_coding_gives"} <= collected()


def test_no_test_sees_a_gpu(pytestconfig):
    if pytestconfig.getoption("--gpu"):
        pytest.skip("this run asks for GPUs")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # also of processes
    assert not torch.cuda.is_available()
