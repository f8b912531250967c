import numpy as np
import pytest
from compressai.entropy_models import GaussianConditional
from compressai.models.base import get_scale_table

from compressai_hm.entropy.range_coder import BitstreamError, Decoder, Encoder, Tables


@pytest.fixture(scope="module")
def tables():
    model = GaussianConditional(None)
    model.update_scale_table(get_scale_table())
    return Tables(model._buffers)


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
    sizes = [len(v) for v, _ in parts]
    decoder = Decoder(tables, string, sum(sizes), max(sizes), "y")
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


def test_a_stream_that_has_ended_is_given_up_at_once(tables):
    """At the step that reads beyond its end, not after all of a forged size."""
    parts = list(steps())
    decoder = Decoder(tables, b"\xff" * 400, 10**6, 500, "y")
    with pytest.raises(BitstreamError, match="y stream does not decode"):
        for _, index in parts:
            decoder.pull(index)


def test_a_state_that_no_encoder_leaves_is_refused(tables):
    """From one, symbols would take 32 bits each, and reads leave the padding."""
    for state in (0, 1, 2**31 - 1):
        with pytest.raises(BitstreamError, match="y stream does not decode"):
            Decoder(tables, state.to_bytes(8, "little") + bytes(1000), 500, 500, "y")


def test_a_step_larger_than_announced_is_not_read(tables):
    with pytest.raises(ValueError, match="a step of 9 symbols, not 8"):
        Decoder(tables, b"\xff" * 400, 500, 8, "y").pull(np.zeros(9, dtype=int))


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
        Tables(model._buffers)
    model.update_scale_table(get_scale_table())
    model._quantized_cdf[3, 2] = 70000
    with pytest.raises(ValueError, match="not frequency tables"):
        Tables(model._buffers)


@pytest.mark.parametrize("count", range(6))
def test_a_stream_may_hold_few_symbols_or_none(tables, count):
    index, values = np.full(count, 3), np.arange(count) - 2
    encoder = Encoder(tables)
    encoder.push(values, index)
    string = encoder.finish()
    decoder = Decoder(tables, string, 8, 8, "y")
    assert (decoder.pull(index) == values).all()
    decoder.finish()
    other = Decoder(tables, string, 8, 8, "y")
    with pytest.raises(BitstreamError, match="y stream does not decode"):
        other.pull(np.full(count + 1, 3))
        other.finish()
