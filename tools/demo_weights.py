"""Makes the demo's starting weights again: compressai_hm/zoo/weights/demo_*.pth.

Trains its detector on uncompressed pictures and its codec for humans alone, both on
2000 drawn pictures, and stores them as fp16. Unfinished training is resumed.
"""

import argparse
import io
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config

from compressai_hm.codecs import HM_MODELS
from compressai_hm.codecs.tables import TABLE_BUFFERS
from compressai_hm.detection import AtomicLocalBackend, launch

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for part in ("detector", "codec"):
        config = ROOT / f"mmdet_configs/demo/{part}.py"
        work_dir = Config.fromfile(config).work_dir
        train = [ROOT / "tools/train.py", config, "--resume"]
        subprocess.run([sys.executable, *map(str, train)], check=True)
        saved = torch.load(launch.latest_checkpoint(work_dir), weights_only=True)
        # Not the bounds: a likelihood's 1e-9 would become 0.
        weights = {
            key.removeprefix("codec."): value.half()
            if value.is_floating_point() and "bound" not in key
            else value
            for key, value in saved["state_dict"].items()
        }
        if part == "codec":  # with the tables that its streams are coded with
            net = HM_MODELS["hm-mbt2018-mean"].from_state_dict(weights)
            net.update(force=True)
            for key, value in net.state_dict().items():
                if key.split(".")[-1] in TABLE_BUFFERS:
                    weights[key] = value
        with io.BytesIO() as f:
            torch.save({"state_dict": weights}, f)
            target = ROOT / f"compressai_hm/zoo/weights/demo_{part}.pth"
            AtomicLocalBackend().put(f.getvalue(), target)
        print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
