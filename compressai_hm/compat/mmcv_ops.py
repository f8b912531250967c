"""A stand-in for mmcv's compiled ops, made of torchvision's.

``import mmdet.models`` needs the module ``mmcv._ext``, which mmcv-lite and an mmcv
built without torch do not have. The functions below have the names and arguments that
mmcv's Python side uses; any other op raises NotImplementedError when it is called.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence

import torch
import torchvision
from torch import Tensor, nn

_NAME = "mmcv._ext"


def install_mmcv_ops() -> None:
    """Offers ``mmcv._ext`` where no compiled one is found. Can be called repeatedly."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())  # last: a compiled mmcv wins


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == _NAME:
            return importlib.machinery.ModuleSpec(fullname, self, origin=__name__)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Ops(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__.update({op.__name__: op for op in _OPS})


class _Ops(types.ModuleType):
    def __getattr__(self, op: str) -> Callable:
        if op.startswith("__"):
            raise AttributeError(op)

        def missing(*args, **kwargs):
            raise NotImplementedError(
                f"mmcv's op {op!r} has no torchvision counterpart here; install an "
                "mmcv with compiled ops to use it"
            )

        return missing


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    boxes = boxes.clone()
    boxes[:, 2:] += offset
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    low = torch.maximum(box[:2], boxes[:, :2])
    high = torch.minimum(box[2:], boxes[:, 2:])
    inter = (high - low + offset).clamp(min=0).prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    return inter / (area + areas - inter)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    left = torch.arange(len(boxes))
    scores = scores.clone()
    kept = []
    while len(left):
        best = scores[left].argmax()
        i = left[best]
        dets[len(kept)] = torch.cat([boxes[i], scores[i : i + 1]])
        kept.append(i)
        left = torch.cat([left[:best], left[best + 1 :]])
        iou = _iou(boxes[i], boxes[left], offset)
        if method == 0:  # plain
            weight = (iou < iou_threshold).to(scores)
        elif method == 1:  # linear
            weight = torch.where(iou >= iou_threshold, 1 - iou, 1.0)
        else:  # gaussian
            weight = torch.exp(-iou * iou / sigma)
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    left = dets[:, 4].argsort(descending=True)
    groups = []
    while len(left):
        i, left = left[0], left[1:]
        same = _iou(dets[i, :4], dets[left, :4], 0) >= iou_threshold
        groups.append([int(i), *left[same].tolist()])
        left = left[~same]
    return groups


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    if pool_mode != 1:
        raise NotImplementedError("torchvision's roi_align has no pool_mode 'max'")
    output.copy_(  # in float32: on the CPU there is no other
        torchvision.ops.roi_align(
            input.float(),
            rois.float(),
            (aligned_height, aligned_width),
            spatial_scale,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output.float(),
            rois.float(),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **kw: int,
) -> None:
    output.copy_(_deform_conv(input, offset, weight, kw))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **kw: int,
) -> None:
    grads = _gradients(
        lambda x, o: _deform_conv(x, o, weight, kw), grad_output, input, offset
    )
    for target, grad in zip((grad_input, grad_offset), grads, strict=True):
        target.copy_(grad)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **kw: int,
) -> None:
    # The output is linear in the weight: any weight gives the same gradient.
    (grad,) = _gradients(
        lambda w: _deform_conv(input, offset, w, kw), grad_output, grad_weight
    )
    grad_weight.add_(grad, alpha=scale)


def _deform_conv(input, offset, weight, kw) -> Tensor:
    return torchvision.ops.deform_conv2d(
        input,
        offset,
        weight,
        stride=(kw["dH"], kw["dW"]),
        padding=(kw["padH"], kw["padW"]),
        dilation=(kw["dilationH"], kw["dilationW"]),
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **kw: int,
) -> None:
    bias = bias if with_bias else None
    output.copy_(_modulated(input, offset, mask, weight, bias, kw))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **kw: int,
) -> None:
    inputs = [input, offset, mask, weight]
    targets = [grad_input, grad_offset, grad_mask, grad_weight]
    if with_bias:
        inputs.append(bias)
        targets.append(grad_bias)
    grads = _gradients(
        lambda x, o, m, w, b=None: _modulated(x, o, m, w, b, kw), grad_output, *inputs
    )
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)


def _modulated(input, offset, mask, weight, bias, kw) -> Tensor:
    return torchvision.ops.deform_conv2d(
        input,
        offset,
        weight,
        bias,
        stride=(kw["stride_h"], kw["stride_w"]),
        padding=(kw["pad_h"], kw["pad_w"]),
        dilation=(kw["dilation_h"], kw["dilation_w"]),
        mask=mask,
    )


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    (grad,) = _gradients(
        lambda x: _focal_loss(x, target, weight, gamma, alpha),
        torch.ones_like(input),
        input,
    )
    grad_input.copy_(grad)


def _focal_loss(input, target, weight, gamma, alpha) -> Tensor:
    # A target of the number of classes is the background.
    one_hot = nn.functional.one_hot(target, input.size(1) + 1)[:, :-1].to(input)
    loss = torchvision.ops.sigmoid_focal_loss(input, one_hot, alpha, gamma)
    return loss * weight[target][:, None] if weight.numel() else loss


def ms_deform_attn_forward(
    value: Tensor,
    shapes: Tensor,
    level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
    im2col_step: int,
) -> Tensor:
    return _ms_deform_attn(value, shapes, locations, weights)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    im2col_step: int,
) -> None:
    grads = _gradients(
        lambda v, at, w: _ms_deform_attn(v, shapes, at, w),
        grad_output,
        value,
        locations,
        weights,
    )
    targets = (grad_value, grad_locations, grad_weights)
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)


def _ms_deform_attn(value, shapes, locations, weights) -> Tensor:
    # mmcv's own, which it uses on the CPU.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def _gradients(op, grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(op(*leaves), leaves, grad_output)


_OPS = (
    nms,
    softnms,
    nms_match,
    roi_align_forward,
    roi_align_backward,
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
)
