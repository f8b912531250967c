"""Each of these files was once read wrongly, or could be."""

import io
import os
import struct
import subprocess
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from compressai_hm.io.pictures import (
    OPENCV,
    PictureWarning,
    find_pictures,
    is_picture,
    read_picture,
)

RAMP = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (20, 1))
COLORS = np.stack([RAMP, RAMP[:, ::-1], 255 - RAMP], -1)
D50 = (0.9642, 1.0, 0.8249)
PRIMARIES = {  # of sRGB, adapted to D50
    "r": (0.4361, 0.2225, 0.0139),
    "g": (0.3851, 0.7169, 0.0971),
    "b": (0.1431, 0.0606, 0.7139),
}


@pytest.fixture(autouse=True)
def no_warnings():
    """Of what is read without loss."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path, **options) -> np.ndarray:
    """(H, W, 3) in [0, 255]."""
    x = read_picture(path, **options)
    assert x.dtype == torch.float32 and x.shape[:2] == (1, 3)
    return x[0].permute(1, 2, 0).numpy() * 255


def tiff(path, samples, tags=None, order="<", planar=False, deflate=False):
    """A TIFF of samples (H, W, C), packed already where they are bytes.

    Args:
        tags: Beside, or instead of, what the samples say.
    """
    values = np.asarray(samples)
    height, width, channels = values.shape
    bits = values.dtype.itemsize * 8
    planes = np.moveaxis(values, -1, 0) if planar else [values]
    strips = [np.ascontiguousarray(p, p.dtype.newbyteorder(order)) for p in planes]
    strips = [s.tobytes() for s in strips]
    if deflate:
        strips = [zlib.compress(s) for s in strips]
    fields = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [8 if deflate else 1],
        262: [2 if channels > 2 else 1], 277: [channels], 278: [height],
        284: [2 if planar else 1], **(tags or {}),
    }  # fmt: skip
    fields[273], fields[279] = [0] * len(strips), [len(s) for s in strips]
    kind = {273: "I", 279: "I", 34675: "B"}
    count = len(fields)
    after = 8 + 2 + 12 * count + 4

    def packed(tag):
        return struct.pack(
            f"{order}{len(fields[tag])}{kind.get(tag, 'H')}", *fields[tag]
        )

    place = after + sum(len(packed(t)) for t in fields if len(packed(t)) > 4)
    fields[273] = [place + sum(map(len, strips[:i])) for i in range(len(strips))]
    head, extra = b"", b""
    for tag in sorted(fields):
        data = packed(tag)
        code = {"H": 3, "I": 4, "B": 7}[kind.get(tag, "H")]
        head += struct.pack(f"{order}HHI", tag, code, len(fields[tag]))
        if len(data) > 4:
            head += struct.pack(f"{order}I", after + len(extra))
            extra += data
        else:
            head += data.ljust(4, b"\0")
    start = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, count)
    path.write_bytes(start + head + bytes(4) + extra + b"".join(strips))
    return path


def png(path, samples, color, bits, chunks=()):
    """A PNG of big-endian rows of bytes, or of 16-bit samples."""
    values = np.asarray(samples)
    height, width = values.shape[0], values.shape[1] * (8 // bits if bits < 8 else 1)
    rows = values.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for name, content in (
        (b"IHDR", head), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b""),
    ):  # fmt: skip
        crc = zlib.crc32(name + content)
        out += struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)
    path.write_bytes(out)
    return path


def icc(space: str, tags: dict[str, bytes], pcs: str = "XYZ ") -> bytes:
    """An ICC profile of version 2."""
    after = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sII", name.encode(), after + len(content), len(data))
        content += data
    head = struct.pack(
        ">III4s4s4s12x4s28x3i", after + len(content), 0, 0x02400000, b"mntr",
        space.encode(), pcs.encode(), b"acsp", *(round(v * 65536) for v in D50),
    )  # fmt: skip
    return head.ljust(128, b"\0") + table + content


def xyz(values) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(v * 65536) for v in values))


def curve(*values: int) -> bytes:
    return struct.pack(f">4s4xI{len(values)}H", b"curv", len(values), *values)


def rgb_profile(order: str, tabulated: bytes) -> bytes:
    """sRGB, its primaries in another order."""
    own = {f"{c}XYZ": xyz(PRIMARIES[p]) for c, p in zip("rgb", order, strict=True)}
    curves = {f"{c}TRC": tabulated for c in "rgb"}
    return icc("RGB ", {"wtpt": xyz(D50), **own, **curves})


def cmyk_profile() -> bytes:
    """Where any ink is black, and none is white."""
    clut = [255, 128, 128] + 15 * [0, 128, 128]  # L*a*b*
    head = struct.pack(">4s4xBBBx9i", b"mft1", 4, 3, 2, *(65536, 0, 0, 0) * 2, 65536)
    tables = bytes(range(256))
    lut = head + 4 * tables + bytes(clut) + 3 * tables
    return icc("CMYK", {"wtpt": xyz(D50), "A2B0": lut}, "Lab ")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
AS_SRGB = np.linspace(0, 1, 1024)
AS_SRGB = np.where(
    AS_SRGB < 0.04045, AS_SRGB / 12.92, ((AS_SRGB + 0.055) / 1.055) ** 2.4
)
AS_SRGB = curve(*(AS_SRGB * 65535).round().astype(int))
SWAPPED = rgb_profile("grb", AS_SRGB)
LINEAR_GRAY = icc("GRAY", {"wtpt": xyz(D50), "kTRC": curve(256)})


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    picture = Image.fromarray(RAMP).convert("RGB").convert(mode)
    picture.save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    (path,) = tmp_path.iterdir()
    x = read_picture(path)
    expected = np.asarray(picture.convert("RGB"))[None] / 255
    assert x.shape == (1, 3, 20, 60)
    assert np.allclose(x.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_16_bits_are_kept(tmp_path):
    values = np.arange(1200, dtype=np.uint16).reshape(20, 60) * 54
    Image.fromarray(values).save(tmp_path / "x.png")
    x = read_picture(tmp_path / "x.png")
    assert np.allclose(x[0, 1].numpy(), values / 65535, atol=1e-7)


def test_transparency_lies_over_white(tmp_path):
    rgba = np.dstack([COLORS, np.zeros_like(RAMP)])
    rgba[0, 0, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "x.png")
    x = read_picture(tmp_path / "x.png")
    assert (x[..., 1:, 1:] == 1).all() and x[0, 1, 0, 0] == COLORS[0, 0, 1] / 255


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(COLORS).save(tmp_path / "x.png", exif=exif)
    x = read_picture(tmp_path / "x.png")
    expected = np.rot90(COLORS, -1).transpose(2, 0, 1) / 255
    assert np.allclose(x[0].numpy(), expected, atol=1e-6)


def test_what_is_no_picture_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png: there is no such file"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.png: not a readable picture"):
        read_picture(tmp_path / "text.png")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif: floating-point"):
        read_picture(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), -5, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(ValueError, match=r"i\.tif: signed samples"):
        read_picture(tmp_path / "i.tif")


@pytest.mark.parametrize("profile", [SRGB, rgb_profile("rgb", AS_SRGB)])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_srgb_stays_as_it_is(tmp_path, profile, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    options = {"icc_profile": profile, "lossless": True}
    Image.fromarray(noise).save(tmp_path / f"x.{suffix}", **options)
    assert (pixels(tmp_path / f"x.{suffix}").round() == noise).all()
    expected = torch.from_numpy(noise).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(read_picture(tmp_path / f"x.{suffix}"), expected)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_colors_become_srgb(tmp_path, suffix):
    options = {"icc_profile": SWAPPED, "lossless": True, "quality": 100}
    Image.new("RGB", (8, 8), "red").save(tmp_path / f"x.{suffix}", **options)
    assert np.abs(pixels(tmp_path / f"x.{suffix}") - (0, 255, 0)).max() < 5


def test_colors_with_transparency_become_srgb(tmp_path):
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (255, 0, 0, 0))
    rgba.save(tmp_path / "a.png", icc_profile=SWAPPED)
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "b.png", icc_profile=SWAPPED, transparency=1)
    for name in ("a.png", "b.png"):
        found = pixels(tmp_path / name)
        assert np.abs(found - [(0, 255, 0), (255, 255, 255)]).max() < 3


def test_gray_becomes_srgb(tmp_path):
    Image.new("L", (4, 4), 128).save(tmp_path / "a.png", icc_profile=LINEAR_GRAY)
    Image.new("LA", (4, 4), (128, 255)).save(
        tmp_path / "b.png", icc_profile=LINEAR_GRAY
    )
    deep = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    deep.save(tmp_path / "c.png", icc_profile=LINEAR_GRAY)
    for name in "abc":
        assert np.abs(pixels(tmp_path / f"{name}.png") - 188).max() < 2
    Image.new("L", (4, 4), 128).save(tmp_path / "d.png", icc_profile=SWAPPED)
    assert np.abs(pixels(tmp_path / "d.png") - 128).max() < 2


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_inks_become_srgb(tmp_path, suffix):
    picture = Image.new("CMYK", (16, 8))
    picture.paste((0, 255, 0, 0), (8, 0, 16, 8))
    options = {"quality": 100, "icc_profile": cmyk_profile()}
    picture.save(tmp_path / f"x.{suffix}", **options)
    found = pixels(tmp_path / f"x.{suffix}")
    assert found[:, :8].min() > 250 and found[:, 8:].max() < 5
    picture.save(tmp_path / f"y.{suffix}", quality=100)
    found = pixels(tmp_path / f"y.{suffix}")
    assert found[:, :8].min() > 250
    assert np.abs(found[:, 8:] - (255, 0, 255)).max() < 5


def test_lab_becomes_srgb(tmp_path):
    # White and L* 87.8, a* -80, b* 81, the pure green.
    lab = np.array([[[255, 0, 0], [224, 176, 81]]], np.uint8)
    path = tiff(tmp_path / "x.tif", lab, {262: [8]})
    assert np.abs(pixels(path) - [(255, 255, 255), (0, 255, 0)]).max() < 20


def cicp(path, *numbers):
    """Puts a chunk of numbers behind a PNG's header."""
    data = path.read_bytes()
    chunk = b"cICP" + bytes(numbers)
    chunk = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data[:33] + chunk + data[33:])


