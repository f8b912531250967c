"""Hostile files: each is refused with BitstreamError, or decodes to what was encoded.

    python -m tests.bitstream.test_fuzz --files 10000

Half are damaged, half forged: their checksums are right, so they reach the decoder.
File number i of a seed is always the same one.
"""

import argparse
import collections
import dataclasses
import re
import resource
import struct
import sys
import time
import zlib

import numpy as np
import pytest
import torch
from tqdm import tqdm

from compressai_hm import Bitstream, BitstreamError, decode
from compressai_hm.bitstream.coding import pack
from compressai_hm.entropy.steps import FIRST, QuantSteps

from ..families import NAMES, drawn_latents, portable

pytestmark = pytest.mark.slow

LONGEST_S = 5
MOST_MIB = 1024


@dataclasses.dataclass
class Codec:
    """A codec, files of its own, and what they decode to."""

    net: torch.nn.Module
    files: list[bytes]
    views: list[torch.Tensor]

    @classmethod
    def make(cls, name: str) -> "Codec":
        net, files = portable(name), []
        for seed, (height, width) in enumerate(((1, 1), (2, 3), (3, 2), (1, 6))):
            latents = drawn_latents(net, height, width, 1, seed)
            shape = 4 * height, 4 * width
            rng = np.random.default_rng(seed)
            offsets = rng.integers(-2, 3, shape) * (rng.random(shape) < 0.1)
            for steps in (
                QuantSteps(),
                QuantSteps(150),
                QuantSteps(150, offsets.astype(np.int8)),
            ):
                coded = net.latent_coder().encode(*latents, [steps])
                size = 64 * height - 3, 64 * width
                files.append(pack(net, coded, size))
        return cls(net, files, [decode(net, f, ("human",))["x_hat"] for f in files])


def damaged(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Without mended checksums."""
    data = bytearray(files[rng.integers(len(files))])
    kind = rng.integers(6)
    if kind == 0:  # bits flipped, most in the header
        for _ in range(rng.integers(1, 6)):
            end = 24 if rng.random() < 0.5 else len(data)
            data[rng.integers(end)] ^= 1 << rng.integers(8)
    elif kind == 1:
        data = data[: rng.integers(len(data))]
    elif kind == 2:
        data += rng.bytes(int(rng.integers(1, 40)))
    elif kind == 3:  # spliced
        other = files[rng.integers(len(files))]
        cut = rng.integers(min(len(data), len(other)))
        data = data[:cut] + other[cut:]
    elif kind == 4:
        data = bytearray(rng.bytes(int(rng.integers(200))))
    else:  # a run overwritten
        first = rng.integers(len(data))
        size = int(rng.integers(1, 64))
        data[first : first + size] = bytes([rng.integers(256)]) * size
    return bytes(data)


def forged(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """With right lengths, checksum and fingerprint."""
    stream = Bitstream.read(files[rng.integers(len(files))])
    other = Bitstream.read(files[rng.integers(len(files))])
    name = ("y", "z")[rng.integers(2)]
    kind = rng.integers(11)
    own = bytearray(getattr(stream, name))
    change = {}
    if kind == 0:
        for _ in range(rng.integers(1, 4)):
            own[rng.integers(len(own))] ^= 1 << rng.integers(8)
    elif kind == 1:
        own = own[: 4 * rng.integers(2, len(own) // 4 + 1)]
    elif kind == 2:
        own = rng.bytes(len(own))
    elif kind == 3:
        own = bytes([(0, 255, rng.integers(256))[rng.integers(3)]]) * len(own)
    elif kind == 4:
        own = getattr(other, name)
    elif kind == 5:  # a size that is not its own
        sizes = [1, 63, 64, 65, 200, 400, 1000, 3000, 8000, 65535, 2**24 - 1]
        change["size"] = tuple(int(s) for s in rng.choice(sizes, 2))
    elif kind == 6:
        change["symbols_check"] = int(rng.integers(2**16))
    elif kind == 7:
        own = bytes(own) + rng.bytes(4 * int(rng.integers(1, 9)))
    elif kind == 8:
        change = {"y": stream.z, "z": stream.y}
    elif kind == 9:
        change["step"] = int(rng.integers(FIRST, 736))
    else:
        maps = [other.map, rng.bytes(4 * int(rng.integers(2, 9))), b""]
        change["map"] = maps[rng.integers(3)]
        if rng.random() < 0.5 and stream.map:
            own_map = bytearray(stream.map)
            own_map[rng.integers(len(own_map))] ^= 1 << rng.integers(8)
            change["map"] = bytes(own_map)
    if kind not in (5, 6, 8, 9, 10):
        change[name] = bytes(own)
    if rng.random() < 0.2:
        change.setdefault("size", other.size)
    return dataclasses.replace(stream, **change).to_bytes()


def lying(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Header fields at random, under a right checksum."""
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(8, 24)] = rng.integers(256)
    data[4:8] = struct.pack(">I", zlib.crc32(data[8:], zlib.crc32(data[:4])))
    return bytes(data)


def check(codec: Codec, data: bytes) -> str:
    """Decodes a file.

    Raises:
        AssertionError: If it decodes to something else, or takes too long.
    """
    start = time.perf_counter()
    try:
        view = decode(codec.net, data, ("human",))["x_hat"]
    except BitstreamError as e:
        outcome = str(e)
    else:
        outcome = "decoded"
        same = [v.shape == view.shape and torch.equal(v, view) for v in codec.views]
        assert any(same), "decoded to another picture"
    seconds = time.perf_counter() - start
    assert seconds < LONGEST_S, f"took {seconds:.1f} s"
    return outcome


def run(files: int, seed: int = 0, names=NAMES) -> collections.Counter:
    """Checks that many files; returns how many met which end."""
    codecs = [Codec.make(name) for name in names]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends = collections.Counter()
    for i in tqdm(range(files), unit="file", disable=None):
        rng = np.random.default_rng((seed, i))
        codec = codecs[rng.integers(len(codecs))]
        make = (damaged, forged, forged, lying)[i % 4]
        try:
            outcome = check(codec, make(rng, codec.files))
        except Exception as e:
            raise AssertionError(f"seed {seed}, file {i}: {e!r}") from e
        ends[re.sub(r"b'.*?'|\d+", "#", outcome)[:75]] += 1
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used < MOST_MIB * 1024, f"memory grew by {used / 1024:.0f} MiB"
    ends[f"(memory grew by {used / 1024:.0f} MiB)"] = 1
    return ends


def test_hostile_files_are_refused():
    ends = run(800)
    assert ends["decoded"] < 200
    reached = re.findall(r"the (\w+) stream does not decode", "\n".join(ends))
    assert set(reached) == {"y", "z", "map"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        found = run(args.files, args.seed)
    except AssertionError as e:
        sys.exit(str(e))
    for end, count in found.most_common():
        print(f"{count:6d}  {end}")
