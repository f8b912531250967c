"""tools/app.py: what it finds out, and its page in a browser."""

import copy
import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import app
import codec
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from compressai_hm import Bitstream, DynamicAdaptation, encode
from compressai_hm.zoo import load_checkpoint

ROOT = Path(__file__).parents[2]


def picture_file(image, kind="PNG", **options):
    with io.BytesIO() as f:
        image.save(f, kind, **options)
        return f.getvalue()


def drawn():
    """Busy on the left and on the right, with two objects that the demo's finds."""
    image = Image.effect_noise((160, 112), 30).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 20, 60, 70), fill=(220, 40, 40))
    draw.rectangle((100, 40, 150, 90), fill=(40, 60, 220))
    return picture_file(image)


PICTURE = drawn()
SHIPPED = app.DETECTOR, app.weights


def test_style_and_script_name_what_the_page_has():
    page, style, script = (
        (ROOT / "tools/page" / name).read_text(encoding="utf-8")
        for name in ("index.html", "style.css", "script.js")
    )
    ids = set(re.findall(r'id="([\w-]+)"', page))
    colors = r"(?:[0-9a-f]{3,4}){1,2}\b"
    assert ids >= set(re.findall(rf"#(?!{colors})([a-z][\w-]*)", style))
    assert ids >= set(re.findall(r'by\("([\w-]+)"\)', script))


@pytest.fixture(scope="module", autouse=True)
def what_is_shown():
    """A codec with a view for machines, and a detector that finds what is drawn."""
    net = copy.deepcopy(app.weights())
    net.g_t = DynamicAdaptation(8, 2).eval()
    torch.nn.init.normal_(net.g_t.layers[-1].weight, std=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "weights", lambda *args: net)
        patch.setattr(
            app, "DETECTOR", ("demo/detector.py", "compressai_hm://demo_detector.pth")
        )
        yield


@pytest.fixture(scope="module")
def studio():
    pytest.importorskip("mmdet")
    studio = app.Studio()
    assert studio.missing == ""
    return studio


def test_a_picture_comes_as_hm_codec_codes_it(studio, tmp_path):
    path = tmp_path / "a b.png"
    path.write_bytes(PICTURE)
    for wish in (
        {"bpp": "0.9"},
        {"bytes": "1500", "roi": "box", "box": "8,8,60,60"},
    ):
        facts, files = studio.show(PICTURE, path.name, wish)
        assert facts["bytes"] == len(files["hmc"]) <= facts["most"]
        assert facts["bpp"] == 8 * facts["bytes"] / (160 * 112)
        assert facts["name"] == "a b.hmc" and facts["size"] == (160, 112)
        command = shlex.split(facts["command"])
        assert command[:2] == ["hm-codec", "encode"]
        args = codec.parse(command[1:])
        _, _, written = codec.encode_file(args, path, tmp_path / "coded")
        assert list(written.values()) == [files["hmc"]]


def test_codec_and_detector_that_ship(monkeypatch):
    pytest.importorskip("mmdet")
    monkeypatch.setattr(app, "DETECTOR", SHIPPED[0])
    monkeypatch.setattr(app, "weights", SHIPPED[1])
    studio = app.Studio()
    assert studio.missing == ""
    facts, files = studio.show(PICTURE, "a.png", {"bpp": "0.9"})
    assert facts["bytes"] <= 0.9 * 160 * 112 / 8 and "original" in facts["found"]
    decoded, _ = studio.show(files["hmc"], "a.hmc", {})
    assert decoded["weights"] == facts["weights"]
    assert app.DEFAULT_MODEL in facts["weights"]
    person = app.weights(app.DEFAULT_MODEL, "person")
    file = encode(person, torch.rand(1, 3, 64, 64), 6, "person")
    decoded, _ = studio.show(file, "b.hmc", {})
    assert "(person)" in decoded["weights"]


