import struct
import zlib
from dataclasses import replace

import pytest
import torch

from compressai_hm import (
    Bitstream,
    BitstreamError,
    FileCodec,
    HMMeanScaleHyperprior,
    decode,
    encode,
)
from compressai_hm.bitstream.format import METRICS

from ..families import busy, families


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return busy("hm-mbt2018-mean")


@pytest.fixture(scope="module")
def data(net):
    return encode(net, torch.rand(1, 3, 70, 100), quality=3, metric="ms-ssim")


def with_crc(data):
    crc = zlib.crc32(data[8:], zlib.crc32(data[:4]))
    return data[:4] + struct.pack(">I", crc) + data[8:]


def with_numbers(data, height, width):
    """Of a picture of up to 127 pixels a side."""
    return with_crc(data[:16] + bytes([*height, *width]) + data[18:])


@families
def test_a_file_is_a_header_and_the_strings(name):
    net, x = busy(name), torch.rand(1, 3, 50, 33)
    data, coded = encode(net, x), net.compress(x)
    header = FileCodec(net).overhead(data)
    assert header == Bitstream.read(data).overhead <= 24
    assert FileCodec(net).encode(x) == data
    assert FileCodec(net).decode(data, views=("human",)).keys() == {"x_hat"}
    assert data[header:] == coded["strings"][1][0] + coded["strings"][0][0]
    for view, picture in decode(net, data).items():
        assert torch.equal(picture, net.decompress(**coded)[view])


def test_the_header_says_what_the_file_holds(net, data):
    stream = Bitstream.read(data)
    assert stream.model == "hm-mbt2018-mean"
    assert (stream.quality, stream.metric, stream.size) == (3, "ms-ssim", (70, 100))
    assert stream.fingerprint == net.latent_coder().fingerprint()
    assert len(stream.y) + len(stream.z) == len(data) - stream.overhead
    assert stream.to_bytes() == data


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("quality", [0, 15])
def test_the_header_says_what_the_weights_were_trained_for(net, metric, quality):
    data = encode(net, torch.rand(1, 3, 8, 8), quality, metric)
    stream = Bitstream.read(data)
    assert (stream.quality, stream.metric) == (quality, metric)
    assert stream.to_bytes() == data
    decode(net, data)


@pytest.mark.parametrize("side", [1, 127, 128, 16383, 16384])
def test_sizes_of_any_length_are_read_again(data, side):
    stream = replace(Bitstream.read(data), size=(side, 16383), step=100)
    assert Bitstream.read(stream.to_bytes()) == stream
    assert stream.overhead <= (24 if side < 2**14 else 25)


def test_files_of_before_the_release_are_named(net, data):
    with pytest.raises(BitstreamError, match="before the first release.*again"):
        decode(net, b"HMC" + data[3:])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: b"", "not a compressai_hm bitstream"),
        (lambda d: b"\x89PNG" + d[4:], "not a compressai_hm bitstream"),
        (lambda d: d[:16], "cut off"),
        (lambda d: d[:-1], "cut off"),
        (lambda d: d + b"x", "appended"),
        (lambda d: d[:3] + b"\x03" + d[4:], "version 3"),
        (lambda d: d[:40] + b"\xab\xcd" + d[42:], "checksum"),
        (lambda d: d[:12] + b"\x05" + d[13:], "checksum"),
        (lambda d: with_crc(d[:12] + b"\x05" + d[13:]), "other symbols"),
        (lambda d: with_crc(d[:12] + b"\x35" + d[13:]), "forged.* weights 3"),
        (lambda d: with_numbers(d, [0], [100]), "100x0"),
        (lambda d: with_numbers(d, [255, 255, 255, 7], [100]), "max_pixels"),
        (lambda d: with_numbers(d, [1], [255, 255, 255, 7]), "max_pixels"),
        (lambda d: with_numbers(d, [255, 255, 255, 255], [100]), "has no end"),
        (lambda d: with_numbers(d, [0xC6, 0], [100]), "has no end"),
        (lambda d: with_numbers(d, [71], [100]), "other symbols"),
        (lambda d: with_numbers(d, [127], [128, 8]), "never take|not decode"),
        (lambda d: with_crc(d[:18] + b"\xff\x7f" + d[20:]), "forged: step"),
        (lambda d: with_crc(d[:20] + b"\xff\x7f" + d[21:]), "z and map have"),
        (lambda d: with_crc(d[:8] + bytes(2) + d[10:]), "other symbols"),
        (lambda d: with_crc(d[:-40] + bytes(range(40))), "y stream does not decode"),
        (lambda d: with_crc(d[:24] + bytes(8) + d[32:]), "z stream does not decode"),
    ],
)
def test_what_is_wrong_is_said(net, data, change, named):
    with pytest.raises(BitstreamError, match=named):
        decode(net, change(data))


def test_the_weights_that_it_needs_are_named(data, net):
    other = busy("hm-mbt2018-mean")
    with torch.no_grad():
        other.h_s[0].weight += 0.01
    own = other.latent_coder().fingerprint().hex()
    needed = net.latent_coder().fingerprint().hex()
    with pytest.raises(BitstreamError, match=f"quality 3 .*{needed}; given .*{own}"):
        decode(other, data)
    with pytest.raises(BitstreamError, match="hm-mbt2018-mean.*given is hm-mbt2018,"):
        decode(busy("hm-mbt2018"), data)


def test_a_model_unknown_here_is_still_described(data):
    stream = Bitstream.read(with_crc(data[:10] + b"\x12\x34" + data[12:]))
    assert stream.model is None
    assert "unknown here (id 1234)" in stream.weights()


def test_large_pictures_are_decoded_when_asked_for(net, data):
    with pytest.raises(BitstreamError, match="max_pixels=6999"):
        decode(net, data, max_pixels=6999)
    assert decode(net, data, max_pixels=7000, views=("machine",)).keys() == {"x_bar"}


def test_what_does_not_fit_a_file_is_an_error(net):
    with pytest.raises(ValueError, match="one picture, got 2"):
        encode(net, torch.rand(2, 3, 8, 8))
    for quality in (-1, 16, 300):
        with pytest.raises(ValueError, match=f"quality {quality} .* 0 to 15"):
            encode(net, torch.rand(1, 3, 8, 8), quality=quality)
    with pytest.raises(ValueError, match="metric must be one of .*, got 'ssim'"):
        encode(net, torch.rand(1, 3, 8, 8), quality=3, metric="ssim")

    class Nameless(HMMeanScaleHyperprior):
        pass

    with pytest.raises(ValueError, match="Nameless has no registered name"):
        encode(Nameless(8, 12).eval(), torch.rand(1, 3, 8, 8))
