"""Shows the codec on a page: one file of a picture, for people and for machines.

python tools/app.py

prints an address for the browser of this computer. Drop a picture there, or an .hmc
file. Nothing leaves this computer, and no file stays on it but what you download.
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
import codec
import numpy as np
import torch
from _codec_options import PEOPLE
from PIL import Image
from torch import Tensor, nn

from compressai_hm.codecs import (
    DEFAULT_MODEL,
    DEFAULT_QUALITY,
    ENTRIES,
    Bitstream,
    BitstreamError,
    Steps,
    container,
    decode,
)
from compressai_hm.codecs.colours import heard
from compressai_hm.codecs.distortion import psnr
from compressai_hm.codecs.entropy.fixed_point import FRACTION
from compressai_hm.codecs.human_machine import Y_STRIDE, Z_STRIDE
from compressai_hm.codecs.pictures import pixels_of, read_picture
from compressai_hm.codecs.rate import encode_to_size
from compressai_hm.zoo.released import RELEASED

if TYPE_CHECKING:
    from compressai_hm.detection import Attention

DETECTOR = tuple(PEOPLE.split(","))
"""What looks at the pictures: a config that ships, and weights."""

MAX_PIXELS = 2**24
"""Of a picture on the page: it is held in memory several times."""

MAX_BYTES = 2**27
"""Of a file that the page sends."""

PORT = 8765
VIEWS = {
    "original": "Original",
    "x_hat": "For people, x\u0302",
    "x_bar": "For machines, x\u0304",
    "bits": "Where the bits went",
}
"""The pictures that the page compares, by name."""

HERE = Path(__file__).resolve().parent
PICTURES = ("kodim14.png", "kodim12.png")
FILES = {
    "/": ("page/index.html", "text/html; charset=utf-8"),
    "/style.css": ("page/style.css", "text/css"),
    "/script.js": ("page/script.js", "text/javascript"),
    **{f"/pictures/{name}": (f"pictures/{name}", "image/png") for name in PICTURES},
}
"""All that can be fetched: by path, a file beside this one and its type."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Has the browser refuse whatever would leave this computer."""


def main() -> None:
    parser = _command.parser(__doc__)
    parser.add_argument(
        "--port", type=int, default=PORT, help="of the address; default: %(default)s"
    )
    args = parser.parse_args()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of packages; the page tells those of pictures
    with bound(args.port) as server:
        print("loading", flush=True)
        server.studio = Studio()
        if server.studio.missing:
            print(server.studio.missing)
        port = server.server_address[1]
        # Python would wait for what it computes. There is nothing to be lost.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(f"open http://127.0.0.1:{port} in a browser; Ctrl-C ends", flush=True)
        server.serve_forever()


class Server(socketserver.ThreadingTCPServer):
    """Not http.server's: that one asks the network for a name."""

    allow_reuse_address = True
    daemon_threads = True
    studio: "Studio"

    def handle_error(self, *args: Any) -> None:
        """Prints what went wrong, unless the browser closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*args)


def bound(port: int) -> Server:
    """A server on this computer's own address.

    Raises:
        ValueError: If the port cannot be had; says which might.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port {port}: give 1024 to 65535, or 0 for any free one")
    try:
        return Server(("127.0.0.1", port), Handler)
    except OSError as e:
        known = {
            errno.EADDRINUSE: "is in use",
            errno.EACCES: "is not for users",
        }
        if e.errno not in known:
            raise
        other = port + 1 if 1024 <= port < 65535 else PORT
        raise ValueError(
            f"port {port} {known[e.errno]}; take another, such as --port {other}"
        ) from None