def test_what_is_shown_is_what_is_decoded(studio):
    facts, files = studio.show(PICTURE, "a.png", {"bpp": "0.9"})
    x = read_png(PICTURE)
    assert list(facts["views"]) == ["original", "x_hat", "x_bar", "bits"]
    assert np.array_equal(read_png(files["original"]), x)
    out = app.decode(app.weights(), files["hmc"])
    for key in ("x_hat", "x_bar"):
        view = (out[key][0] * 255).round().permute(1, 2, 0).numpy()
        assert np.array_equal(read_png(files[key]), view)
        mse = ((view - x.astype(float)) ** 2).mean()
        assert facts["psnr"][key] == pytest.approx(10 * np.log10(255**2 / mse))
    assert set(facts["found"]) == {"original", "x_hat", "x_bar"}
    names = {own["name"] for own in facts["found"]["original"]}
    assert names and names <= set(studio.regions.classes()[0])


def read_png(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def test_bits_by_place_are_those_of_the_file(studio):
    _, files = studio.show(PICTURE, "a.png", {"bpp": "0.9"})
    stream = Bitstream.read(files["hmc"])
    places = app.bits_by_place(app.weights(), stream)
    assert places.shape == (7, 10)
    # In whole blocks of 64, which is what is coded.
    x, steps = torch.rand(1, 3, 64, 128), torch.full((4, 8), 4.0)
    steps[1:3, 2:6] = 2.0
    for step in (1.0, 3.9, steps):
        whole = Bitstream.read(encode(app.weights(), x, quality=1, step=step))
        total = app.bits_by_place(app.weights(), whole).sum() * 256
        ends = 16  # bytes at most that the two streams end in
        assert 0 <= len(whole.y) + len(whole.z) - total / 8 < ends


def test_bits_go_into_a_box_and_to_what_is_found(studio):
    share, masks = {}, {}
    for roi in ("none", "box", "detector"):
        wish = {"bytes": "1500", "roi": roi, "box": "96,32,160,96"}
        facts, files = studio.show(PICTURE, "a.png", wish)
        stream = Bitstream.read(files["hmc"])
        places = app.bits_by_place(app.weights(), stream)
        share[roi] = places / places.sum()
        offsets = stream.steps().offsets
        masks[roi] = None if offsets is None else offsets[:7, :10] < 0
        assert (facts["finer"] is None) == (roi == "none")
    expected = np.zeros((7, 10), bool)
    expected[2:6, 6:] = True
    assert np.array_equal(masks["box"], expected)
    assert masks["detector"].any() and not masks["detector"].all()
    for roi in ("box", "detector"):
        outside = ~masks[roi]
        assert share[roi][outside].sum() < 0.9 * share["none"][outside].sum()


def test_a_file_that_is_dropped_is_decoded(studio):
    _, coded = studio.show(PICTURE, "a.png", {"bpp": "0.9"})
    facts, files = studio.show(coded["hmc"], "other.hmc", {"bpp": "nonsense"})
    assert list(facts["views"]) == ["x_hat", "x_bar", "bits"]
    assert files["hmc"] == coded["hmc"] and files["x_hat"] == coded["x_hat"]
    assert facts["psnr"] == {} and "encode" not in facts and "most" not in facts


def test_a_codec_without_a_view_for_machines(studio, monkeypatch):
    net = copy.deepcopy(app.weights())
    net.g_t = torch.nn.Identity()
    monkeypatch.setattr(app, "weights", lambda *args: net)
    monkeypatch.setattr(studio, "_last", None)
    facts, files = studio.show(PICTURE, "a.png", {"bpp": "0.5"})
    assert list(facts["views"]) == ["original", "x_hat", "bits"]
    assert "x_bar" not in files and list(facts["psnr"]) == ["x_hat"]


def of_other_weights():
    net = load_checkpoint("compressai_hm://demo_codec.pth").eval()
    return encode(net, torch.rand(1, 3, 64, 64))


def forged():
    """Of other weights than it says."""
    net = copy.deepcopy(app.weights())
    with torch.no_grad():
        net.h_s[0].weight *= 1.5
    return encode(net, torch.rand(1, 3, 64, 64), quality=2)


def large():
    return picture_file(Image.new("1", (12000, 9000)))


def thin():
    return picture_file(Image.new("1", (300000, 3)))


@pytest.mark.parametrize(
    ("make", "name", "wish", "told"),
    [
        (lambda: b"GIF89a", "a.png", {}, "not a readable picture"),
        (lambda: PICTURE[:3000], "a.png", {}, "not a readable picture"),
        (lambda: b"", "a.png", {}, "the file is empty"),
        (lambda: PICTURE, "a.hmc", {}, "not a compressai_hm bitstream"),
        (lambda: forged()[:-5], "a.hmc", {}, "cut off"),
        (of_other_weights, "a.hmc", {}, "this page has only the package's weights"),
        (forged, "a.hmc", {}, "coded with other weights"),
        (large, "a.png", {}, "108.0 million pixels"),
        (thin, "a.png", {}, "19.2 million pixels, sides padded to 64; this page"),
        (lambda: PICTURE, "a.png", {"bpp": "nan"}, "bpp must be a number"),
        (lambda: PICTURE, "a.png", {"bytes": ""}, "bytes must be a number"),
        (lambda: PICTURE, "a.png", {"bytes": "40"}, "does not fit into 40 bytes"),
        (lambda: PICTURE, "-a.png", {"bytes": "0"}, "does not fit into 1 bytes"),
        (lambda: PICTURE, "a.png", {"roi": "all"}, "none, box and detector"),
        (lambda: PICTURE, "a.png", {"roi": "box"}, "draw a box"),
        (
            lambda: PICTURE,
            "a.png",
            {"roi": "box", "box": "160,0,200,50"},
            "holds nothing of a picture of 160x112",
        ),
    ],
)
def test_what_is_wrong_is_said(studio, make, name, wish, told):
    with pytest.raises(ValueError) as e:
        studio.show(make(), name, {"bpp": "0.5", **wish})
    assert told in str(e.value)


def test_one_at_a_time(studio, monkeypatch):
    inside, most = [], []
    really = app.encode_to_size

    def slow(*args, **kwargs):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return really(*args, **kwargs)

    monkeypatch.setattr(app, "encode_to_size", slow)
    threads = [
        threading.Thread(target=studio.show, args=(PICTURE, "a.png", {"bpp": "0.5"}))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1]


def test_weights_of_the_detector_that_are_missing(monkeypatch):
    pytest.importorskip("mmdet")
    config = app.DETECTOR[0]
    monkeypatch.setattr(app, "DETECTOR", (config, "compressai_hm://none.pth"))
    regions, missing = app.load_detector()
    assert regions is None
    assert missing.startswith("no detector: ") and "none.pth" in missing


def test_a_port_that_is_taken():
    with app.bound(0) as server:
        port = server.server_address[1]
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ValueError, match=f"port {port} is in use.*--port "):
            app.bound(port)
    with pytest.raises(ValueError, match="--port 70000"):
        app.bound(70000)