def nclx(path, *numbers):
    """Replaces the numbers in an AVIF, which Pillow writes as those of sRGB."""
    data = path.read_bytes()
    place = data.index(b"colrnclx") + 8
    path.write_bytes(data[:place] + struct.pack(">HH", *numbers) + data[place + 4 :])


ORANGE = (200, 120, 60)


@pytest.mark.parametrize(
    ("primaries", "transfer", "shown"),
    [
        (12, 13, (213.0, 115.0, 42.4)),
        (9, 14, (236.8, 104.7, 40.0)),
        (1, 13, ORANGE),
        (2, 2, ORANGE),
        (1, 8, (229.1, 182.5, 133.2)),  # linear
    ],
)
def test_colors_by_number(tmp_path, primaries, transfer, shown):
    orange = Image.new("RGB", (8, 8), ORANGE)
    orange.save(tmp_path / "a.png")
    cicp(tmp_path / "a.png", primaries, transfer, 0, 1)
    assert abs(pixels(tmp_path / "a.png") - shown).max() < 0.1
    orange.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    nclx(tmp_path / "a.avif", primaries, transfer)
    assert abs(pixels(tmp_path / "a.avif") - shown).max() < 3
    deep = np.full((4, 4, 3), ORANGE, ">u2") * 257
    png(tmp_path / "deep.png", deep, color=2, bits=16)
    cicp(tmp_path / "deep.png", primaries, transfer, 0, 1)
    assert abs(pixels(tmp_path / "deep.png") - shown).max() < 0.1


