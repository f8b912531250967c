"""Torchvision's ops under the names and arguments of mmcv's compiled ops.

``import mmdet.models`` needs the module ``mmcv._ext``, which mmcv-lite and an mmcv
built without torch do not have. The functions below have the names and arguments that
mmcv's Python code uses; any other op raises NotImplementedError when it is called.
Like mmcv's, most of them write their result into a tensor that they are given.
In shapes, N counts pictures, K boxes, and C channels.
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
        sys.meta_path.append(_Finder())  # last, so that a compiled mmcv wins


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

        def refuse(*args, **kwargs):
            raise NotImplementedError(
                f"mmcv's op {op!r} has no torchvision counterpart here; install an "
                "mmcv with compiled ops to use it"
            )

        return refuse


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Returns the indices of the boxes that non-maximum suppression keeps, best first.

    Args:
        boxes: ``(K, 4)``, as x1, y1, x2, y2 in pixels.
        scores: ``(K,)``.
        iou_threshold: A box goes if its overlap with a better one is above this.
        offset: 0, or 1 where x2 and y2 are the last pixels inside a box.
    """
    boxes = boxes.clone()
    boxes[:, 2:] += offset
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def _compute_iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
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
    """Returns the indices of the boxes that soft suppression keeps, best first.

    Args:
        boxes: ``(K, 4)``, as x1, y1, x2, y2 in pixels.
        scores: ``(K,)``.
        dets: Written: the boxes that are kept and their lowered scores, ``(K, 5)``.
        iou_threshold: Overlap from which scores are lowered, unless ``method`` is 2.
        sigma: Width of the Gaussian of ``method`` 2.
        min_score: Boxes whose score falls below this are left out.
        method: 0 is plain suppression, 1 linear, 2 Gaussian.
        offset: See :func:`nms`.
    """
    left = torch.arange(len(boxes))
    scores = scores.clone()
    indices = []
    while len(left):
        best = scores[left].argmax()
        i = left[best]
        dets[len(indices)] = torch.cat([boxes[i], scores[i : i + 1]])
        indices.append(i)
        left = torch.cat([left[:best], left[best + 1 :]])
        iou = _compute_iou(boxes[i], boxes[left], offset)
        if method == 0:  # plain
            weight = (iou < iou_threshold).to(scores)
        elif method == 1:  # linear
            weight = torch.where(iou >= iou_threshold, 1 - iou, 1.0)
        else:  # gaussian
            weight = torch.exp(-iou * iou / sigma)
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.stack(indices) if indices else torch.zeros(0, dtype=torch.long)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Returns groups of indices: each box that is kept, then those it suppresses.

    Args:
        dets: Boxes and scores, ``(K, 5)``.
        iou_threshold: Boxes that overlap by this or more belong to one group.
    """
    left = dets[:, 4].argsort(descending=True)
    groups = []
    while len(left):
        i, left = left[0], left[1:]
        same = _compute_iou(dets[i, :4], dets[left, :4], 0) >= iou_threshold
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
    """Computes RoIAlign's averages over boxes.

    Args:
        input: Features, ``(N, C, H, W)``.
        rois: ``(K, 5)``: the picture's index, then x1, y1, x2, y2.
        output: Written: ``(K, C, aligned_height, aligned_width)``.
        argmax_y: Not used; mmcv fills it for ``pool_mode`` 0.
        argmax_x: Not used, as ``argmax_y``.
        aligned_height: Rows of the output.
        aligned_width: Columns of the output.
        spatial_scale: Factor from the boxes' coordinates to those of ``input``.
        sampling_ratio: Samples on each side of an output cell; 0 adapts to the box.
        pool_mode: 1, the average.
        aligned: Whether coordinates are shifted by half a pixel.

    Raises:
        NotImplementedError: If ``pool_mode`` is 0, the maximum.
    """
    if pool_mode != 1:
        raise NotImplementedError("torchvision's roi_align has no pool_mode 'max'")
    output.copy_(  # in float32, the only type that the CPU has
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
    """Computes the gradient of :func:`roi_align_forward`.

    Args:
        grad_output: Gradient of the output, ``(K, C, aligned_height, aligned_width)``.
        grad_input: Written: the gradient of the features, ``(N, C, H, W)``.

    The arguments rois, argmax_y, argmax_x, aligned_height, aligned_width,
    spatial_scale, sampling_ratio, pool_mode and aligned are those of
    :func:`roi_align_forward`.
    """
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
    """Computes a deformable convolution.

    Args:
        input: ``(N, C, H, W)``.
        weight: ``(C_out, C, kh, kw)``.
        offset: Shifts of the samples in pixels, ``(N, 2 * kh * kw, h, w)``.
        output: Written: ``(N, C_out, h, w)``.
        columns: Not used; a buffer of mmcv's.
        ones: Not used; a buffer of mmcv's.
        **kw: Stride (dH, dW), padding (padH, padW), dilation (dilationH, dilationW),
            and others that follow from the shapes.
    """
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
    """Computes the gradients of a deformable convolution's input and offsets.

    Args:
        grad_output: Gradient of the output, ``(N, C_out, h, w)``.
        grad_input: Written: of the shape of ``input``.
        grad_offset: Written: of the shape of ``offset``.

    The arguments input, offset, weight, columns and kw are those of
    :func:`deform_conv_forward`.
    """
    grads = _compute_gradients(
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
    """Computes the gradient of a deformable convolution's weight.

    Args:
        grad_output: Gradient of the output, ``(N, C_out, h, w)``.
        grad_weight: The gradient is added to it, ``(C_out, C, kh, kw)``.
        scale: Factor of the gradient.

    The arguments input, offset, columns, ones and kw are those of
    :func:`deform_conv_forward`.
    """
    # The output is linear in the weight, so any weight gives the same gradient.
    (grad,) = _compute_gradients(
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
    """Computes a deformable convolution whose samples are weighted by a mask.

    Args:
        input: ``(N, C, H, W)``.
        weight: ``(C_out, C, kh, kw)``.
        bias: ``(C_out,)``; used if ``with_bias``.
        ones: Not used; a buffer of mmcv's.
        offset: Shifts of the samples in pixels, ``(N, 2 * kh * kw, h, w)``.
        mask: Weights of the samples, ``(N, kh * kw, h, w)``.
        output: Written: ``(N, C_out, h, w)``.
        columns: Not used; a buffer of mmcv's.
        with_bias: Whether the bias is added.
        **kw: Stride (stride_h, stride_w), padding (pad_h, pad_w), dilation (dilation_h,
            dilation_w), and others that follow from the shapes.
    """
    bias = bias if with_bias else None
    output.copy_(_masked_conv(input, offset, mask, weight, bias, kw))


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
    """Computes all gradients of :func:`modulated_deform_conv_forward`.

    Args:
        grad_input: Written: of the shape of ``input``.
        grad_weight: Written: of the shape of ``weight``.
        grad_bias: Written if ``with_bias``: of the shape of ``bias``.
        grad_offset: Written: of the shape of ``offset``.
        grad_mask: Written: of the shape of ``mask``.
        grad_output: Gradient of the output, ``(N, C_out, h, w)``.

    The arguments input, weight, bias, ones, offset, mask, columns, with_bias and kw are
    those of :func:`modulated_deform_conv_forward`.
    """
    inputs = [input, offset, mask, weight]
    targets = [grad_input, grad_offset, grad_mask, grad_weight]
    if with_bias:
        inputs.append(bias)
        targets.append(grad_bias)
    grads = _compute_gradients(
        lambda x, o, m, w, b=None: _masked_conv(x, o, m, w, b, kw), grad_output, *inputs
    )
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)


def _masked_conv(input, offset, mask, weight, bias, kw) -> Tensor:
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
    """Computes the focal loss of each logit.

    Args:
        input: Logits, ``(K, classes)``.
        target: Labels, ``(K,)``; the number of classes means background.
        weight: Weights of the labels, ``(classes + 1,)``, or empty.
        output: Written: of the shape of ``input``.
        gamma: Exponent that lowers the loss of easy examples.
        alpha: Weight of positive examples, in [0, 1].
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Computes the gradient of the sum of :func:`sigmoid_focal_loss_forward`.

    Args:
        grad_input: Written: of the shape of ``input``.

    The arguments input, target, weight, gamma and alpha are those of
    :func:`sigmoid_focal_loss_forward`.
    """
    (grad,) = _compute_gradients(
        lambda x: _focal_loss(x, target, weight, gamma, alpha),
        torch.ones_like(input),
        input,
    )
    grad_input.copy_(grad)


def _focal_loss(input, target, weight, gamma, alpha) -> Tensor:
    # A target equal to the number of classes means background.
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
    """Returns multi-scale deformable attention, ``(N, queries, heads * channels)``.

    Args:
        value: ``(N, places of all levels, heads, channels)``.
        shapes: Height and width of each level, ``(levels, 2)``.
        level_start_index: Not used; it follows from ``shapes``.
        locations: Of the samples in [0, 1], ``(N, queries, heads, levels, points, 2)``.
        weights: Of the samples, ``(N, queries, heads, levels, points)``.
        im2col_step: Not used; the size of mmcv's batches.
    """
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
    """Computes the gradients of :func:`ms_deform_attn_forward`.

    Args:
        grad_output: Gradient of the output.
        grad_value: Written: of the shape of ``value``.
        grad_locations: Written: of the shape of ``locations``.
        grad_weights: Written: of the shape of ``weights``.

    The arguments value, shapes, level_start_index, locations, weights and im2col_step
    are those of :func:`ms_deform_attn_forward`.
    """
    grads = _compute_gradients(
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
    # mmcv itself uses this function on the CPU.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def _compute_gradients(op, grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
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