@pytest.fixture
def served(studio):
    with serving(studio) as port:
        yield port


class serving:
    def __init__(self, studio):
        self.server = app.bound(0)
        self.server.studio = studio
        self.server.daemon_threads = False  # no test ends amid an answer
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self):
        self.thread.start()
        return self.server.server_address[1]

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def asked(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response, data


def test_only_the_page_is_answered(served):
    response, data = asked(served, "GET", "/about")
    assert json.loads(data)["model"] == app.DEFAULT_MODEL
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    for path in ("/../app.py", "/app.py", "/page/index.html", "//etc/passwd"):
        assert asked(served, "GET", path)[0].status == 404
    for method, path in (("GET", "/"), ("POST", "/show")):
        assert asked(served, method, path, Host="there.com")[0].status == 403
    other = {"Origin": "http://there.com"}
    assert asked(served, "POST", "/show", PICTURE, **other)[0].status == 403
    _, data = asked(served, "POST", "/show", **{"Content-Length": str(2**40)})
    assert b"a file may have at most 134 MB" in data
    _, data = asked(served, "POST", "/show?name=x.png", b"nothing")
    assert b"not a readable picture" in data


def reset(port):
    """Breaks a request off."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(b"POST /show HTTP/1.1\r\nContent-Le")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_as_it_is_typed_without_openmmlab_home_and_display(tmp_path):
    (tmp_path / "mmengine.py").write_text("raise ModuleNotFoundError(name='mmengine')")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    env |= {"HOME": "/dev/null/home", "TMPDIR": str(tmp_path)}
    env.pop("DISPLAY", None)
    with subprocess.Popen(
        [sys.executable, ROOT / "tools/app.py", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        cwd=tmp_path,
        # A shell may have told background jobs, such as these tests, to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        lines = [process.stdout.readline() for _ in range(3)]
        try:
            assert 'pip install "compressai-hm[openmmlab]"' in lines[1]
            port = int(lines[2].split("127.0.0.1:")[1].split()[0])
            _, data = asked(port, "POST", "/show?name=x.png&bpp=0.5", PICTURE)
            reset(port)
            large = picture_file(Image.effect_noise((3000, 3000), 30), "JPEG2000")
            with ThreadPoolExecutor() as pool:
                answer = pool.submit(asked, port, "POST", "/show?bpp=0.5", large)
                time.sleep(0.5)  # of the seconds that decoding takes
                process.send_signal(signal.SIGINT)
                with pytest.raises(ConnectionError):
                    answer.result()
        finally:
            process.kill()
        assert process.wait(60) == -signal.SIGINT
        assert process.stderr.read() == ""
    facts = json.loads(data[4 : 4 + int.from_bytes(data[:4])])
    assert facts["found"] == {} and facts["bytes"] <= facts["most"]
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"mmengine.py"}


# In a browser


@pytest.fixture(scope="module")
def page(studio):
    """The page, its first example shown. What it logs and asks for is kept."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with serving(studio) as port, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60000)
        page.errors, page.asked = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning")
                and page.errors.append(message.text)
            ),
        )
        page.on("request", lambda request: page.asked.append(request.url))
        page.own = f"http://127.0.0.1:{port}/"
        page.goto(page.own)
        page.get_by_role("status").get_by_text("kodim14.hmc: 768 x 512").wait_for()
        yield page
        browser.close()