def test_what_comes_first_of_numbers_and_profile(tmp_path):
    picture = Image.fromarray(COLORS)
    picture.save(tmp_path / "a.png", icc_profile=SWAPPED)
    swapped = pixels(tmp_path / "a.png")
    assert not (swapped == COLORS).all()
    cicp(tmp_path / "a.png", 1, 13, 0, 1)
    assert (pixels(tmp_path / "a.png") == COLORS).all()
    picture.save(tmp_path / "b.png", icc_profile=SWAPPED)
    cicp(tmp_path / "b.png", 2, 2, 0, 1)  # unspecified
    assert (pixels(tmp_path / "b.png") == swapped).all()
    picture.save(tmp_path / "a.avif", quality=100, icc_profile=SWAPPED)
    by_profile = pixels(tmp_path / "a.avif")
    assert abs(by_profile - swapped).max() < 9
    nclx(tmp_path / "a.avif", 9, 16)  # which the profile goes before
    assert (pixels(tmp_path / "a.avif") == by_profile).all()


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused(tmp_path, transfer, name):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    cicp(tmp_path / "a.png", 9, transfer, 0, 1)
    Image.fromarray(COLORS).save(tmp_path / "a.avif")
    nclx(tmp_path / "a.avif", 9, transfer)
    for suffix in ("png", "avif"):
        with pytest.raises(ValueError, match=rf"a\.{suffix}: .*dynamic range \({name}"):
            read_picture(tmp_path / f"a.{suffix}")


