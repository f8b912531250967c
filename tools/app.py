"""Shows the codec on a page: one file of a picture, for people and for machines.

python tools/app.py

prints an address for the browser of this computer. Drop a picture there, or an .hmc
file. Nothing leaves this computer, and only downloads are stored on it.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import re
import shlex
import signal
import socketserver
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import _command
import numpy as np
import torch
from _codec_options import ROI_DETECTOR_GAIN
from _shared import PEOPLE, load_detector_regions, load_weights
from PIL import Image
from torch import Tensor, nn

from compressai_hm import (
    DEFAULT_MODEL,
    DEFAULT_QUALITY,
    ENTRIES,
    Bitstream,
    BitstreamError,
    decode,
)
from compressai_hm.bitstream.file_names import SUFFIX
from compressai_hm.bitstream.format import MAGIC
from compressai_hm.distortion import psnr
from compressai_hm.encoder.rate_control import encode_to_size
from compressai_hm.encoder.regions import base_step, choose_steps
from compressai_hm.entropy.fixed_point import FRACTION
from compressai_hm.entropy.steps import z_class
from compressai_hm.geometry import Y_STRIDE, Z_STRIDE, blocks, latent_size, padded_size
from compressai_hm.io.colors import heard
from compressai_hm.io.pictures import count_pixels, read_picture
from compressai_hm.zoo.released import RELEASED

if TYPE_CHECKING:
    from compressai_hm.detection import DetectorRegions

DETECTOR = tuple(PEOPLE.split(","))
"""Config and weights of the detector; both are in the package."""

MAX_PIXELS = 2**24
"""Limit of a picture's pixels: memory holds it several times."""

MAX_BYTES = 2**27
"""Limit of the size of a file that the page sends."""

PORT = 8765
VIEWS = {
    "original": "Original",
    "x_hat": "For people, x\u0302",
    "x_bar": "For machines, x\u0304",
    "bits": "Where the bits went",
}
"""The pictures that the page compares, and their titles."""

HERE = Path(__file__).resolve().parent
PICTURES = ("kodim14.png", "kodim12.png")
FILES = {
    "/": ("page/index.html", "text/html; charset=utf-8"),
    "/style.css": ("page/style.css", "text/css"),
    "/script.js": ("page/script.js", "text/javascript"),
    **{f"/pictures/{name}": (f"pictures/{name}", "image/png") for name in PICTURES},
}
"""A request's path names a file beside this one, and its type."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy: the browser refuses all requests to other computers."""


def main() -> None:
    """Serves the page."""
    parser = _command.parser(__doc__)
    text = "port of the address; default: %(default)s"
    parser.add_argument("--port", type=int, default=PORT, help=text)
    args = parser.parse_args()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # the page shows the warnings about pictures
    with bound(args.port) as server:
        print("loading", flush=True)
        server.studio = Studio()
        if server.studio.missing:
            print(server.studio.missing)
        port = server.server_address[1]
        # Python would wait for its computations, and nothing can be lost.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(f"open http://127.0.0.1:{port} in a browser; Ctrl-C ends", flush=True)
        server.serve_forever()


class Server(socketserver.ThreadingTCPServer):
    """A server that, unlike http.server's, does not look up the computer's name."""

    allow_reuse_address = True
    daemon_threads = True
    studio: "Studio"

    def handle_error(self, *args: Any) -> None:
        """Prints what went wrong, unless the browser closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*args)


def bound(port: int) -> Server:
    """Returns a server on the loopback address.

    Raises:
        ValueError: If the port cannot be used; the message suggests another.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port {port}: give 1024 to 65535, or 0 for any free one")
    try:
        return Server(("127.0.0.1", port), Handler)
    except OSError as e:
        reasons = {
            errno.EADDRINUSE: "is in use",
            errno.EACCES: "is reserved for the system",
        }
        if e.errno not in reasons:
            raise
        other = port + 1 if 1024 <= port < 65535 else PORT
        raise ValueError(
            f"port {port} {reasons[e.errno]}; take another, such as --port {other}"
        ) from None


class Picture:
    """A picture with its latent, which is computed once.

    Args:
        data: Its file.
        name: Name of the file, which tells its type if the content does not.

    Raises:
        ValueError: If it cannot be read, or is too large.
    """

    def __init__(self, data: bytes, name: str):
        self.digest = hashlib.sha256(data).digest()
        self.x, self.remarks = _read(data, name)
        self._latent: Tensor | None = None

    def latent(self) -> Tensor:
        """Returns y, ``(1, M, h, w)``."""
        if self._latent is None:
            net = weights()
            self._latent = net.analyze(self.x.to(next(net.parameters()).device))
        return self._latent


