"""pipelines/images.py: every kind of picture comes in right, every kind of hostile input ends in one exception."""

import base64
import contextlib
import io
import os
import struct
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps, features

from pipelines.images import FORMATS, MAX_BYTES, ImageError, image_key, image_size, load_image, to_data_uri


def encode(image, fmt="PNG", **options):
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def picture(mode="RGB", size=(13, 9)):
    """Smooth but different at every pixel, so that a turn, a shift or a half decoded file shows."""
    ramp = Image.linear_gradient("L").resize(size)
    bands = [ramp, ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(90).resize(size), ImageOps.invert(ramp)]
    rgb = Image.merge("RGB", bands)
    if mode == "RGBA":
        rgb.putalpha(ramp)
    return rgb.convert(mode)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def palette_picture():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


def files():
    """One valid file of each kind that Pillow here can write."""
    rgb, rgba, frames = picture(), picture("RGBA"), [picture(size=(13, 9)).rotate(turn) for turn in (90, 180)]
    made = {
        "png": encode(rgb),
        "png-alpha": encode(rgba),
        "png-palette": encode(palette_picture(), transparency=1),
        "png-16-bit": encode(Image.linear_gradient("L").convert("I").point(lambda v: v * 257).convert("I;16")),
        "apng": encode(rgb, save_all=True, append_images=frames),
        "jpeg": encode(rgb, "JPEG", exif=exif(6)),
        "jpeg-progressive": encode(picture(size=(70, 50)), "JPEG", progressive=True),
        "jpeg-cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "gif": encode(rgb, "GIF", save_all=True, append_images=frames),
        "bmp": encode(rgb, "BMP"),
        "tiff": encode(rgba, "TIFF"),
        "ppm": encode(rgb, "PPM"),
    }
    if features.check("libtiff"):
        made["tiff-lzw"] = encode(rgb, "TIFF", compression="tiff_lzw")
    if features.check("webp"):
        made["webp"] = encode(rgb, "WEBP", save_all=True, append_images=frames, lossless=True)
        made["webp-lossy"] = encode(rgba, "WEBP")
    if "AVIF" in Image.registered_extensions().values():
        made["avif"] = encode(rgb, "AVIF", speed=10)
    return made


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


FILES = files()
each_file = pytest.mark.parametrize("data", FILES.values(), ids=FILES)


def assert_same(image, expected):
    assert (image.mode, image.size) == (expected.mode, expected.size)
    assert image.tobytes() == expected.tobytes()


# What comes out


@each_file
def test_every_format_gives_a_plain_first_frame(data):
    image = load_image(data)
    expected = Image.open(io.BytesIO(data))
    assert type(image) is Image.Image
    assert image.mode in ("RGB", "RGBA")
    assert image.info == {}
    assert image.size == ImageOps.exif_transpose(expected).size


@given(st.data(), st.sampled_from(["RGB", "RGBA", "L"]), st.integers(1, 9), st.integers(1, 9))
def test_png_equals_pillows_convert_rgb_bit_for_bit(data, mode, width, height):
    count = width * height * len(mode)
    pixels = data.draw(st.binary(min_size=count, max_size=count))
    file = encode(Image.frombytes(mode, (width, height), pixels))
    image = load_image(file)
    assert image.mode == ("RGBA" if mode == "RGBA" else "RGB")
    assert_same(image.convert("RGB"), Image.open(io.BytesIO(file)).convert("RGB"))
    assert mode == "L" or image.tobytes() == pixels


@pytest.mark.parametrize("source_mode", ["L", "RGB"])
def test_colour_named_transparent_becomes_alpha(source_mode):
    image = picture(source_mode)
    named = image.getpixel((4, 4))
    loaded = load_image(encode(image, transparency=named))
    assert loaded.mode == "RGBA"
    assert loaded.getpixel((4, 4))[3] == 0
    assert loaded.getextrema()[3] == (0, 255)
    assert_same(loaded.convert("RGB"), image.convert("RGB"))