def test_unknown_numbers_and_narrow_ranges_are_said(tmp_path):
    for name, numbers in {"a": (10, 13, 0, 1), "b": (1, 13, 0, 0)}.items():
        Image.fromarray(COLORS).save(tmp_path / f"{name}.png")
        cicp(tmp_path / f"{name}.png", *numbers)
    with pytest.warns(PictureWarning, match=r"a\.png: .*10 and 13 are not used"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"b\.png: .*narrow range"):
        read_picture(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("profile", "mode", "named"),
    [
        (SWAPPED[:200], "RGB", "not used"),
        (b"rubbish", "L", "not used"),
        (LINEAR_GRAY, "RGB", "one of GRAY, the picture is RGB"),
        (cmyk_profile(), "RGB", "one of CMYK"),
        (SWAPPED, "CMYK", "one of RGB"),
    ],
)
def test_a_profile_that_does_not_fit_is_said(tmp_path, profile, mode, named):
    picture = Image.new("RGB", (8, 8), (70, 70, 70)).convert(mode)
    picture.save(tmp_path / "x.tif", icc_profile=profile)
    with pytest.warns(PictureWarning, match=rf"x\.tif: its color profile .*{named}"):
        found = pixels(tmp_path / "x.tif")
    assert np.abs(found - 70).max() < 1e-4


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_white_may_be_zero(tmp_path, order, deflate):
    options = {"order": order, "deflate": deflate}
    ones = np.array([[[0b11110000]]], np.uint8)
    tags = {256: [8], 258: [1], 262: [0]}
    found = pixels(tiff(tmp_path / "1.tif", ones, tags, **options))
    assert found[0, :, 0].tolist() == 4 * [0] + 4 * [255]
    eight = np.array([[[0], [55], [255]]], np.uint8)
    found = pixels(tiff(tmp_path / "8.tif", eight, {262: [0]}, **options))
    assert np.allclose(found[0, :, 1], [255, 200, 0], atol=1e-4)
    deep = np.array([[[0], [55 * 257], [65535]]], np.uint16)
    path = tiff(tmp_path / "16.tif", deep, {262: [0]}, **options)
    if order == "<":
        assert np.allclose(pixels(path)[0, :, 2], [255, 200, 0], atol=1e-4)
    else:
        with pytest.raises(ValueError, match=r"TIFF: unknown pixel mode.*convert it"):
            read_picture(path)


