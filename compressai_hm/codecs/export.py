"""The transforms for other runtimes: ONNX, and torch's own exported programs.

g_a, g_s and g_t alone. Streams are exact through the coder, which computes in integers:
another runtime's entropy networks would decode other symbols, so they are not exported.
"""

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .files import write_whole
from .human_machine import Z_STRIDE, HumanMachineMixin, unwrapped

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}


def transform_files(
    net: HumanMachineMixin,
    folder: str | Path,
    kind: str = "onnx",
    wanted: tuple[str, ...] = ("g_a", "g_s", "g_t"),
) -> list[Path]:
    """What :func:`export_transforms` writes.

    Raises:
        ValueError: For another kind.
    """
    if kind not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}")
    adapts = not isinstance(unwrapped(net).g_t, nn.Identity)
    own = [name for name in ("g_a", "g_s", "g_t") if name != "g_t" or adapts]
    return [Path(folder, n + FORMATS[kind]) for n in own if n in wanted]


@torch.no_grad()
def export_transforms(
    net: HumanMachineMixin,
    folder: str | Path,
    kind: str = "onnx",
    wanted: tuple[str, ...] = ("g_a", "g_s", "g_t"),
) -> list[Path]:
    """Writes the transforms, for one picture of any size.

    g_a takes pictures padded to multiples of 64, ``(1, 3, H, W)`` in [0, 1], and gives
    y, ``(1, M, H/16, W/16)``; g_s takes y_hat and gives x_hat; g_t takes x_hat and
    gives x_bar, and is left out where it is the identity.

    Args:
        net: The codec; left as it was.
        folder: Where ``g_a.onnx`` and its like are written.
        kind: "onnx", which needs the extra ``export``, or "torch", of torch.export.
        wanted: The transforms.

    Returns:
        The files.

    Raises:
        ValueError: For another kind.
        ImportError: If the packages of ONNX are missing.
    """
    files = transform_files(net, folder, kind, wanted)
    net = unwrapped(net)
    was_training, device = net.training, next(net.parameters()).device
    net.eval()
    x = torch.rand(1, 3, 2 * Z_STRIDE, 3 * Z_STRIDE, device=device)
    y = net.analyse(x)
    examples = {"g_a": x, "g_s": y, "g_t": x}
    try:
        for path in files:
            transform, example = getattr(net, path.stem), examples[path.stem]
            write_whole(_exported(transform, example, kind), path)
    finally:
        net.train(was_training)
    return files


def use_runtime(net: HumanMachineMixin, runtime: str, name: str) -> None:
    """Has another runtime compute a transform from now on, on the CPU.

    Streams stay exact: what the coder depends on is computed as before. g_a's y differs
    by roundings, so that an encoder may choose a few other symbols, and g_s's x_hat by
    less than 1e-4. There are no gradients, and under autocast torch computes g_a.

    Args:
        net: The codec, in eval mode; changed in place.
        runtime: "onnxruntime" or "openvino".
        name: "g_a" or "g_s".

    Raises:
        ValueError: For another runtime.
        ImportError: If its package, or those of the extra ``export``, are missing.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}: {runtime!r}")
    net = unwrapped(net)
    with tempfile.TemporaryDirectory() as folder:
        (path,) = export_transforms(net, folder, wanted=(name,))
        run = load_onnx(path, runtime, torch.get_num_threads())

    def forward(x: Tensor) -> Tensor:
        return torch.from_numpy(run(x.detach().cpu().contiguous().numpy())).to(x)

    getattr(net, name).forward = forward


def load_onnx(
    path: Path, runtime: str, threads: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A transform of :func:`export_transforms`, which threads may share.

    Raises:
        ImportError: If the runtime's package is missing.
    """
    try:
        return RUNTIMES[runtime](path, threads)
    except ImportError as e:
        raise ImportError(f"{e.name} is missing: pip install {runtime}") from e


def _onnxruntime(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"input": x})[0]


def _openvino(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where a processor has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    return lambda x: compiled.create_infer_request().infer([x])[0]


RUNTIMES = {"onnxruntime": _onnxruntime, "openvino": _openvino}


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