def _read(data: bytes, name: str) -> tuple[Tensor, list[str]]:
    """Returns RGB in [0, 1], ``(1, 3, H, W)``, and warnings about the file."""
    path = Path(f"picture{Path(name).suffix}")
    _check_count(count_pixels(data, path))
    before = heard.set([])
    try:
        x = read_picture(data, MAX_PIXELS, path)
        _check_count(_count_coded_pixels(x.shape[-2:]))
        return x, [text.removeprefix(f"{path}: ") for text in heard.get()]
    except ValueError as e:
        raise ValueError(str(e).removeprefix(f"{path}: ")) from e
    finally:
        heard.reset(before)


def _count_coded_pixels(size: tuple[int, int]) -> int:
    """Counts padding too: sides are padded to 64, which multiplies a thin picture."""
    return math.prod(padded_size(size))


def _check_count(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"the picture has {pixels / 1e6:.1f} million pixels, sides padded to "
            f"{Z_STRIDE}; this page takes up to {MAX_PIXELS / 1e6:.1f} million, "
            "hm-codec takes more (--max-pixels)"
        )


def weights(model: str = DEFAULT_MODEL, metric: str = "mse") -> nn.Module:
    """Loads a released codec once."""
    return load_weights(None, model, DEFAULT_QUALITY, metric)