@pytest.mark.parametrize("deflate", [False, True])
def test_depth_is_the_files_own(tmp_path, deflate):
    packed = np.array([[[0x00], [0x08], [0x00], [0xFF], [0xF0], [0x00]]], np.uint8)
    tags = {256: [4], 258: [12]}  # 0, 0x800, 0xFFF, 0
    found = pixels(tiff(tmp_path / "12.tif", packed, tags, deflate=deflate))
    assert np.allclose(found[0, :, 0], [0, 255 * 0x800 / 0xFFF, 255, 0], atol=1e-4)
    whole = np.array([[[0], [2**31], [2**32 - 1]]], np.uint32)
    found = pixels(tiff(tmp_path / "32.tif", whole, deflate=deflate))
    assert np.allclose(found[0, :, 0], [0, 127.5, 255], atol=1e-4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("dtype", "tag", "named"),
    [
        (np.int8, 2, "signed"),
        (np.int16, 2, "signed"),
        (np.int32, 2, "signed"),
        (np.float32, 3, "floating-point"),
    ],
)
def test_samples_of_unknown_range_are_refused(tmp_path, order, dtype, tag, named):
    values = np.arange(12).reshape(2, 6, 1).astype(dtype)
    path = tiff(tmp_path / "x.tif", values, {339: [tag]}, order=order)
    with pytest.raises(ValueError, match=rf"x\.tif: {named} samples have no known"):
        read_picture(path)


def test_a_float_map_is_refused(tmp_path):
    (tmp_path / "x.pfm").write_bytes(b"Pf\n2 2\n-1.0\n" + bytes(16))
    with pytest.raises(ValueError, match=r"x\.pfm: floating-point samples"):
        read_picture(tmp_path / "x.pfm")


DEEP = np.random.default_rng(1).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
OPACITY = DEEP[..., 3:] / 65535


def on_white(color: np.ndarray, opacity=1.0) -> np.ndarray:
    return 255 * (color / 65535 * opacity + 1 - opacity)


def test_deep_png_keeps_its_bits_and_transparency(tmp_path):
    rgb, gray = DEEP[..., :3], DEEP[..., :1]
    for name, samples, color, expected in (
        ("rgb", rgb, 2, on_white(rgb)),
        ("rgba", DEEP, 6, on_white(rgb, OPACITY)),
        ("la", DEEP[..., [0, 3]], 4, on_white(gray, OPACITY)),
    ):
        found = pixels(png(tmp_path / f"{name}.png", samples, color, 16))
        assert np.allclose(found, expected, atol=1e-4), name
    clear = struct.pack(">H", DEEP[2, 3, 0])
    path = png(tmp_path / "l.png", gray, 0, 16, [(b"tRNS", clear)])
    expected = on_white(gray).repeat(3, -1)
    expected[2, 3] = 255
    assert np.allclose(pixels(path), expected, atol=1e-4)
    clear = struct.pack(">3H", *rgb[2, 3])
    path = png(tmp_path / "c.png", rgb, 2, 16, [(b"tRNS", clear)])
    expected = on_white(rgb)
    expected[2, 3] = 255
    assert np.allclose(pixels(path), expected, atol=1e-4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [False, True])
def test_deep_tiff_keeps_its_bits_and_transparency(tmp_path, order, planar):
    rgb, options = DEEP[..., :3], {"order": order, "planar": planar}
    path = tiff(tmp_path / "rgb.tif", rgb, **options)
    assert np.allclose(pixels(path), on_white(rgb), atol=1e-4)
    path = tiff(tmp_path / "a.tif", DEEP, {338: [2]}, **options)
    assert np.allclose(pixels(path), on_white(rgb, OPACITY), atol=1e-4)
    path = tiff(tmp_path / "z.tif", rgb, **options, deflate=True)
    # Of planes that are packed, Pillow gives only 8 bits.
    assert np.allclose(pixels(path), on_white(rgb), atol=1 if planar else 1e-4)
    if not planar:
        on_black = (rgb * OPACITY).round().astype(np.uint16)
        both = np.concatenate([on_black, DEEP[..., 3:]], -1)
        path = tiff(tmp_path / "p.tif", both, {338: [1]}, order=order)
        assert np.allclose(pixels(path), on_white(rgb, OPACITY), atol=1e-2)