def test_palette_colours_and_its_transparency_are_kept():
    opaque = [(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)]
    loaded = load_image(encode(palette_picture()))
    assert loaded.mode == "RGB"
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [colour[:3] for colour in opaque]
    loaded = load_image(encode(palette_picture(), transparency=1))
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [opaque[0], (0, 255, 0, 0), opaque[2]]
    loaded = load_image(encode(palette_picture(), transparency=bytes([9, 8, 7])))
    assert [loaded.getpixel((x, 0))[3] for x in range(3)] == [9, 8, 7]


def test_grey_with_alpha_and_bilevel():
    loaded = load_image(encode(Image.merge("LA", [picture("L"), picture("L").rotate(180)])))
    assert_same(loaded, Image.merge("RGBA", [picture("L")] * 3 + [picture("L").rotate(180)]))
    bilevel = picture("1")
    assert_same(load_image(encode(bilevel)), bilevel.convert("RGB"))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX", "LAB"])
def test_other_colour_spaces_come_near_their_rgb(mode):
    flat = Image.new("RGB", (8, 8), (200, 120, 40))
    if mode == "LAB":
        flat = Image.new("RGB", (8, 8), (255, 255, 255))
    sources = [flat.convert(mode)]
    if mode == "CMYK":
        sources += [encode(sources[0], "JPEG", quality=95), encode(sources[0], "TIFF")]
    for source in sources:
        near = load_image(source).getpixel((3, 3))
        assert all(abs(a - b) <= 6 for a, b in zip(near, flat.getpixel((3, 3)), strict=True))


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA"])
def test_rare_modes_with_alpha_become_rgba(mode):
    source = picture("RGBA").convert({"La": "LA"}.get(mode, "RGBA")).convert(mode)
    assert load_image(source).mode == "RGBA"


# More than 8 bits


def deep(values, mode="I;16"):
    packed = struct.pack(f"<{len(values)}{ {'I;16': 'H', 'I': 'i', 'F': 'f'}[mode] }", *values)
    width = min(len(values), 26)
    return Image.frombytes(mode, (width, len(values) // width), packed)


def greys(image):
    return list(load_image(image).getchannel("R").tobytes())


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "PPM"])
def test_16_bit_gradient_keeps_order_and_range(fmt):
    values = list(range(0, 65536, 97))  # 26 x 26
    if fmt == "PPM":
        data = b"P5 26 26 65535\n" + struct.pack(f">{len(values)}H", *values)
    else:
        data = encode(deep(values), fmt)
    assert greys(data) == [value >> 8 for value in values]


def test_16_bit_dark_picture_stays_dark():
    assert greys(encode(deep([0, 255, 256, 2560]))) == [0, 0, 1, 10]


def test_16_bit_big_endian_and_signed():
    big = Image.frombytes("I;16B", (3, 1), struct.pack(">3H", 0, 0x8000, 0xFFFF))
    assert greys(encode(big, "TIFF")) == [0, 128, 255]
    assert greys(deep([-32768, 0, 32767], "I")) == [0, 128, 255]


def test_16_bit_transparent_value_is_that_value_only():
    data = encode(deep([999, 1000, 1001, 65535]))
    data = data.replace(data[33:], chunk(b"tRNS", struct.pack(">H", 1000)) + data[33:])
    loaded = load_image(data)
    assert list(loaded.getchannel("A").tobytes()) == [255, 0, 255, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 128, 255], [0, 128, 255]),
        ([0, 65535 / 2, 65535], [0, 128, 255]),
        ([-2, 0, 2], [0, 128, 255]),
        ([0, 1e6], [0, 255]),
        ([-5, -5], [0, 0]),
    ],
)
def test_floats_are_scaled_by_their_range(values, expected):
    assert greys(encode(deep(values, "F"), "TIFF")) == expected


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_floats_without_a_value_are_refused(value):
    with pytest.raises(ImageError, match="NaN or infinity"):
        load_image(deep([value, 1], "F"))