class Studio:
    """Codes, decodes and analyzes pictures, one request at a time.

    Attributes:
        missing: Reason why there is no detector; empty if there is one.
    """

    def __init__(self):
        self._lock = threading.Lock()  # OpenMMLab and the models are not thread-safe
        self._last: Picture | None = None
        self.regions, self.missing = load_detector()
        weights()

    def about(self) -> dict[str, Any]:
        """Returns the settings that the page needs at the start."""
        return {
            "model": DEFAULT_MODEL,
            "pictures": PICTURES,
            "missing": self.missing,
            "max_bytes": MAX_BYTES,
        }

    def show(
        self, data: bytes, name: str, wish: Mapping[str, str]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Codes a picture, or decodes a file, for the page.

        Args:
            data: Content of a picture or an .hmc file.
            name: Name of the file.
            wish: Options for a picture. ``bpp`` or ``bytes`` is the largest size of its
                file; ``roi`` is "none", "box" or "detector"; ``box`` is left, top,
                right and bottom in pixels, separated by commas.

        Returns:
            Facts, and files by name: ``hmc``, and a PNG for each existing one of
            ``VIEWS``.

        Raises:
            ValueError: If the file or an option is wrong.
        """
        if not data:
            raise ValueError("the file is empty")
        with self._lock, torch.no_grad():
            is_stream = name.lower().endswith(SUFFIX)
            if is_stream or data.startswith(MAGIC):
                return self._decode(data, name, {}, None)
            if self._last is None or self._last.digest != hashlib.sha256(data).digest():
                self._last = None  # frees its memory
                self._last = Picture(data, name)
            facts, stream = self._encode(self._last, name, wish)
            return self._decode(stream, name, facts, self._last)

    def _encode(
        self, picture: Picture, name: str, wish: Mapping[str, str]
    ) -> tuple[dict[str, Any], bytes]:
        """Codes like ``hm-codec encode``; returns facts, and the file."""
        height, width = picture.x.shape[-2:]
        most = _parse_size(wish, height * width)
        path = f"./{name}" if name.startswith("-") else name
        command = ["encode", path, f"--bytes={most}"]
        roi, boxes, maps = wish.get("roi", "none"), [], []
        if roi == "box":
            boxes = [_check_box(wish.get("box", ""), (height, width))]
            command.append(f"--roi={boxes[0]}")
        elif roi == "detector":
            if self.regions is None:
                raise ValueError(self.missing)
            maps = [self.regions.step_map(picture.x, base_step(None))]
            command.append(f"--roi-detector={_name_detector()}")
        elif roi != "none":
            raise ValueError(f"roi={roi}: there are none, box and detector")
        steps = choose_steps((height, width), None, boxes, maps=maps)
        started = time.perf_counter()
        net, y = weights(), picture.latent()
        stream = encode_to_size(net, picture.x, most, steps, DEFAULT_QUALITY, y=y)
        finer = None if steps.offsets is None else float((steps.offsets < 0).mean())
        facts = {
            "most": most,
            "finer": finer,
            "command": f"hm-codec {shlex.join(command)}",
            "encode": time.perf_counter() - started,
            "remarks": picture.remarks,
        }
        return facts, stream

    def _decode(
        self, data: bytes, name: str, facts: dict[str, Any], picture: Picture | None
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Decodes and analyzes a file; returns all facts, and files by name."""
        stream = Bitstream.read(data)
        net = _load_net(stream)
        height, width = stream.size
        _check_count(_count_coded_pixels(stream.size))
        single = isinstance(net.g_t, nn.Identity)
        names = ("human",) if single else ("human", "machine")
        started = time.perf_counter()
        views = decode(net, data, names, MAX_PIXELS)
        seconds = time.perf_counter() - started
        if picture is not None:
            views = {"original": picture.x, **views}
        views = {key: view.cpu() for key, view in views.items()}
        pixels = {key: (view * 255).round().byte() for key, view in views.items()}
        detections = {}
        if self.regions is not None:
            detections = {key: self.detect(view) for key, view in views.items()}
        places = bits_by_place(net, stream)
        pixels["bits"] = over_picture(places, pixels.get("original", pixels["x_hat"]))
        compared = [key for key in views if key != "original" and picture is not None]
        facts = {
            **facts,
            "name": f"{Path(name).stem}{SUFFIX}",
            "size": (width, height),
            "bytes": len(data),
            "bpp": 8 * len(data) / (height * width),
            "weights": stream.weights(),
            "decode": seconds,
            "psnr": {
                key: _measure_psnr(pixels[key], pixels["original"]) for key in compared
            },
            "views": {key: VIEWS[key] for key in VIEWS if key in pixels},
            "found": detections,
            "brightest": float(places.max()),
        }
        return facts, {
            "hmc": data,
            **{key: _encode_png(x) for key, x in pixels.items()},
        }

    def detect(self, x: Tensor) -> list[dict]:
        """Detects ``box``, ``name`` and ``score`` of objects in ``(1, 3, H, W)``."""
        (names,), (objects,) = self.regions.classes(), self.regions.detect(x)
        columns = (objects.bboxes, objects.labels, objects.scores)
        return [
            {"box": box, "name": names[label], "score": score}
            for box, label, score in zip(*(c.tolist() for c in columns), strict=True)
        ]


def load_detector() -> tuple["DetectorRegions | None", str]:
    """Loads the detector; returns the reason if there is none."""
    try:
        regions = load_detector_regions((_name_detector(),), ROI_DETECTOR_GAIN, ())
        regions.classes()  # raises if the weights do not name them
        return regions, ""
    except (ImportError, OSError, ValueError, RuntimeError) as e:
        return None, f"no detector: {_command.sentence(e)}"


def _name_detector() -> str:
    """Returns the detector in the form of ``hm-codec encode --roi-detector``."""
    import _launch  # needs OpenMMLab

    config, checkpoint = DETECTOR
    return f"{_launch.find_config(config)},{checkpoint}"


def _parse_size(wish: Mapping[str, str], pixels: int) -> int:
    """Returns the largest number of bytes that a file may have."""
    unit, most = ("bytes", 2**31) if "bytes" in wish else ("bpp", 100)
    text = wish.get(unit, "")
    if not re.fullmatch(r"[0-9]{1,12}([.][0-9]{0,12})?", text) or float(text) > most:
        raise ValueError(f"{unit} must be a number from 0 to {most}, got {text!r}")
    bits = float(text) * (8 if unit == "bytes" else pixels)
    return max(1, int(bits / 8))


def _check_box(text: str, size: tuple[int, int]) -> str:
    """Returns a box in the form of ``hm-codec encode --roi``."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(re.fullmatch("[0-9]{1,6}", part) for part in parts):
        raise ValueError("draw a box on the picture, or give its four sides in pixels")
    left, top, right, bottom = map(int, parts)
    if not (left < min(right, size[1]) and top < min(bottom, size[0])):
        raise ValueError(
            f"the box from {left},{top} to {right},{bottom} holds nothing of a picture "
            f"of {size[1]}x{size[0]} pixels"
        )
    return ",".join(parts)


def _load_net(stream: Bitstream) -> nn.Module:
    """Loads the codec that coded a file."""
    if (
        stream.model not in RELEASED
        or not stream.quality
        or stream.metric not in ENTRIES[stream.model].released
    ):
        raise BitstreamError(
            f"the file needs {stream.weights()}; this page has only the package's "
            f"weights of {', '.join(RELEASED)}: hm-codec decode takes others "
            "(--checkpoint)"
        )
    return weights(stream.model, stream.metric)


def bits_by_place(net: nn.Module, stream: Bitstream) -> np.ndarray:
    """Computes a file's bits per pixel in each block of 16x16 pixels.

    Args:
        net: The codec.
        stream: The file.

    Returns:
        ``(ceil(H / 16), ceil(W / 16))``. The bits of z are spread evenly over its
        blocks of 64x64.
    """
    steps, coder = [stream.steps()], net.latent_coder()
    rows, cols = blocks(stream.size, Z_STRIDE)
    y_hat, symbols = coder.decode([stream.y], [stream.z], (rows, cols), steps)
    ratio, channels = Z_STRIDE // Y_STRIDE, len(coder.medians)
    q = torch.from_numpy(symbols[0][: rows * cols * channels].astype(np.float64))
    q = q.view(1, rows, cols, channels)
    if coder.z_widths is not None:
        q = q * (coder.z_widths[z_class(steps[0])].cpu() * 2.0**-FRACTION)
    z = q + coder.medians.cpu() * 2.0**-FRACTION
    p = coder.measure(y_hat, z.permute(0, 3, 1, 2), steps)["likelihoods"]
    y_bits, z_bits = (-p[key].double().log2().sum(1)[0].cpu() for key in ("y", "z"))
    z_bits = z_bits.repeat_interleave(ratio, 0).repeat_interleave(ratio, 1)
    bits = (y_bits + z_bits / ratio**2).numpy() / Y_STRIDE**2
    height, width = latent_size(stream.size)
    return bits[:height, :width]


_COLORS = np.array(
    [(8, 6, 40), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)]
)


def over_picture(places: np.ndarray, picture: Tensor) -> Tensor:
    """Draws values as colors over a gray picture; the largest value is yellow.

    Args:
        places: Values of blocks, ``(ceil(H / 16), ceil(W / 16))``, 0 or more.
        picture: ``(1, 3, H, W)``, uint8.

    Returns:
        ``(1, 3, H, W)``, uint8.
    """
    shade = places / max(places.max(), 1e-9) * (len(_COLORS) - 1)
    positions = np.arange(len(_COLORS))
    color = np.stack([np.interp(shade, positions, c) for c in _COLORS.T])
    height, width = picture.shape[-2:]
    color = torch.from_numpy(color).float()
    color = color.repeat_interleave(Y_STRIDE, 1).repeat_interleave(Y_STRIDE, 2)
    gray = picture.float().mean(1, keepdim=True)
    return (0.3 * gray + 0.7 * color[None, :, :height, :width]).byte()


def _measure_psnr(a: Tensor, b: Tensor) -> float | None:
    """Returns PSNR in dB; None if the pictures are equal."""
    value = psnr(a, b, 255)
    return value if math.isfinite(value) else None


def _encode_png(pixels: Tensor) -> bytes:
    """Encodes ``(1, 3, H, W)``, uint8, quickly: size matters little here."""
    with io.BytesIO() as f:
        image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
        image.save(f, "PNG", compress_level=1)
        return f.getvalue()


def packed(facts: dict[str, Any], files: dict[str, bytes]) -> bytes:
    """Packs an answer: the length of the facts in 4 bytes, the facts, the files.

    Args:
        facts: Content of a JSON object, to which ``files`` is added, the files' names
            and lengths.
        files: Files by name.
    """
    lengths = [(name, len(data)) for name, data in files.items()]
    head = json.dumps({**facts, "files": lengths}).encode()
    return b"".join((len(head).to_bytes(4), head, *files.values()))


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of the page, and refuses all others."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        """Sends the page, its files, and ``/about``."""
        path = urlsplit(self.path).path
        if not self._is_from_page():
            self._send(403, "text/plain", b"open the address that the program printed")
        elif path == "/about":
            about = json.dumps(self.server.studio.about()).encode()
            self._send(200, "application/json", about)
        elif path in FILES:
            name, kind = FILES[path]
            self._send(200, kind, (HERE / name).read_bytes())
        else:
            self._send(404, "text/plain", b"there is no such page")

    def do_POST(self) -> None:
        """Answers ``/show?name=...`` with a file by :meth:`Studio.show`."""
        parts, length = urlsplit(self.path), self.headers.get("Content-Length", "")
        if not self._is_from_page() or parts.path != "/show":
            self.close_connection = True
            self._send(403, "text/plain", b"only the page may send this request")
            return
        wish = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        try:
            if not re.fullmatch("[0-9]{1,12}", length) or int(length) > MAX_BYTES:
                self.close_connection = True
                raise ValueError(f"a file may have at most {MAX_BYTES / 1e6:.0f} MB")
            data = self.rfile.read(int(length))
            name = Path(wish.pop("name", "")).name or "picture"
            answer = self.server.studio.show(data, name, wish)
        except MemoryError:
            answer = {"error": "there is not enough memory for this picture"}, {}
        except (OSError, ValueError, RuntimeError) as e:
            answer = {"error": _command.sentence(e)}, {}
        except Exception:
            traceback.print_exc()
            answer = {"error": "this is a fault of the program: see its terminal"}, {}
        # The status is 200 even then: a browser logs any other as the page's error.
        self._send(200, "application/octet-stream", packed(*answer))

    def _is_from_page(self) -> bool:
        """Refuses other sites, and other names that resolve to this computer."""
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin", f"http://{host}")
        near = re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", host)
        return bool(near) and origin == f"http://{host}"

    def _send(self, status: int, kind: str, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # the page was left
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Logs nothing, so that the terminal shows only errors."""


if __name__ == "__main__":
    _command.run(main)
