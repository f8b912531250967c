"""Export of the transforms for other runtimes: ONNX and torch's exported programs.

Only g_a, g_s and g_t are exported. The coder computes in integers, and the entropy
networks of another runtime would decode other symbols.
"""

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..geometry import Z_STRIDE
from ..io.files import write_whole
from .human_machine import HumanMachineMixin, unwrapped

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}


def transform_files(
    net: HumanMachineMixin,
    folder: str | Path,
    kind: str = "onnx",
    wanted: tuple[str, ...] = ("g_a", "g_s", "g_t"),
) -> list[Path]:
    """Returns the paths of the files that :func:`export_transforms` writes.

    Args:
        net: The codec.
        folder: Folder of the files.
        kind: "onnx" or "torch". Defaults to "onnx".
        wanted: Names of the transforms. Defaults to all.

    Raises:
        ValueError: If the kind is another one.
    """
    if kind not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}")
    adapts = not isinstance(unwrapped(net).g_t, nn.Identity)
    names = ("g_a", "g_s", "g_t") if adapts else ("g_a", "g_s")
    return [Path(folder, n + FORMATS[kind]) for n in names if n in wanted]


@torch.no_grad()
def export_transforms(
    net: HumanMachineMixin,
    folder: str | Path,
    kind: str = "onnx",
    wanted: tuple[str, ...] = ("g_a", "g_s", "g_t"),
) -> list[Path]:
    """Writes the transforms for one picture of any size.

    g_a takes pictures padded to multiples of 64, ``(1, 3, H, W)`` in [0, 1], and gives
    y, ``(1, M, H/16, W/16)``; g_s takes y_hat and gives x_hat; g_t takes x_hat and
    gives x_bar, and is left out where it is the identity.

    Args:
        net: The codec; it is not changed.
        folder: Folder of the files, ``g_a.onnx`` and so on.
        kind: "onnx", which needs the extra ``export``, or "torch", for torch.export.
            Defaults to "onnx".
        wanted: Names of the transforms. Defaults to all.

    Returns:
        Paths of the files.

    Raises:
        ValueError: If the kind is another one.
        ImportError: If the packages for ONNX are missing.
    """
    files = transform_files(net, folder, kind, wanted)
    net = unwrapped(net)
    was_training, device = net.training, next(net.parameters()).device
    net.eval()
    x = torch.rand(1, 3, 2 * Z_STRIDE, 3 * Z_STRIDE, device=device)
    y = net.analyze(x)
    examples = {"g_a": x, "g_s": y, "g_t": x}
    try:
        for path in files:
            transform, example = getattr(net, path.stem), examples[path.stem]
            write_whole(_export(transform, example, kind), path)
    finally:
        net.train(was_training)
    return files


def use_runtime(net: HumanMachineMixin, runtime: str, name: str) -> None:
    """Replaces a transform's computation by another runtime's, on the CPU.

    Streams stay exact, because the coder computes as before. g_a's y differs by
    rounding errors, so an encoder may choose a few other symbols; g_s's x_hat differs
    by less than 1e-4. There are no gradients, and under autocast torch computes g_a.

    Args:
        net: The codec, in eval mode; changed in place.
        runtime: "onnxruntime" or "openvino".
        name: "g_a" or "g_s".

    Raises:
        ValueError: If the runtime is another one.
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
    """Returns a function for a file of :func:`export_transforms`; threads may share it.

    Args:
        path: The ONNX file.
        runtime: "onnxruntime" or "openvino".
        threads: Number of threads of one call.

    Raises:
        ImportError: If the runtime's package is missing.
    """
    try:
        return RUNTIMES[runtime](path, threads)
    except ImportError as e:
        raise ImportError(f"{e.name} is missing: pip install {runtime}") from e


def _load_onnxruntime(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"input": x})[0]


def _load_openvino(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where a processor has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    return lambda x: compiled.create_infer_request().infer([x])[0]


RUNTIMES = {"onnxruntime": _load_onnxruntime, "openvino": _load_openvino}


def _export(transform: nn.Module, example: Tensor, kind: str) -> bytes:
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), io.BytesIO() as f:
        warnings.simplefilter("ignore")  # those for the exporter's developers
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
