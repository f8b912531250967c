import copy

import pytest
import torch

from compressai_hm import (
    DynamicAdaptation,
    HMMeanScaleHyperprior,
    LatentBackbone,
    StreamReader,
    decode,
    encode,
    find_reader,
    load_reader,
)
from compressai_hm.bitstream import reader as module
from compressai_hm.bitstream.reader import _digest_content, identify_stream


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    net = HMMeanScaleHyperprior(8, 12, g_t_width=4).eval()
    net.update()
    return net


@pytest.fixture(scope="module")
def readers(codec):
    torch.manual_seed(1)
    g_t = DynamicAdaptation(8, downscale=2)
    torch.nn.init.normal_(g_t.layers[-1].weight, std=0.1)
    backbone = LatentBackbone(12, [8, 16], [8, 16], widths=[16], depths=[1])
    return {
        "boxes": StreamReader("boxes", "x_hat", identify_stream(codec, "x_hat"), g_t),
        "latent": StreamReader(
            "latent", "y_hat", identify_stream(codec, "y_hat"), backbone
        ),
    }


def test_x_hat_is_the_same_whichever_reader_is_asked_for(codec, readers):
    data = encode(codec, torch.rand(1, 3, 70, 41))
    plain = decode(codec, data)
    boxes = decode(codec, data, reader=readers["boxes"])
    latent = decode(codec, data, reader=readers["latent"])
    assert torch.equal(plain["x_hat"], boxes["x_hat"])
    assert torch.equal(plain["x_hat"], latent["x_hat"])
    assert not torch.equal(plain["x_bar"], boxes["x_bar"])
    assert boxes["x_bar"].shape == plain["x_bar"].shape
    assert "x_bar" not in latent
    assert [f.shape for f in latent["features"]] == [(1, 8, 10, 6), (1, 16, 5, 3)]
    assert set(decode(codec, data, ("human",), reader=readers["latent"])) == {"x_hat"}


def test_files_bring_readers_back(readers, tmp_path):
    for name, reader in readers.items():
        reader.save(tmp_path / "deep" / f"{name}.reader")
        found = find_reader(name, [tmp_path])
        assert (found.name, found.reads, found.stream) == (
            name,
            reader.reads,
            reader.stream,
        )
        for key, value in reader.net.state_dict().items():
            assert torch.equal(found.net.state_dict()[key], value)
    with pytest.raises(ValueError, match=r"no reader 'x'.*boxes.*latent"):
        find_reader("x", [tmp_path])
    readers["boxes"].save(tmp_path / "again.reader")
    with pytest.raises(ValueError, match="several readers 'boxes'"):
        find_reader("boxes", [tmp_path])
    assert find_reader(str(tmp_path / "again.reader"), []).name == "boxes"


def test_broken_files_are_refused(readers, tmp_path):
    path = tmp_path / "a.reader"
    with pytest.raises(FileNotFoundError, match="no such reader"):
        load_reader(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="a.reader is no reader"):
        load_reader(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="a.reader is no reader"):
        load_reader(path)
    readers["boxes"].save(path)
    content = torch.load(path)
    content["state_dict"]["layers.0.bias"][0] += 1
    torch.save(content, path)
    with pytest.raises(ValueError, match="damaged"):
        load_reader(path)


def test_a_reader_of_other_streams_is_refused(codec, readers):
    torch.manual_seed(2)
    other = HMMeanScaleHyperprior(8, 12, g_t_width=4).eval()
    data = encode(other, torch.rand(1, 3, 64, 64))
    for reader in readers.values():
        with pytest.raises(ValueError, match=f"reader '{reader.name}' was trained on"):
            decode(other, data, reader=reader)
    moved = HMMeanScaleHyperprior(8, 12, g_t_width=4).eval()
    moved.load_state_dict(codec.state_dict())
    with torch.no_grad():
        moved.g_s[0].bias.add_(1)
    readers["latent"].check(moved)  # it does not read x_hat
    with pytest.raises(ValueError, match="'boxes'"):
        readers["boxes"].check(moved)


@pytest.mark.parametrize(
    "name", ["human", "machine", "../x", "a/b", "", ".x", 3, "x" * 65]
)
def test_names_are_parts_of_file_names(name):
    with pytest.raises(ValueError, match="is no name for a reader"):
        StreamReader(name, "x_hat", "", DynamicAdaptation(4))


@pytest.mark.parametrize(
    "options",
    [
        dict(width=12000, downscale=2),
        dict(width=8, downscale=torch.tensor(2)),
        dict(in_channels=4, out_channels=[8], strides=[8], depths=[20000]),
        dict(width=16, downscale=2),  # of other weights
    ],
)
def test_forged_options_allocate_nothing(readers, tmp_path, options):
    path = tmp_path / "a.reader"
    readers["boxes"].save(path)
    content = torch.load(path)
    content["options"] = options
    content["sha256"] = _digest_content(content)
    torch.save(content, path)
    with pytest.raises(ValueError, match="a.reader is no reader"):
        load_reader(path)
    with pytest.raises(ValueError, match="no reader 'boxes'.*a.reader is no reader"):
        find_reader("boxes", [tmp_path, tmp_path / "nowhere"])


def test_weights_are_hashed_once_while_they_stay(codec, readers, monkeypatch):
    hashed, real = [], module._digest
    monkeypatch.setattr(module, "_digest", lambda w: hashed.append(1) or real(w))
    monkeypatch.setattr(module, "_KNOWN", {})
    net, data = copy.deepcopy(codec), encode(codec, torch.rand(1, 3, 64, 64))
    for _ in range(3):
        decode(net, data, reader=readers["boxes"])
    assert len(hashed) == 1
    net.g_s[0].weight.data[0, 0, 0, 0] += 1  # behind torch's back
    with pytest.raises(ValueError, match="trained on streams of"):
        decode(net, data, reader=readers["boxes"])
    net.g_s[0].weight.data[0, 0, 0, 0] -= 1
    for i in range(40):
        net.g_s[0].bias.data[0] = i
        identify_stream(net, "x_hat")
    assert len(module._KNOWN) <= 16
    assert identify_stream(net, "x_hat").endswith(real(net.g_s.state_dict())[:8])
