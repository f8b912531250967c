import pytest
import torch
from torch import nn

from compressai_hm import QuantSteps, importance_to_steps
from compressai_hm.distortion import psnr
from compressai_hm.entropy import devices, latent_coder

from ..families import portable

CPU, GPU = torch.device("cpu"), torch.device("cuda:7")
MISSING = (
    TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework..."),
    RuntimeError("Required aspect fp64 is not supported on the device"),
    RuntimeError("The GPU device does not support Double (Float64) operations!"),
)
BROKEN = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. double"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
    RuntimeError("CUDA error: device-side assert triggered"),
)


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    cached = devices.has_float64, devices.check_products
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def fail_with(monkeypatch, error):
    def zeros(*args, **kwargs):
        raise error

    monkeypatch.setattr(devices.torch, "zeros", zeros)


@pytest.mark.parametrize("error", MISSING, ids=str)
def test_a_device_without_float64_is_replaced_by_the_cpu(monkeypatch, error):
    net = portable("hm-mbt2018-mean")
    coder = net.latent_coder()
    fail_with(monkeypatch, error)
    coder._to(GPU)
    assert coder.device == CPU


@pytest.mark.parametrize("error", BROKEN, ids=str)
def test_any_other_failure_is_raised(monkeypatch, error):
    coder = portable("hm-mbt2018-mean").latent_coder()
    fail_with(monkeypatch, error)
    with pytest.raises(type(error), match=str(error).split("(")[0]):
        coder._to(GPU)


def test_products_reach_the_limit_and_are_exact():
    x, weight = devices._factors()
    most = x.abs() @ weight.abs().t()
    assert x.abs().max() <= 2**27 and 2**52 < most.max() <= 2**53
    assert ((x @ weight.t()).abs() > 2**52).any()
    devices.check_products(CPU)


def fewer_bits(x, bits):
    """Of each row, as numbers that share an exponent have them."""
    unit = 2.0 ** (x.abs().amax(-1, keepdim=True).log2().ceil() - bits)
    return (x / unit).round() * unit


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: (x.float() @ w.float().t()).double(),
        lambda x, w: fewer_bits(x, 26) @ w.t(),
        lambda x, w: x @ fewer_bits(w, 22).t(),
        lambda x, w: fewer_bits(x @ w.t(), 52),
    ],
)
def test_products_of_fewer_bits_are_refused(monkeypatch, product):
    monkeypatch.setattr(nn.functional, "linear", product)
    with pytest.raises(RuntimeError, match="cpu does not multiply float64 exactly"):
        devices.check_products(CPU)


def test_a_device_is_tried_before_it_codes(monkeypatch):
    tried, coder = [], portable("hm-mbt2018-mean").latent_coder()
    monkeypatch.setattr(latent_coder, "check_products", tried.append)
    monkeypatch.setattr(latent_coder, "has_float64", lambda device: True)
    with pytest.raises((AssertionError, RuntimeError)):  # there is no such GPU
        coder._to(GPU)
    assert tried == [GPU]
    coder._to(CPU)
    assert tried == [GPU]  # the CPU's products are IEEE's


def test_a_device_is_tried_once(monkeypatch):
    computed, linear = [], nn.functional.linear
    monkeypatch.setattr(
        nn.functional, "linear", lambda *args: computed.append(1) or linear(*args)
    )
    for _ in range(3):
        devices.check_products(CPU)
    assert len(computed) == 1


def test_measures_are_taken_on_the_cpu_where_there_is_no_float64(monkeypatch):
    """Of tensors whose device is the CPU, as if it had none."""
    x, moved = torch.randint(0, 256, (1, 3, 161, 170)), []
    cpu, double = torch.Tensor.cpu, torch.Tensor.double
    expected = psnr(x, x.flip(0) + 1, 255), importance_to_steps(x[0, 0] / 255.0, 2.0)

    def to_cpu(x):
        moved.append(x)
        return cpu(x)

    def in_double(x):
        if not any(x is other for other in moved):
            raise MISSING[0]
        return double(x)

    monkeypatch.setattr(devices, "has_float64", lambda device: False)
    monkeypatch.setattr(torch.Tensor, "cpu", to_cpu)
    monkeypatch.setattr(torch.Tensor, "double", in_double)
    assert psnr(x, x.flip(0) + 1, 255) == expected[0]
    steps = importance_to_steps(x[0, 0] / 255.0, 2.0)
    assert torch.equal(steps, expected[1])
    assert QuantSteps.nearest(steps.float(), (161 * 16, 170 * 16)).offsets is not None
    assert len(moved) == 4


@pytest.mark.gpu
def test_products_are_exact_on_every_gpu():
    for index in range(torch.cuda.device_count()):
        devices.check_products(torch.device("cuda", index))