@pytest.mark.parametrize("deflate", [False, True])
def test_planes_that_pillow_mixes_up_are_refused(tmp_path, deflate):
    eight, options = DEEP.astype(np.uint8), {"planar": True, "deflate": deflate}
    for name, samples, tags in (
        ("la", eight[..., :2], {338: [2]}),
        ("lab", eight[..., :3], {262: [8]}),
        ("premultiplied", DEEP, {338: [1]}),
        ("cmyk16", DEEP, {262: [5]}),
    ):
        path = tiff(tmp_path / f"{name}.tif", samples, tags, **options)
        with pytest.raises(ValueError, match="interleaved|convert it"):
            read_picture(path)
    path = tiff(tmp_path / "rgb.tif", eight[..., :3], **options)
    assert np.allclose(pixels(path), eight[..., :3], atol=1e-4)


def test_subsampled_colors_that_are_not_packed_are_refused(tmp_path):
    samples = np.full((4, 4, 3), 128, np.uint8)
    # Or, by an older Pillow, found too short.
    with pytest.raises(ValueError, match=r"x\.tif: (subsampled|.*truncated)"):
        read_picture(tiff(tmp_path / "x.tif", samples, {262: [6]}))
    path = tiff(tmp_path / "y.tif", samples, {262: [6], 530: [1, 1]}, deflate=True)
    assert np.abs(pixels(path) - 128).max() < 2


def test_pillows_own_files_of_one_bit(tmp_path):
    picture = Image.fromarray(RAMP > 120)
    for suffix in ("tif", "png", "xbm", "bmp", "pbm"):
        picture.save(tmp_path / f"x.{suffix}")
        found = pixels(tmp_path / f"x.{suffix}")[..., 0]
        assert ((found > 128) == (RAMP > 120)).all() or suffix == "xbm"


def test_every_turn_is_undone(tmp_path):
    for turn in range(10):
        exif = Image.Exif()
        exif[0x0112] = turn
        path = tmp_path / f"{turn}.png"
        Image.fromarray(COLORS).save(path, exif=exif)
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert (pixels(path).round() == expected).all()


def test_deep_pictures_are_turned_and_made_srgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = png(tmp_path / "x.png", DEEP, 6, 16, [(b"eXIf", exif.tobytes()[6:])])
    expected = np.rot90(on_white(DEEP[..., :3], OPACITY), -1)
    assert np.allclose(pixels(path), expected, atol=1e-4)
    red = np.zeros((2, 2, 3), np.uint16)
    red[..., 0] = 65535
    path = tiff(tmp_path / "x.tif", red, {34675: list(SWAPPED)})
    assert np.abs(pixels(path) - (0, 255, 0)).max() < 3


def test_clear_grays_of_few_bits(tmp_path):
    four = np.array([[0b00011011]], np.uint8)  # grays 0, 1, 2, 3
    path = png(tmp_path / "x.png", four, 0, 2, [(b"tRNS", b"\0\2")])
    assert pixels(path)[0, :, 0].round().tolist() == [0, 85, 255, 255]


def test_premultiplied_gray(tmp_path):
    values = np.array([[[10, 128], [0, 0]]], np.uint8)
    path = tiff(tmp_path / "x.tif", values, {338: [1]})
    if not is_picture(path):
        pytest.skip("this Pillow opens no premultiplied gray TIFF")
    assert np.abs(pixels(path)[0, :, 0] - (10 + 127, 255)).max() < 2


