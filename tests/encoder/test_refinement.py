import contextlib
from pathlib import Path

import pytest
import torch

from compressai_hm import QuantSteps, decode, encode, refine
from compressai_hm.encoder import refinement
from compressai_hm.encoder.refinement import human_loss
from compressai_hm.entropy import mirrored_tables as tables
from compressai_hm.entropy.steps import OCTAVE
from compressai_hm.io.pictures import read_picture
from compressai_hm.zoo import load_model

from ..families import busy, families

pytestmark = pytest.mark.slow


@pytest.fixture
def built(monkeypatch):
    """One item for each coder that is made."""
    made, real = [], tables.LatentCoder
    monkeypatch.setattr(
        tables, "LatentCoder", lambda *args: made.append(1) or real(*args)
    )
    return made


def loss(latent):
    return latent["y_hat"].square().sum()


@families
def test_the_coder_is_made_once(name, built):
    """Although a masked context clears what it hides of its weights."""
    net, x = busy(name), torch.rand(1, 3, 64, 64)
    for _ in range(2):
        refine(net, x, loss, 21)
    assert len(built) == 1
    h_s = next(k for k, _ in net.named_parameters() if ".h_s" in f".{k}")
    with torch.no_grad():
        net.get_parameter(h_s).mul_(1.5)
    refine(net, x, loss, 1)
    assert len(built) == 2


class Device:
    """In place of torch.cuda or torch.mps: counts what is drawn, by device."""

    def __init__(self):
        self.state, self.current, self.seeded = {None: 5, 0: 6, 1: 7}, 0, []

    @contextlib.contextmanager
    def device(self, device):
        before, self.current = self.current, device.index
        yield
        self.current = before

    def manual_seed(self, seed):
        self.seeded.append(self.current)
        self.state[self.current] = seed

    def get_rng_state(self, *device):
        return self.state[device[0].index if device else None]

    def set_rng_state(self, state, *device):
        self.state[device[0].index if device else None] = state


@pytest.mark.parametrize(
    "device, places", [("cuda:0", [0]), ("cuda:1", [1]), ("mps", [None]), ("cpu", [])]
)
@pytest.mark.parametrize("broken", [False, True])
def test_random_states_are_put_back(monkeypatch, device, places, broken):
    fake, device = Device(), torch.device(device)
    fake.current = None if device.type == "mps" else 0
    before = dict(fake.state)
    monkeypatch.setattr(torch, "get_device_module", lambda device: fake)
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    with contextlib.suppress(KeyError), refinement._random_state_kept(device):
        refinement._seed(device)
        assert {k for k, v in fake.state.items() if v != before[k]} == set(places)
        drawn = torch.rand(3)
        if broken:
            raise KeyError
    assert fake.state == before and fake.seeded == places
    assert torch.equal(torch.rand(()), expected)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), drawn)  # files of before can be made again


def test_no_other_device_is_seeded(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.mps, "manual_seed", seeded.append)
    net = busy("hm-mbt2018-mean")
    refine(net, torch.rand(1, 3, 64, 64), loss, 2)
    assert not seeded


@pytest.fixture(scope="module")
def photograph():
    path = Path(__file__).parents[2] / "tools/pictures/kodim14.png"
    return read_picture(path)[..., 150:342, 200:456]


@pytest.mark.parametrize("step", [1.0, "map"])
def test_a_photograph_costs_less(photograph, step):
    net = load_model("hm-compact", 4, pretrained=True).eval()
    size = tuple(photograph.shape[-2:])
    if step == "map":
        step = torch.full((12, 16), 2.0)
        step[4:9, 3:12] = 1.0
    steps = QuantSteps.nearest(step, size)
    y = refine(net, photograph, None, 20, step)
    assert torch.equal(y, refine(net, photograph, None, 20, step))  # a file comes again
    loss = human_loss(net, photograph, net.analyze(photograph), steps)
    before, after = (
        float(loss(net.code_latent(latent, [steps])).detach())
        for latent in (net.analyze(photograph), y)
    )
    assert after < 0.97 * before
    files = [encode(net, photograph, y=latent, step=step) for latent in (None, y)]
    errors = [
        float((decode(net, data)["x_hat"] - photograph).square().mean())
        for data in files
    ]
    assert len(files[1]) < len(files[0]) and errors[1] < errors[0]


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_a_loss_may_be_in_any_unit(photograph, unit):
    net = load_model("hm-compact", 4, pretrained=True).eval()
    x = photograph[..., :100, :120]  # and where there is padding

    def loss(latent):
        x_hat = net.synthesize(latent["y_hat"], x.shape[-2:], ("human",))["x_hat"]
        bits = sum(-p.log2().sum() for p in latent["likelihoods"].values())
        return unit * (bits / 12000 + 117 * (x_hat - x).square().mean())

    y = refine(net, x, loss, 10)
    before, after = (
        float(loss(net.code_latent(latent)).detach()) for latent in (net.analyze(x), y)
    )
    assert after < 0.98 * before


def test_where_there_is_nothing_to_see_nothing_moves():
    net = load_model("hm-compact", 4, pretrained=True).eval()
    x = torch.full((1, 3, 64, 64), 0.5)
    with torch.no_grad():
        y = net.analyze(x)
        assert human_loss(net, x, y, QuantSteps.nearest(16, (64, 64))) is None
    assert torch.equal(refine(net, x, None, 5, 16), y)


@torch.no_grad()
def test_errors_are_as_dear_as_the_step_makes_them(photograph):
    """A codec's own training had an exchange of bits and errors for a step of 1."""
    net = load_model("hm-compact", 4, pretrained=True).eval()
    size, y = tuple(photograph.shape[-2:]), net.analyze(photograph)
    prices = []
    for step in (QuantSteps(), QuantSteps(OCTAVE)):
        loss = human_loss(net, photograph, y, step)
        latent = net.code_latent(y, [step])
        darker = {
            **latent,
            "likelihoods": {k: p / p for k, p in latent["likelihoods"].items()},
        }
        error = float(
            (net.synthesize(latent["y_hat"], size)["x_hat"] - photograph)
            .square()
            .mean()
        )
        prices.append(float(loss(darker)) / error / 255**2)
    assert 0.0018 < prices[0] < 0.007  # trained with 0.0035
    assert prices[1] < prices[0] / 1.5