# Orientation, frames


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(fmt, orientation):
    data = encode(picture(), fmt, exif=exif(orientation))
    lying = encode(Image.open(io.BytesIO(encode(picture(), fmt))), exif=exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(lying)))
    loaded = load_image(data)
    assert_same(loaded, upright)
    assert loaded.size == ((9, 13) if orientation >= 5 else (13, 9))
    assert_same(load_image(loaded), loaded)
    assert_same(load_image(Image.open(io.BytesIO(data))), upright)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("broken", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage" * 9])
@pytest.mark.filterwarnings("ignore")
def test_broken_exif_does_not_cost_the_picture(fmt, broken):
    data = encode(picture(), fmt, exif=broken)
    assert_same(load_image(data), Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(fmt):
    first, second = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (6, 4), "blue")
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encode(first, fmt, save_all=True, append_images=[second], **options)
    assert_same(load_image(data).convert("RGB"), first)


# Where it comes from


@each_file
def test_all_sources_of_one_picture_agree(data, tmp_path):
    path = tmp_path / "no suffix, a space"
    path.write_bytes(data)
    text = base64.b64encode(data).decode()
    wrapped = "\r\n ".join(text[i : i + 76] for i in range(0, len(text), 76))
    expected = load_image(data)
    at_end = io.BytesIO(data)
    at_end.seek(0, os.SEEK_END)
    with open(path, "rb") as opened, Image.open(path) as lazily:
        for source in [
            bytearray(data),
            memoryview(data),
            path,
            str(path),
            opened,
            at_end,
            lazily,
            f"data:image/png;base64,{text}",
            f"DATA:;BASE64,{text}",
            f"  data:application/octet-stream;name=a.png; base64,\n{wrapped}\n",
            "data:image/png;base64," + quote_from_bytes(text.encode(), safe=""),
            "data:image/png," + quote_from_bytes(data, safe=""),
        ]:
            assert_same(load_image(source), expected)


def test_stream_that_cannot_seek_and_reads_in_bits_is_read_whole():
    class Stream:
        def __init__(self, data):
            self.file = io.BytesIO(data)

        def read(self, size):
            return self.file.read(min(size, 7))

    assert_same(load_image(Stream(FILES["png"])), picture())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "F"])
def test_pil_image_is_not_changed_and_not_shared(mode):
    source = palette_picture() if mode == "P" else picture("RGBA" if mode == "LA" else "RGB").convert(mode)
    source.info = {"transparency": bytes([1, 2, 3]), "note": 1} if mode == "P" else {"note": 1}
    before = (source.mode, source.size, source.tobytes(), source.getpalette("RGBA"), dict(source.info))
    loaded = load_image(source)
    loaded.paste(0, (0, 0, *loaded.size))
    assert (source.mode, source.size, source.tobytes(), source.getpalette("RGBA"), source.info) == before


@pytest.mark.parametrize("name", ["C:\\pictures\\x.png", "c:/x.png", "12:30:00.png", "screen_shot:1.png"])
def test_colon_in_a_path_makes_no_url(name):
    with pytest.raises(ImageError, match="cannot be opened") as caught:
        load_image(name)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("url", ["http://a/b.png", "https://a", "file:///etc/passwd", "FTP://a", " javascript:1", "s3:x"])
def test_other_schemes_are_refused(url):
    with pytest.raises(ImageError, match="not fetched here"):
        load_image(url)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_file_named_like_a_url_opens_as_path_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:x.png").write_bytes(FILES["png"])
    assert_same(load_image(Path("http:x.png")), picture())