def give(page, name, data):
    kind = "application/octet-stream"
    page.get_by_label("Drop a picture here").set_input_files(
        {"name": name, "mimeType": kind, "buffer": data}
    )


def done(page, text):
    page.get_by_role("status").get_by_text(text).wait_for()


def figure(page, name):
    return page.locator(f"dt:text-is('{name}') + dd").inner_text()


def command(page):
    return page.locator("#command code").inner_text()


def settled(page, held):
    """The command, once it holds something."""
    page.locator("#command code", has_text=held).wait_for()
    return command(page)


def test_an_example_is_shown_at_once(page):
    assert int(figure(page, "Bytes").replace(",", "")) < 0.26 * 768 * 512 / 8
    for name in ("PSNR for people, x̂", "PSNR for machines, x̄"):
        assert 20 < float(figure(page, name).removesuffix(" dB")) < 40
    page.get_by_role("button", name="Example kodim12.png").click()
    done(page, "kodim12.hmc: 768 x 512")


def test_size_boxes_and_detector(page):
    give(page, "my picture.png", PICTURE)
    done(page, "my picture.hmc: 160 x 112")
    assert "--bytes=560" in command(page)  # a quarter of a bit for each pixel
    page.get_by_label("Bits per pixel").focus()
    page.keyboard.press("PageUp")
    settled(page, "--bytes=828")
    assert page.get_by_label("Bytes at most").input_value() == "828"
    page.get_by_label("Bytes at most").fill("1500")
    page.keyboard.press("Enter")
    settled(page, "--bytes=1500")
    assert page.get_by_label("Bits per pixel").get_attribute("aria-valuetext") == (
        "0.67 bits per pixel"
    )

    page.get_by_label("More into a box").check()
    area = page.locator("#stage").bounding_box()
    scale = area["width"] / 160
    page.mouse.move(area["x"] + 80 * scale, area["y"] + 64 * scale)
    page.mouse.down()
    page.mouse.move(area["x"] + 16 * scale, area["y"] + 16 * scale)
    page.mouse.up()
    assert "--roi=16,16,80,64" in settled(page, "--roi=")
    page.get_by_label("Right", exact=True).last.fill("96")
    page.keyboard.press("Enter")
    settled(page, "--roi=16,16,96,64")
    page.get_by_label("More to what the detector finds").check()
    settled(page, "--roi-detector=")
    assert figure(page, "Coded finer").endswith("% of it")