class Picture:
    """A picture, and what need be found out only once.

    Args:
        data: Its file.
        name: Of the file; tells what it is where the content does not.

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
            self._latent = net.analyse(self.x.to(next(net.parameters()).device))
        return self._latent


def _read(data: bytes, name: str) -> tuple[Tensor, list[str]]:
    """RGB in [0, 1], ``(1, 3, H, W)``, and what was not read of the file."""
    path = Path(f"picture{Path(name).suffix}")
    _check_count(pixels_of(data, path))
    before = heard.set([])
    try:
        x = read_picture(data, MAX_PIXELS, path)
        _check_count(_coded_pixels(x.shape[-2:]))
        return x, [text.removeprefix(f"{path}: ") for text in heard.get()]
    except ValueError as e:
        raise ValueError(str(e).removeprefix(f"{path}: ")) from e
    finally:
        heard.reset(before)


def _coded_pixels(size: tuple[int, int]) -> int:
    """Sides are padded to 64: a long thin picture costs many times its pixels."""
    return math.prod(-(-side // Z_STRIDE) * Z_STRIDE for side in size)


def _check_count(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"the picture has {pixels / 1e6:.1f} million pixels, sides padded to "
            f"{Z_STRIDE}; this page takes up to {MAX_PIXELS / 1e6:.1f} million, "
            "hm-codec takes more (--max-pixels)"
        )


def weights(model: str = DEFAULT_MODEL, metric: str = "mse") -> nn.Module:
    """Loads a released codec once."""
    return codec.weights(None, model, DEFAULT_QUALITY, metric)


class Studio:
    """Codes, decodes and looks at pictures, one request at a time.

    Attributes:
        missing: Why there is no detector, in a sentence; empty if there is one.
    """

    def __init__(self):
        self._lock = threading.Lock()  # neither models nor OpenMMLab are for two
        self._last: Picture | None = None
        self.attention, self.missing = load_detector()
        weights()

    def about(self) -> dict[str, Any]:
        """What the page needs to know at the start."""
        return {
            "model": DEFAULT_MODEL,
            "pictures": PICTURES,
            "missing": self.missing,
            "max_bytes": MAX_BYTES,
        }

    def show(
        self, data: bytes, name: str, wish: Mapping[str, str]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """What the page shows of a file.

        Args:
            data: A picture's, or an .hmc file.
            name: Of the file.
            wish: For a picture ``bpp`` or ``bytes``, the most that its file may have;
                ``attend``: "none", "box" or "detector"; ``box``: left, top, right and
                bottom in pixels, with commas.

        Returns:
            Facts, and files by name: ``hmc`` and a PNG for each of ``VIEWS`` that
            there is.

        Raises:
            ValueError: If something is wrong with the file or a wish.
        """
        if not data:
            raise ValueError("the file is empty")
        with self._lock, torch.no_grad():
            is_stream = name.lower().endswith(codec.SUFFIX)
            if is_stream or data.startswith(container.MAGIC):
                return self._shown(data, name, {}, None)
            if self._last is None or self._last.digest != hashlib.sha256(data).digest():
                self._last = None  # its memory may be needed
                self._last = Picture(data, name)
            facts, stream = self._coded(self._last, name, wish)
            return self._shown(stream, name, facts, self._last)

    def _coded(
        self, picture: Picture, name: str, wish: Mapping[str, str]
    ) -> tuple[dict[str, Any], bytes]:
        """As ``hm-codec encode`` does; facts, and the file."""
        height, width = picture.x.shape[-2:]
        most = _most(wish, height * width)
        given = f"./{name}" if name.startswith("-") else name
        command = ["encode", given, f"--bytes={most}"]
        attend = wish.get("attend", "none")
        if attend == "box":
            command.append(f"--roi={_box(wish.get('box', ''), (height, width))}")
        elif attend == "detector":
            if self.attention is None:
                raise ValueError(self.missing)
            command.append(f"--attend={_detector()}")
        elif attend != "none":
            raise ValueError(f"attend={attend}: there are none, box and detector")
        args = codec.parse(command)
        step = codec.wanted_steps(args, picture.x)
        started = time.perf_counter()
        net, y = weights(), picture.latent()
        stream = encode_to_size(net, picture.x, most, step, args.quality, y=y)
        facts = {
            "most": most,
            "finer": None if step.offsets is None else _share(step),
            "command": f"hm-codec {shlex.join(command)}",
            "encode": time.perf_counter() - started,
            "remarks": picture.remarks,
        }
        return facts, stream

    def _shown(
        self, data: bytes, name: str, facts: dict[str, Any], picture: Picture | None
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        stream = Bitstream.read(data)
        net = _net_of(stream)
        height, width = stream.size
        _check_count(_coded_pixels(stream.size))
        names = ("human", "machine")
        if isinstance(net.g_t, nn.Identity):
            names = ("human",)
        started = time.perf_counter()
        views = decode(net, data, names, MAX_PIXELS)
        seconds = time.perf_counter() - started
        if picture is not None:
            views = {"original": picture.x, **views}
        views = {key: view.cpu() for key, view in views.items()}
        pixels = {key: (view * 255).round().byte() for key, view in views.items()}
        found = {}
        if self.attention is not None:
            found = {key: self.detect(view) for key, view in views.items()}
        places = bits_by_place(net, stream)
        pixels["bits"] = over_picture(places, pixels.get("original", pixels["x_hat"]))
        compared = [key for key in views if key != "original" and picture is not None]
        facts = {
            **facts,
            "name": f"{Path(name).stem}{codec.SUFFIX}",
            "size": (width, height),
            "bytes": len(data),
            "bpp": 8 * len(data) / (height * width),
            "weights": stream.weights(),
            "decode": seconds,
            "psnr": {key: _psnr(pixels[key], pixels["original"]) for key in compared},
            "views": {key: VIEWS[key] for key in VIEWS if key in pixels},
            "found": found,
            "brightest": float(places.max()),
        }
        return facts, {"hmc": data, **{key: _png(x) for key, x in pixels.items()}}

    def detect(self, x: Tensor) -> list[dict]:
        """The objects in a picture ``(1, 3, H, W)``: ``box``, ``name``, ``score``."""
        (names,), (found,) = self.attention.classes(), self.attention.found(x)
        rows = found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist()
        return [
            {"box": box, "name": names[label], "score": score}
            for box, label, score in zip(*rows, strict=True)
        ]


def load_detector() -> tuple["Attention | None", str]:
    """The detector, or why there is none."""
    try:
        args = codec.parse(["encode", "", "--bytes=1", f"--attend={_detector()}"])
        found = codec.attention(*codec.attended(args))
        found.classes()  # or it says that it does not know them
        return found, ""
    except ImportError as e:
        return None, (
            f"no detector: OpenMMLab is not installed ({_command.sentence(e)}); pip "
            'install "compressai-hm[openmmlab]" brings it'
        )
    except (OSError, ValueError, RuntimeError) as e:
        return None, f"no detector: {_command.sentence(e)}"


def _detector() -> str:
    """As ``hm-codec encode --attend`` takes it."""
    import _launch  # which needs OpenMMLab

    config, checkpoint = DETECTOR
    return f"{_launch.find_config(config)},{checkpoint}"


def _most(wish: Mapping[str, str], pixels: int) -> int:
    """Bytes that a file may have."""
    unit, most = ("bytes", 2**31) if "bytes" in wish else ("bpp", 100)
    text = wish.get(unit, "")
    if not re.fullmatch(r"[0-9]{1,12}([.][0-9]{0,12})?", text) or float(text) > most:
        raise ValueError(f"{unit} must be a number from 0 to {most}, got {text!r}")
    bits = float(text) * (8 if unit == "bytes" else pixels)
    return max(1, int(bits / 8))


def _box(text: str, size: tuple[int, int]) -> str:
    """As ``hm-codec encode --roi`` takes it."""
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


def _share(step: Steps) -> float:
    """Of the places of a map, how many are finer than the rest."""
    return float((step.offsets < 0).mean())


def _net_of(stream: Bitstream) -> nn.Module:
    """The codec that a file was coded with."""
    if (
        stream.model not in RELEASED
        or not stream.quality
        or stream.metric not in ENTRIES[stream.model].released
    ):
        raise BitstreamError(
            f"the file needs {stream.weights()}; this page has the weights of "
            f"{', '.join(RELEASED)} that ship: hm-codec decode takes others "
            "(--checkpoint)"
        )
    return weights(stream.model, stream.metric)


def bits_by_place(net: nn.Module, stream: Bitstream) -> np.ndarray:
    """Bits per pixel in each block of 16x16 pixels, as the file spends them.

    Args:
        net: The codec.
        stream: The file.

    Returns:
        ``(ceil(H / 16), ceil(W / 16))``. What z costs in a block of 64x64 is spread
        evenly.
    """
    steps, coder = [stream.steps()], net.latent_coder()
    y_hat, symbols = net.decode_latent([[stream.y], [stream.z]], stream.size, steps)
    ratio, channels = Z_STRIDE // Y_STRIDE, len(coder.medians)
    rows, cols = (side // ratio for side in y_hat.shape[-2:])
    q = torch.from_numpy(symbols[0][: rows * cols * channels].astype(np.float64))
    z = q.view(1, rows, cols, channels) + coder.medians.cpu() * 2.0**-FRACTION
    p = coder.measure(y_hat, z.permute(0, 3, 1, 2), steps)["likelihoods"]
    y_bits, z_bits = (-p[key].double().log2().sum(1)[0].cpu() for key in ("y", "z"))
    z_bits = z_bits.repeat_interleave(ratio, 0).repeat_interleave(ratio, 1)
    bits = (y_bits + z_bits / ratio**2).numpy() / Y_STRIDE**2
    height, width = (-(-side // Y_STRIDE) for side in stream.size)
    return bits[:height, :width]


_COLOURS = np.array(
    [(8, 6, 40), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)]
)


def over_picture(places: np.ndarray, picture: Tensor) -> Tensor:
    """Colours for values by place, the largest yellow, over a picture in gray.

    Args:
        places: ``(ceil(H / 16), ceil(W / 16))``, 0 or more.
        picture: ``(1, 3, H, W)`` uint8.

    Returns:
        Like the picture.
    """
    shade = places / max(places.max(), 1e-9) * (len(_COLOURS) - 1)
    at = np.arange(len(_COLOURS))
    colour = np.stack([np.interp(shade, at, c) for c in _COLOURS.T])
    height, width = picture.shape[-2:]
    colour = torch.from_numpy(colour).float()
    colour = colour.repeat_interleave(Y_STRIDE, 1).repeat_interleave(Y_STRIDE, 2)
    gray = picture.float().mean(1, keepdim=True)
    return (0.3 * gray + 0.7 * colour[None, :, :height, :width]).byte()


def _psnr(a: Tensor, b: Tensor) -> float | None:
    """None where they are equal."""
    value = psnr(a, b, 255)
    return value if math.isfinite(value) else None


def _png(pixels: Tensor) -> bytes:
    """Of ``(1, 3, H, W)`` uint8: quickly, for it goes no farther than this computer."""
    with io.BytesIO() as f:
        image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
        image.save(f, "PNG", compress_level=1)
        return f.getvalue()


def packed(facts: dict[str, Any], files: dict[str, bytes]) -> bytes:
    """An answer: the length of the facts in 4 bytes, the facts, the files.

    Args:
        facts: Becomes JSON, with the files' names and lengths as ``files``.
        files: By name.
    """
    lengths = [(name, len(data)) for name, data in files.items()]
    head = json.dumps({**facts, "files": lengths}).encode()
    return b"".join((len(head).to_bytes(4), head, *files.values()))


class Handler(BaseHTTPRequestHandler):
    """The page's requests; nobody else's."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_from_page():
            self._send(403, "text/plain", b"open the page by the address that was told")
        elif path == "/about":
            about = json.dumps(self.server.studio.about()).encode()
            self._send(200, "application/json", about)
        elif path in FILES:
            name, kind = FILES[path]
            self._send(200, kind, (HERE / name).read_bytes())
        else:
            self._send(404, "text/plain", b"there is no such page")

    def do_POST(self) -> None:
        """``/show?name=...``, with a file: see :meth:`Studio.show`."""
        parts, length = urlsplit(self.path), self.headers.get("Content-Length", "")
        if not self._is_from_page() or parts.path != "/show":
            self.close_connection = True
            self._send(403, "text/plain", b"this is for the page alone")
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
        # Always 200: a browser logs any other as an error of the page.
        self._send(200, "application/octet-stream", packed(*answer))

    def _is_from_page(self) -> bool:
        """Neither another site's, nor through a name that was bent to this computer."""
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
        """Nothing: the terminal is for what is wrong."""


if __name__ == "__main__":
    _command.run(main)
