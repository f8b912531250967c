"""Streams written once, and decoded for ever.

A change here means that files of users no longer decode: it needs a new format version,
golden streams of its own, and a reader that still takes the old ones.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.entropy_models.entropy_models import EntropyModel

from compressai_hm import Bitstream, decode
from compressai_hm.bitstream.coding import pack
from compressai_hm.entropy import QuantSteps
from compressai_hm.entropy.coding_tables import entropy_models, table_buffers

from ..families import NAMES, drawn_latents, families, portable

GOLDEN = Path(__file__).parent / "golden"
SIZE = (100, 170)


def golden_codec(name):
    """Weights from integers; tables, which floating point makes, from the file."""
    net = portable(name)
    stored = np.load(GOLDEN / "tables.npz")
    for module in net.modules():
        if isinstance(module, EntropyModel):
            kind = type(module).__name__
            for buffer in [b for b in module._buffers if f"{kind}/{b}" in stored]:
                module._buffers[buffer] = torch.from_numpy(stored[f"{kind}/{buffer}"])
    return type(net).from_state_dict(net.state_dict()).eval()


def digest(y_hat):
    return hashlib.sha256(y_hat.mul(2**14).long().numpy().tobytes()).hexdigest()


def golden_steps():
    """A step of 1, one step everywhere, and a map; by what ends the file's name."""
    offsets = np.zeros((8, 12), dtype=np.int8)
    offsets[2:5, 3:8], offsets[6:, 10:] = -4, 3
    return {
        "": QuantSteps(),
        ".step": QuantSteps(150),
        ".map": QuantSteps(170, offsets),
    }


kinds = pytest.mark.parametrize("kind", golden_steps())


@kinds
@families
def test_golden_streams_decode_and_are_written_again(name, kind):
    net, data = golden_codec(name), (GOLDEN / f"{name}{kind}.hmc").read_bytes()
    stream, steps = Bitstream.read(data), golden_steps()[kind]
    assert (stream.model, stream.size, stream.quality) == (name, SIZE, 0)
    assert stream.steps() == steps
    views = decode(net, data)  # compares the symbols with the file's check
    assert {v.shape for v in views.values()} == {(1, 3, *SIZE)}
    y_hat, _ = net.latent_coder().decode([stream.y], [stream.z], (2, 3), [steps])
    digests = json.loads((GOLDEN / "y_hat.json").read_text())
    assert digest(y_hat) == digests[name + kind]
    coded = net.latent_coder().encode(*drawn_latents(net, 2, 3), [steps])
    assert pack(net, coded, SIZE) == data


FINGERPRINTS = {
    "hm-bmshj2018-hyperprior": "52826c",
    "hm-cheng2020-anchor": "7dfd2f",
    "hm-cheng2020-anchor-checkerboard": "72ae08",
    "hm-cheng2020-attn": "86ac7b",
    "hm-compact": "b90285",
    "hm-elic2022": "fab883",
    "hm-mbt2018": "7874ba",
    "hm-mbt2018-mean": "7e03ae",
}
"""Files hold them: no change of code, nor of a name in it, may change one."""


@families
def test_fingerprints_are_frozen(name):
    assert golden_codec(name).latent_coder().fingerprint().hex() == FINGERPRINTS[name]


def write_tables():
    """What made tables.npz; never run again."""
    tables = {}
    for net in (portable("hm-mbt2018"), portable("hm-compact")):
        net.update(force=True)
        for module in entropy_models(net).values():
            for key in table_buffers(module):
                own = f"{type(module).__name__}/{key}"
                tables.setdefault(own, module._buffers[key].numpy())
    np.savez_compressed(GOLDEN / "tables.npz", **tables)


def write():
    """What made the files. Those that are there stay for ever."""
    path = GOLDEN / "y_hat.json"
    digests = json.loads(path.read_text()) if path.exists() else {}
    for name in NAMES:
        for kind, steps in golden_steps().items():
            if name + kind in digests:
                continue
            net = golden_codec(name)
            coded = net.latent_coder().encode(*drawn_latents(net, 2, 3), [steps])
            data = pack(net, coded, SIZE)
            (GOLDEN / f"{name}{kind}.hmc").write_bytes(data)
            y_hat, _ = net.latent_coder().decode(*coded.strings, (2, 3), [steps])
            digests[name + kind] = digest(y_hat)
    path.write_text(json.dumps(digests, indent=1) + "\n")


if __name__ == "__main__":
    write()