def test_the_divider_and_the_choice_of_pictures(page):
    clip = "document.getElementById('layer-left').style.clipPath"
    page.get_by_label("Divider").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(clip) == "inset(0px 99% 0px 0px)"
    page.get_by_label("The same everywhere").check()
    area = page.locator("#stage").bounding_box()
    page.mouse.click(area["x"] + area["width"] / 4, area["y"] + 9)
    assert page.evaluate(clip) == "inset(0px 75% 0px 0px)"
    page.get_by_role("combobox", name="Right").select_option("Where the bits went")
    assert page.get_by_alt_text("Where the bits went").is_visible()
    assert page.get_by_text("yellow is up to").is_visible()
    page.get_by_label("Show detections").uncheck()
    assert page.locator(".layer svg").count() == 0
    page.get_by_label("Show detections").check()
    assert page.locator(".layer svg[aria-label^='Found: ']").count() == 1


def test_a_download_dropped_is_decoded(page):
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "my picture.hmc"
    data = Path(download.value.path()).read_bytes()
    assert Bitstream.read(data).size == (112, 160)
    page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.hmc"));
            const options = {dataTransfer: transfer, bubbles: true};
            document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        list(data),
    )
    done(page, "dropped.hmc: 160 x 112")
    assert page.get_by_text("size and regions were chosen").is_visible()
    assert page.get_by_label("Bits per pixel").is_disabled()
    assert page.get_by_role("combobox", name="Left").locator("option").count() == 3


def test_a_broken_file_is_told(page):
    give(page, "broken.png", PICTURE[:3000])
    alert = page.get_by_role("alert")
    alert.get_by_text("broken.png: not a readable picture").wait_for()
    assert not page.locator("#result").is_visible()
    assert not page.locator("#download").is_visible()
    give(page, "whole.png", PICTURE)
    done(page, "whole.hmc: 160 x 112")
    assert not alert.is_visible()
    assert page.get_by_label("Bits per pixel").is_enabled()


def test_everything_has_a_name_and_fits(page):
    page.get_by_label("More into a box").check()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, a, img, svg")]
            .filter(e => e.checkVisibility() && !e.closest("[aria-hidden]"))
            .filter(e => !(e.getAttribute("aria-label") || e.alt || e.innerText?.trim()
                || e.querySelector?.("img[alt]") || e.labels?.[0]?.innerText.trim()))
            .map(e => e.outerHTML)"""
    )
    assert nameless == []
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("The same everywhere").check()


def test_nothing_was_logged_and_nothing_left_this_computer(page):
    assert page.errors == []
    assert page.asked
    near = page.own, f"blob:{page.own}", "data:"
    assert [url for url in page.asked if not url.startswith(near)] == []
