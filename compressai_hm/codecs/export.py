"""The transforms for other runtimes: ONNX, and torch's own exported programs.

g_a, g_s and g_t alone. Streams are exact through the coder, which computes in integers:
another runtime's entropy networks would decode other symbols, so they are not exported.
"""

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from .files import write_whole
from .human_machine import Z_STRIDE, HumanMachineMixin, unwrapped

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}


@torch.no_grad()
def export_transforms(
    net: HumanMachineMixin, folder: str | Path, kind: str = "onnx"
) -> list[Path]:
    """Writes the transforms, for one picture of any size.

    g_a takes pictures padded to multiples of 64, ``(1, 3, H, W)`` in [0, 1], and gives
    y, ``(1, M, H/16, W/16)``; g_s takes y_hat and gives x_hat; g_t takes x_hat and
    gives x_bar, and is left out where it is the identity.

    Args:
        net: The codec; left as it was.
        folder: Where ``g_a.onnx`` and its like are written.
        kind: "onnx", which needs the extra ``export``, or "torch", of torch.export.

    Returns:
        The files.

    Raises:
        ValueError: For another kind.
        ImportError: If the packages of ONNX are missing.
    """
    if kind not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}")
    net = unwrapped(net)
    was_training, device = net.training, next(net.parameters()).device
    net.eval()
    x = torch.rand(1, 3, 2 * Z_STRIDE, 3 * Z_STRIDE, device=device)
    y = net.analyse(x)
    parts = {"g_a": (net.g_a, x), "g_s": (net.g_s, y), "g_t": (net.g_t, x)}
    if isinstance(net.g_t, nn.Identity):
        del parts["g_t"]
    files = []
    try:
        for name, (transform, example) in parts.items():
            path = Path(folder, name + FORMATS[kind])
            write_whole(_exported(transform, example, kind), path)
            files.append(path)
    finally:
        net.train(was_training)
    return files


def _exported(transform: nn.Module, example: Tensor, kind: str) -> bytes:
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), io.BytesIO() as f:
        warnings.simplefilter("ignore")  # of the exporter, to its maintainers
        program = torch.export.export(transform, (example,), dynamic_shapes=(sides,))
        if kind == "torch":
            torch.export.save(program, f)
        else:
            try:
                import onnxscript  # noqa: F401
            except ImportError as e:
                raise ImportError(
                    f"{e.name} is missing: pip install compressai-hm[export]"
                ) from e
            options = dict(input_names=["input"], output_names=["output"])
            onnx = torch.onnx.export(program, dynamo=True, verbose=False, **options)
            f.write(onnx.model_proto.SerializeToString())
        return f.getvalue()
