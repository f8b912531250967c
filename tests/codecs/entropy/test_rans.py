import numpy as np
import pytest
from compressai.entropy_models import GaussianConditional
from compressai.models.base import get_scale_table

from compressai_hm.codecs.entropy import rans
from compressai_hm.codecs.entropy.rans import BitstreamError, Decoder, Encoder, Tables


@pytest.fixture(scope="module")
def tables():
    model = GaussianConditional(None)
    model.update_scale_table(get_scale_table())
    return Tables(model)


def steps(count=6, size=500, spread=30, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        index = rng.integers(0, 64, size)
        yield np.round(rng.normal(0, spread, size)).astype(np.int64), index


def coded(tables, parts):
    encoder = Encoder(tables)
    for values, index in parts:
        encoder.push(values, index)
    return encoder.finish()


def decoded(tables, string, parts):
    decoder = Decoder(tables, string, sum(len(v) for v, _ in parts), "y")
    out = [decoder.pull(index) for _, index in parts]
    decoder.finish()
    return out


def test_values_come_back_also_far_outside_their_tables(tables):
    parts = list(steps())
    parts[2][0][:4] = [-32768, 32767, 5000, -5000]
    parts[5][0][-1] = 32767
    string = coded(tables, parts)
    for (values, _), out in zip(parts, decoded(tables, string, parts), strict=True):
        assert (values == out).all()


def test_probabilities_are_what_coding_costs(tables):
    parts = list(steps(count=20))
    bits = sum(
        -np.log2(tables.probability[i, tables.symbols(v, i)]).sum() for v, i in parts
    )
    assert 8 * len(coded(tables, parts)) == pytest.approx(bits, abs=80)


def test_every_symbol_is_the_worst_and_the_stream_still_fits(tables):
    parts = [(np.full(300, -32768), np.zeros(300, dtype=np.int64))]
    string = coded(tables, parts)
    assert len(string) <= 4 * 300 + 16
    assert (decoded(tables, string, parts)[0] == -32768).all()


def test_marks_come_and_are_checked_in_long_streams(tables, monkeypatch):
    monkeypatch.setattr(rans, "_MARK_EVERY", 700)
    parts = list(steps())
    string = coded(tables, parts)
    assert (decoded(tables, string, parts)[5] == parts[5][0]).all()
    # Noticed at the first mark, not at the end.
    decoder = Decoder(tables, bytes(len(string)), 3000, "y")
    decoder.pull(parts[0][1])
    with pytest.raises(BitstreamError, match="y stream does not decode"):
        decoder.pull(parts[1][1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s[:-4],
        lambda s: s + bytes(4),
        lambda s: s[4:],
        lambda s: bytes(len(s)),
        lambda s: b"\xff" * len(s),
        lambda s: s[:-1],
        lambda s: b"",
        lambda s: s[:4],
        lambda s: s * 100,
    ],
)
def test_damage_is_an_error(tables, damage):
    parts = list(steps(count=1))
    with pytest.raises(BitstreamError, match="y stream"):
        decoded(tables, damage(coded(tables, parts)), parts)


def test_tables_that_the_coder_would_choke_on_are_refused():
    model = GaussianConditional(None)
    with pytest.raises(ValueError, match="not frequency tables"):
        Tables(model)
    model.update_scale_table(get_scale_table())
    model._quantized_cdf[3, 2] = 70000
    with pytest.raises(ValueError, match="not frequency tables"):
        Tables(model)