def test_a_png_says_its_gamma(tmp_path):
    half = np.full((1, 1, 3), 128)
    usual = (b"gAMA", struct.pack(">I", 45455))
    places = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    places = (b"cHRM", struct.pack(">8I", *places))
    for chunks in ([usual], [usual, places], [places]):
        assert pixels(png(tmp_path / "x.png", half, 2, 8, chunks))[0, 0, 0] == 128
    linear = (b"gAMA", struct.pack(">I", 100000))
    for chunks in ([linear], [linear, places]):
        found = pixels(png(tmp_path / "x.png", half, 2, 8, chunks))
        assert np.abs(found - 188).max() < 1
    chunks = [linear, (b"sRGB", b"\0")]
    assert pixels(png(tmp_path / "x.png", half, 2, 8, chunks))[0, 0, 0] == 128
    nowhere = (b"cHRM", bytes(32))
    found = pixels(png(tmp_path / "x.png", half, 2, 8, [linear, nowhere]))
    assert np.abs(found - 188).max() < 1
    other = (31270, 32900, 30000, 60000, 64000, 33000, 15000, 6000)  # green is first
    red = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]])
    chunks = [usual, (b"cHRM", struct.pack(">8I", *other))]
    found = pixels(png(tmp_path / "x.png", red, 6, 8, chunks))
    assert np.abs(found - [(0, 255, 0), (255, 255, 255)]).max() < 1


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_further_frames_are_said(tmp_path, suffix):
    frames = [Image.new("RGB", (9, 9), c) for c in ("red", "blue", "lime")]
    options = {"lossless": True}
    frames[0].save(
        tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options
    )
    with pytest.warns(PictureWarning, match="more than one picture, of which"):
        found = pixels(tmp_path / f"x.{suffix}")
    assert (found == (255, 0, 0)).all()
    frames[0].save(tmp_path / f"y.{suffix}", **options)
    pixels(tmp_path / f"y.{suffix}")  # without a warning


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    head = struct.pack(">IIBBBBB", 20000, 10000, 8, 2, 0, 0, 0)
    path = png(tmp_path / "x.png", np.zeros((1, 1, 3)), 2, 8)
    data = bytearray(path.read_bytes())
    data[16:29] = head
    data[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + head))
    path.write_bytes(data)
    with pytest.raises(ValueError, match="20000x10000 .*max_pixels=67108864; raise"):
        read_picture(path)
    with pytest.raises(ValueError, match="not a readable picture") as e:  # it is short
        read_picture(path, max_pixels=2 * 10**8)
    assert "bomb" not in str(e.value)
    Image.new("RGB", (30, 20)).save(tmp_path / "y.png")
    with pytest.raises(ValueError, match="30x20 pixels, more than max_pixels=599"):
        read_picture(tmp_path / "y.png", max_pixels=599)
    assert read_picture(tmp_path / "y.png", max_pixels=600).shape == (1, 3, 20, 30)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "gif", "ico", "bmp"])
def test_pillows_own_limit_is_raised_with_ours(tmp_path, monkeypatch, suffix):
    Image.new("RGB", (60, 60), "red").save(tmp_path / f"x.{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="max_pixels"):
        read_picture(tmp_path / f"x.{suffix}", max_pixels=1000)
    found = pixels(tmp_path / f"x.{suffix}", max_pixels=3600)
    assert (found.mean((0, 1)) > (200, -1, -1)).all()
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_threads_may_read_large_pictures(tmp_path, monkeypatch):
    Image.new("RGB", (60, 60), "red").save(tmp_path / "x.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    failed = []

    def work():
        try:
            for _ in range(20):
                read_picture(tmp_path / "x.tif", max_pixels=3600)
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and Image.MAX_IMAGE_PIXELS == 1000


def eps() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "EPS")
    return out.getvalue()


def test_no_other_program_is_run(tmp_path, monkeypatch):
    def run(*args, **kwargs):
        raise AssertionError(f"ran {args}")

    monkeypatch.setattr(subprocess, "Popen", run)
    for name in ("x.eps", "x.png", "x"):
        (tmp_path / name).write_bytes(eps())
        with pytest.raises(ValueError, match="not a readable picture.*convert it to"):
            read_picture(tmp_path / name)


def test_a_folder_holds_what_is_a_picture_by_content(tmp_path):
    folder = tmp_path / "f"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "folder.png").mkdir()
    (tmp_path / "f/deep/c").write_bytes(b"")
    picture = Image.new("RGB", (8, 8), "red")
    for name in ("b.dat", "deep/c", ".a.png", "._a.jpg", ".hidden/d.png"):
        picture.save(folder / name, "PNG")
    picture.save(folder / "a.JPG")
    picture.save(folder / "e.tga")
    picture.save(folder / "f.gif")
    picture.save(folder / "g.bin", "TGA")  # has no signature
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "notes.txt").write_text("P3 is a kind of picture; #define x")
    (folder / "film.mpg").write_bytes(b"\0\0\1\xb3" + bytes(200))
    (folder / "page.eps").write_bytes(eps())
    (folder / "page.pdf").write_bytes(b"%PDF-1.4")
    (folder / "broken.png").write_bytes(b"")  # promises one
    tiff(folder / "raw.nef", COLORS, {254: [1]})
    found = [str(p.relative_to(folder)) for p in find_pictures(folder)]
    assert found == ["a.JPG", "b.dat", "broken.png", "deep/c", "e.tga", "f.gif"]
    found = [p.name for p in find_pictures(folder, OPENCV, deep=False)]
    assert found == ["a.JPG", "b.dat", "broken.png"]