@pytest.mark.parametrize(
    "uri",
    [
        "data:",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,iVBORw0KGgo",  # padding is missing
        "data:image/png;base64,iVBO*Rw0KGgo=",
        "data:image/png;base64,iVBORw0=KGgo",
        "data:image/png;base64,iVBOR%zz0KGgo=",
        "data:image/png;base64,Grüße",
        "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_wrong_data_uris_are_refused(uri):
    with pytest.raises(ImageError):
        load_image(uri)


def test_stray_character_in_base64_is_not_skipped():
    text = base64.b64encode(FILES["png"]).decode()
    with pytest.raises(ImageError, match="wrong data: URI"):
        load_image(f"data:image/png;base64,{text[:40]}!{text[40:]}")


@pytest.mark.parametrize("source", [None, 5, 1.5, [], {}, object(), io.StringIO("text"), b"", "", "a\0b", "\ud800"])
def test_things_that_are_no_pictures_are_refused(source):
    with pytest.raises(ImageError):
        load_image(source)


def test_closed_sources_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(FILES["png"])
    with open(tmp_path / "a.png", "rb") as file, Image.open(tmp_path / "a.png") as lazily:
        pass
    for source in (file, lazily):
        with pytest.raises(ImageError):
            load_image(source)


def test_directories_devices_and_fifos_are_refused_at_once(tmp_path):
    with pytest.raises(ImageError):
        load_image(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path / "fifo", "/dev/zero", "/dev/null"):
            with pytest.raises(ImageError, match="not a regular file"):
                load_image(path)


# Limits


@pytest.mark.parametrize("padding", range(3))
def test_bytes_are_limited_for_every_source(padding, tmp_path):
    data = FILES["bmp"] + bytes(padding)
    (tmp_path / "a.bmp").write_bytes(data)
    uri = "data:image/bmp;base64," + base64.b64encode(data).decode()
    for source in (
        data,
        memoryview(data),
        tmp_path / "a.bmp",
        io.BytesIO(data),
        uri,
        "data:," + quote_from_bytes(data),
    ):
        assert load_image(source, max_bytes=len(data)).size == (13, 9)
        with pytest.raises(ImageError, match=f"more than the {len(data) - 1} bytes"):
            load_image(source, max_bytes=len(data) - 1)


def test_too_many_bytes_are_neither_read_nor_decoded(tmp_path, monkeypatch):
    monkeypatch.delattr(base64, "b64decode")
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    tracemalloc.start()
    try:
        for source in (tmp_path / "sparse.png", "data:;base64," + "A" * 1_000_000, "data:;base64," + "A" * 1_400):
            with pytest.raises(ImageError, match="more than the"):
                load_image(source, max_bytes=MAX_BYTES if isinstance(source, Path) else 1_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_endless_stream_is_left_at_the_limit():
    class Endless:
        given = 0

        def read(self, size):
            self.given += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(ImageError, match="more than the 1000 bytes"):
        load_image(endless, max_bytes=1000)
    assert endless.given == 1001


def bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")


BOMBS = {
    "just-over": bomb(8001, 8000),
    "pillow-warns": bomb(10_000, 10_000),
    "pillow-raises": bomb(30_000, 30_000),
    "largest": bomb(2**31 - 1, 2**31 - 1),
    "gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;",
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": b"P6 999999999 999999999 255 ",
}


@pytest.mark.parametrize("strict", [False, True], ids=["warnings-shown", "warnings-as-errors"])
@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_declared_size_is_refused_before_memory_is_taken(data, strict):
    started, limit = time.perf_counter(), Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings(), pytest.raises(ImageError, match="pixels"):
        warnings.simplefilter("error" if strict else "ignore")
        load_image(data)
    assert time.perf_counter() - started < 5  # it takes about a millisecond
    assert limit == Image.MAX_IMAGE_PIXELS


def test_pixel_limit_holds_for_pil_images_and_is_exact():
    assert load_image(picture(), max_pixels=13 * 9).size == (13, 9)
    with pytest.raises(ImageError, match=r"13 x 9 is 117 pixels, allowed are 116"):
        load_image(picture(), max_pixels=116)
    with pytest.raises(ImageError, match=r"no pixels \(0 x 5\)"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(("size", "squeezed"), [((30_000, 1), (200, 1)), ((2, 401), (2, 400)), ((400, 2), (400, 2))])
def test_absurd_aspect_ratio_is_squeezed(size, squeezed):
    ramp = Image.linear_gradient("L")
    data = encode((ramp.rotate(90) if size[0] > size[1] else ramp).resize(size))
    assert load_image(data).size == image_size(data) == squeezed
    assert load_image(data).getextrema()[0][1] > 200  # nothing is cut off


def test_formats_that_run_programs_are_refused():
    for fmt, said in (("EPS", "PostScript"), ("PDF", "a PDF document"), ("ICO", "an icon")):
        with pytest.raises(ImageError, match=said):
            load_image(encode(picture(), fmt))
    assert not {"EPS", "PDF", "WMF"} & set(FORMATS)


def test_messages_are_short_and_on_one_line():
    for source in ("data:image/png;base64," + "A" * 100_000, "x" * 100_000, b"\0" * 100_000, io.BytesIO(b"BM" * 999)):
        with pytest.raises(ImageError) as caught:
            load_image(source)
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)


# Broken and hostile files


@each_file
@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1))
@pytest.mark.filterwarnings("ignore")
def test_cut_file_is_refused_or_whole(data, cut):
    try:
        image = load_image(data[: int(cut * len(data))])
    except ImageError:
        return
    assert_same(image, load_image(data))


@pytest.mark.parametrize("name", [name for name in FILES if name != "avif"])
@pytest.mark.parametrize("lenient", [False, True], ids=["pillow-strict", "pillow-lenient"])
@pytest.mark.filterwarnings("ignore")
def test_half_a_file_is_refused_whatever_pillows_global_says(name, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    half = FILES[name][: len(FILES[name]) // 4]
    with pytest.raises(ImageError):
        load_image(half)
    with pytest.raises(ImageError):
        load_image(Image.open(io.BytesIO(FILES["ppm"][:200])))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 6))))
