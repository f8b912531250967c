"""The stand-in against plain definitions of the ops, and against being in the way."""

import importlib.machinery
import subprocess
import sys
import textwrap

import pytest
import torch
from mmcv.ops import (
    DeformConv2d,
    ModulatedDeformConv2d,
    nms,
    nms_match,
    roi_align,
    sigmoid_focal_loss,
    soft_nms,
)
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import nn

BOXES = torch.tensor(
    [[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 9, 10]],
    dtype=torch.float32,
)
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6])


def test_nms_keeps_the_best_of_each_cluster():
    dets, kept = nms(BOXES, SCORES, 0.5)
    assert kept.tolist() == [0, 2]
    assert torch.equal(dets[:, 4], SCORES[kept])


def test_nms_offset_counts_the_last_pixel():
    a = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 3]])  # IoU 1/3, with offset 1/2
    assert len(nms(a, SCORES[:2], 0.4, offset=0)[1]) == 2
    assert len(nms(a, SCORES[:2], 0.4, offset=1)[1]) == 1


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_lowers_the_scores_of_neighbors(method):
    dets, kept = soft_nms(BOXES, SCORES, 0.5, min_score=1e-3, method=method)
    iou = 81 / 119  # of the first two
    weight = {
        "naive": 0.0,
        "linear": 1 - iou,
        "gaussian": float(torch.exp(torch.tensor(-(iou**2) / 0.5))),
    }[method]
    found = dict(zip(kept.tolist(), dets[:, 4].tolist(), strict=True))
    assert found[0] == pytest.approx(0.9) and found[2] == pytest.approx(0.7)
    assert found.get(1, 0.0) <= 0.8 * weight + 1e-6
    assert dets[:, 4].tolist() == sorted(dets[:, 4].tolist(), reverse=True)


def test_nms_match_groups_each_box_once():
    groups = nms_match(torch.cat([BOXES, SCORES[:, None]], 1), 0.5)
    assert [g.tolist() for g in groups] == [[0, 1, 3], [2]]


def test_roi_align_samples_bilinearly_and_has_a_gradient():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).requires_grad_()
    rois = torch.tensor([[0.0, 2, 2, 6, 6]])
    out = roi_align(x, rois, (2, 2), 1.0, 1, "avg", True)
    assert torch.allclose(out[0, 0], torch.tensor([[22.5, 24.5], [38.5, 40.5]]))
    out.sum().backward()
    assert x.grad.sum() == pytest.approx(4)


def test_roi_align_max_is_refused():
    with pytest.raises(NotImplementedError, match="max"):
        roi_align(
            torch.rand(1, 1, 8, 8), torch.zeros(1, 5), (2, 2), 1.0, 1, "max", True
        )


@pytest.mark.parametrize("modulated", [False, True])
def test_deform_conv_without_offsets_is_a_convolution(modulated):
    torch.manual_seed(0)
    x = torch.rand(2, 4, 9, 9, requires_grad=True)
    offset = torch.zeros(2, 18, 9, 9, requires_grad=True)
    if modulated:
        layer = ModulatedDeformConv2d(4, 6, 3, padding=1, bias=True)
        out = layer(x, offset, torch.ones(2, 9, 9, 9))
    else:
        layer = DeformConv2d(4, 6, 3, padding=1)
        out = layer(x, offset)
    plain_x = x.detach().clone().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    bias = layer.bias if modulated else None
    plain = nn.functional.conv2d(plain_x, weight, bias, padding=1)
    assert torch.allclose(out, plain, atol=1e-5)
    for y in (out, plain):
        y.square().sum().backward()
    assert torch.allclose(x.grad, plain_x.grad, atol=1e-3)
    assert torch.allclose(layer.weight.grad, weight.grad, rtol=1e-3)
    assert offset.grad.abs().sum() > 0


def test_focal_loss_is_mmdetections_own():
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    x = torch.randn(6, 3, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 3, 1])  # 3 is the background
    one_hot = nn.functional.one_hot(target, 4)[:, :3]
    plain_x = x.detach().clone().requires_grad_()
    plain = py_sigmoid_focal_loss(plain_x, one_hot, reduction="none")
    loss = sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none")
    assert torch.allclose(loss, plain, atol=1e-6)
    loss.sum().backward()
    plain.sum().backward()
    assert torch.allclose(x.grad, plain_x.grad, atol=1e-6)


def test_deformable_attention_is_mmcvs_own():
    value = torch.rand(1, 20, 2, 4, requires_grad=True)
    shapes = torch.tensor([[4, 4], [2, 2]])
    locations = torch.rand(1, 5, 2, 2, 3, 2, requires_grad=True)
    weights = torch.rand(1, 5, 2, 2, 3, requires_grad=True)
    inputs = (value, locations, weights)
    out = MultiScaleDeformableAttnFunction.apply(
        value, shapes, torch.tensor([0, 16]), locations, weights, 64
    )
    plain = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    assert torch.allclose(out, plain)
    for a, b in zip(
        torch.autograd.grad(out.sum(), inputs),
        torch.autograd.grad(plain.sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b)


def test_an_op_without_counterpart_names_itself():
    import mmcv._ext

    with pytest.raises(NotImplementedError, match="furthest_point_sampling"):
        mmcv._ext.furthest_point_sampling()


def test_the_module_is_found_as_mmcv_looks_for_it():
    spec = importlib.util.find_spec("mmcv._ext")
    assert isinstance(spec, importlib.machinery.ModuleSpec)


def test_compiled_ops_win(tmp_path):
    """Where mmcv has a compiled _ext of its own, that one is imported."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text("compiled = True")
    code = """
        from compressai_hm.compat.mmcv_ops import install_mmcv_ops
        install_mmcv_ops()
        import mmcv._ext
        assert mmcv._ext.compiled
    """
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        check=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
