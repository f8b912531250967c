import struct
import zlib
from dataclasses import replace

import pytest
import torch

from compressai_hm.codecs import (
    Bitstream,
    BitstreamError,
    HMMeanScaleHyperprior,
    decode,
    encode,
)
from compressai_hm.codecs.container import METRICS

from .families import busy, families


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return busy("hm-mbt2018-mean")


@pytest.fixture(scope="module")
def data(net):
    return encode(net, torch.rand(1, 3, 70, 100), quality=3, metric="ms-ssim")


def with_crc(data):
    crc = zlib.crc32(data[28:], zlib.crc32(data[:24]))
    return data[:24] + struct.pack(">I", crc) + data[28:]


@families
def test_a_file_is_a_header_of_32_bytes_and_the_strings(name):
    net, x = busy(name), torch.rand(1, 3, 50, 33)
    data, coded = encode(net, x), net.compress(x)
    assert data[32:] == coded["strings"][1][0] + coded["strings"][0][0]
    for view, picture in decode(net, data).items():
        assert torch.equal(picture, net.decompress(**coded)[view])


def test_the_header_says_what_the_file_holds(net, data):
    stream = Bitstream.read(data)
    assert stream.model == "hm-mbt2018-mean"
    assert (stream.quality, stream.metric, stream.size) == (3, "ms-ssim", (70, 100))
    assert stream.fingerprint == net.latent_coder().fingerprint()
    assert len(stream.y) + len(stream.z) == len(data) - 32
    assert stream.to_bytes() == data


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("quality", [0, 63])
def test_the_header_says_what_the_weights_were_trained_for(net, metric, quality):
    data = encode(net, torch.rand(1, 3, 8, 8), quality, metric)
    stream = Bitstream.read(data)
    assert (stream.quality, stream.metric) == (quality, metric)
    assert stream.to_bytes() == data
    decode(net, data)


def test_a_quality_that_only_old_files_have_decodes(net):
    stream = Bitstream.read(encode(net, torch.rand(1, 3, 8, 8), metric="ms-ssim"))
    strings = [[stream.y], [stream.z]]
    _, (symbols,) = net.decode_latent(strings, stream.size, [stream.steps()])
    old = replace(stream, quality=100)
    data = replace(old, symbols_crc=old.crc_of(symbols)).to_bytes()
    found = Bitstream.read(data)
    assert (found.quality, found.metric) == (100, "ms-ssim")
    decode(net, data)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: b"", "not a compressai_hm bitstream"),
        (lambda d: b"\x89PNG" + d[4:], "not a compressai_hm bitstream"),
        (lambda d: d[:31], "cut off"),
        (lambda d: d[:-1], "cut off"),
        (lambda d: d + b"x", "appended"),
        (lambda d: d[:3] + b"\x03" + d[4:], "version 3"),
        (lambda d: d[:40] + b"\xab\xcd" + d[42:], "checksum"),
        (lambda d: d[:6] + b"\x05" + d[7:], "checksum"),
        (lambda d: with_crc(d[:6] + b"\x05" + d[7:]), "other symbols"),
        (lambda d: with_crc(d[:11] + bytes(3) + d[14:]), "100x0"),
        (lambda d: with_crc(d[:11] + b"\xff\xff\xff" * 2 + d[17:]), "max_pixels"),
        (lambda d: with_crc(d[:11] + b"\0\0\1\x7f\xff\xff" + d[17:]), "max_pixels"),
        (lambda d: with_crc(d[:13] + b"\x47" + d[14:]), "other symbols"),
        (lambda d: with_crc(d[:11] + b"\0\x04\0" + d[14:]), "never take|not decode"),
        (lambda d: with_crc(d[:28] + bytes(4) + d[32:]), "other symbols"),
        (lambda d: with_crc(d[:-40] + bytes(range(40))), "y stream does not decode"),
        (lambda d: with_crc(d[:32] + bytes(8) + d[40:]), "z stream does not decode"),
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
    stream = Bitstream.read(with_crc(data[:4] + b"\x12\x34" + data[6:]))
    assert stream.model is None
    assert "unknown here (id 1234)" in stream.weights()


def test_large_pictures_are_decoded_when_asked_for(net, data):
    with pytest.raises(BitstreamError, match="max_pixels=6999"):
        decode(net, data, max_pixels=6999)
    assert decode(net, data, max_pixels=7000, views=("machine",)).keys() == {"x_bar"}


def test_what_does_not_fit_a_file_is_an_error(net):
    with pytest.raises(ValueError, match="one picture, got 2"):
        encode(net, torch.rand(2, 3, 8, 8))
    for quality in (-1, 64, 300):
        with pytest.raises(ValueError, match=f"quality {quality} .* 0 to 63"):
            encode(net, torch.rand(1, 3, 8, 8), quality=quality)
    with pytest.raises(ValueError, match="metric must be one of .*, got 'ssim'"):
        encode(net, torch.rand(1, 3, 8, 8), quality=3, metric="ssim")

    class Nameless(HMMeanScaleHyperprior):
        pass

    with pytest.raises(ValueError, match="Nameless has no registered name"):
        encode(Nameless(8, 12).eval(), torch.rand(1, 3, 8, 8))