@pytest.mark.filterwarnings("ignore")
def test_mutated_file_raises_nothing_but_image_error(name, edits):
    data = bytearray(FILES[name])
    for place, inserted, dropped in edits:
        start = int(place * len(data))
        data[start : start + dropped] = inserted
    with contextlib.suppress(ImageError):
        assert load_image(data, max_pixels=1_000_000).mode in ("RGB", "RGBA")


MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"P6", b"P3 2 2 ", b"RIFF"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=300))
@pytest.mark.filterwarnings("ignore")
def test_random_bytes_raise_nothing_but_image_error(magic, noise):
    with contextlib.suppress(ImageError):
        load_image(magic + noise, max_pixels=1_000_000)


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_random_strings_raise_nothing_but_image_error(text):
    for source in (text, f"data:{text}", f"data:image/png;base64,{text}"):
        with pytest.raises(ImageError):
            load_image(source)


def test_threads_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    good = {name: image_key(load_image(data)) for name, data in FILES.items()}
    cut = FILES["jpeg-progressive"][:-200]

    def work(number):
        name = list(FILES)[number % len(FILES)]
        with pytest.raises(ImageError):
            load_image(cut)
        return image_key(load_image(FILES[name])) == good[name]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


# Keys, data URIs


def test_equal_pixels_have_equal_keys_whatever_the_file():
    keys = {image_key(load_image(encode(picture(), fmt))) for fmt in ("PNG", "BMP", "PPM", "TIFF")}
    assert keys == {image_key(picture())}
    assert image_key(picture("L")) == image_key(picture("L").convert("RGB"))
    assert len(image_key(picture())) == 32


@given(st.binary(min_size=12, max_size=12), st.binary(min_size=12, max_size=12))
def test_keys_differ_where_pixels_size_or_mode_differ(one, other):
    image = Image.frombytes("RGB", (2, 2), one)
    assert (image_key(image) == image_key(Image.frombytes("RGB", (2, 2), other))) == (one == other)
    assert image_key(image) != image_key(Image.frombytes("RGB", (4, 1), one))
    assert image_key(image) != image_key(Image.frombytes("RGBA", (3, 1), one))


def test_palettes_are_part_of_the_key():
    red, blue = palette_picture(), palette_picture()
    blue.putpalette([0, 0, 255] * 3)
    assert image_key(red) != image_key(blue)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_data_uri_comes_back_equal(mode):
    source = picture("RGBA" if mode == "RGBA" else "RGB").convert(mode)
    source.info["exif"] = exif(6)
    assert_same(load_image(to_data_uri(source)), source.convert("RGBA" if mode == "RGBA" else "RGB"))