def test_links_in_folders(tmp_path):
    folder, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (folder / "own").mkdir(parents=True)
    Image.fromarray(COLORS).save(elsewhere / "deep/a.png")
    Image.fromarray(COLORS).save(folder / "own/b.png")
    (folder / "first").symlink_to(folder / "own")  # twice in the folder
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    (folder / "file.png").symlink_to(elsewhere / "deep/a.png")
    (folder / "gone.png").symlink_to(tmp_path / "away.png")
    (folder / "gone").symlink_to(tmp_path / "away")
    (folder / "gone.txt").symlink_to(tmp_path / "away.txt")
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / ".hidden").symlink_to(elsewhere)
    os.mkfifo(folder / "pipe.png")
    found = [str(p.relative_to(folder)) for p in find_pictures(folder)]
    own = ["file.png", "gone", "gone.png", "linked/deep/a.png", "own/b.png"]
    assert found == [*own, "self.png"]
    found = [p.name for p in find_pictures(folder, deep=False)]
    assert found == ["file.png", "gone", "gone.png", "self.png"]
    with pytest.raises(FileNotFoundError, match=r"gone\.png: .*away\.png, its target"):
        read_picture(folder / "gone.png")


def test_thumbnails_are_not_taken_for_the_picture(tmp_path):
    path = tiff(tmp_path / "x.dng", COLORS, {254: [1]})
    with pytest.raises(ValueError, match=r"x\.dng: it begins with a thumbnail"):
        read_picture(path)


@pytest.mark.parametrize(
    "exif",
    [
        b"garbage",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\x02\0\x12\x01\x02\0\x04\0\0\0abc\0\x12\x01",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
    ],
)
def test_wrong_exif_does_not_hide_the_picture(tmp_path, exif):
    Image.fromarray(COLORS).save(tmp_path / "x.jpg", exif=b"Exif\0\0" + exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of the EXIF
        assert read_picture(tmp_path / "x.jpg").shape == (1, 3, 20, 60)


def test_odd_sizes(tmp_path):
    for size in ((1, 1), (65500, 1), (1, 65500)):  # JPEG's most
        for suffix in ("png", "jpg", "tif", "gif"):
            Image.new("RGB", size, "white").save(tmp_path / f"x.{suffix}")
            x = read_picture(tmp_path / f"x.{suffix}")
            assert x.shape == (1, 3, *size[::-1]) and (x > 0.98).all()
    for header in (b"P6 0 5 255\n", b"P5\n3 0\n255\n"):
        (tmp_path / "x.ppm").write_bytes(header)
        with pytest.raises(ValueError, match=r"x\.ppm: .*(empty|not a readable)"):
            read_picture(tmp_path / "x.ppm")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp", "jp2", "bmp"])
def test_cut_files_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"x.{suffix}")
    data = (tmp_path / f"x.{suffix}").read_bytes()
    for share in (0.0, 0.01, 0.2, 0.5, 0.9):
        (tmp_path / f"x.{suffix}").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ValueError, match=rf"x\.{suffix}: not a readable picture"):
            read_picture(tmp_path / f"x.{suffix}")
