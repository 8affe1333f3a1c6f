"""What a picture may cost: no kind of file takes memory or time out of proportion, and what decides nothing refuses nothing."""

import contextlib
import io
import os
import struct
import sys
import zlib

import pytest
from picture_limits import load_limited
from PIL import Image, ImageChops, ImageCms, ImageFile, PngImagePlugin

from pipelines.images import ImageError, image_size, load_image

needs_limits = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits of a process are Linux's")
MIB = 2**20


def encode(image, fmt="PNG", **options):
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def photo(size=(70, 50)):
    ramp = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", [ramp, ramp.rotate(180), Image.radial_gradient("L").resize(size)])


PNG, JPEG, GIF = encode(photo()), encode(photo(), "JPEG", quality=95), encode(photo(), "GIF")
GIF_START = 13 + 768


def deep_png(color, bits, row):
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(row)) for _ in range(7990)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7990, 7990, bits, color, 0, 0, 0))
    nothing = chunk(b"tRNS", b"\0\1") if color == 0 else b""
    return b"\x89PNG\r\n\x1a\n" + header + nothing + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff(entries, body=b""):
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + body


def tiff_in_strips():
    count, size = 7_900_000, 8 + 2 + 9 * 12 + 4
    tags = [(256, 4, 1, 8), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, count, size)]
    return tiff([*tags, (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, 8)], struct.pack("<I", 8) * count)


def tiff_of_overlapping_tags():
    """5000 tags that all hold the same 30 MiB."""
    tags = [(256, 4, 1, 2), (257, 4, 1, 2), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 90_000)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 2), (279, 4, 1, 4)]
    return tiff([*tags, *((40_000 + i, 1, 30 * MIB, 8) for i in range(5000))], bytes(31 * MIB))


def jpeg_of_scans(number):
    """A progressive JPEG that repeats its first scan."""
    whole = encode(photo((640, 480)), "JPEG", progressive=True)
    start = whole.index(b"\xff\xda")
    end = whole.index(b"\xff\xc4", start)
    return whole[:end] + whole[start:end] * number + whole[end:]


def gif_comment(mib):
    return GIF[:GIF_START] + b"\x21\xfe" + (b"\xff" + b"a" * 255) * (mib * 4096) + b"\0" + GIF[GIF_START:]


def rle_bmp(records):
    """A run-length encoded BMP whose records hold no pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, 8000, 8000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + header + bytes(1024) + b"\0\4abcd" * records


def with_exif(fmt, exif):
    return encode(photo(), fmt, exif=exif)


OVERLAPPING_EXIF = b"Exif\0\0" + tiff([(40_000 + i, 1, 60_000, 8) for i in range(4000)], bytes(12_000))

SHOWN = {  # what is expensive decides nothing: the picture comes out
    "png text": lambda: PNG[:33] + chunk(b"tEXt", b"a\0" + b"b" * 45 * MIB) + PNG[33:],
    "png chunks": lambda: PNG[:33] + chunk(b"teSt", b"") * 99_000 + PNG[33:],
    "png exif": lambda: PNG[:33] + chunk(b"eXIf", OVERLAPPING_EXIF[6:]) + PNG[33:],
    "jpeg comments": lambda: JPEG[:2] + b"\xff\xfe\0\2" * 99_000 + JPEG[2:],
    "jpeg exif": lambda: JPEG[:2] + (b"\xff\xe1\xff\xffExif\0\0" + b"a" * 65_527) * 700 + JPEG[2:],
    "jpeg exif tags": lambda: with_exif("JPEG", OVERLAPPING_EXIF),
    "webp exif tags": lambda: with_exif("WEBP", OVERLAPPING_EXIF),
    "jpeg fill": lambda: JPEG[:2] + b"\xff" * 45 * MIB + JPEG[2:],
    "gif comment": lambda: gif_comment(16),
    "gif controls": lambda: GIF[:GIF_START] + b"\x21\xf9\4\0\0\0\0\0" * 40_000 + GIF[GIF_START:],
    "tiff tags": tiff_of_overlapping_tags,
    "png of 16-bit greys": lambda: deep_png(0, 16, 1 + 2 * 7990),
    "png of 16-bit colours": lambda: deep_png(6, 16, 1 + 8 * 7990),
}
REFUSED = {
    "png chunks": (lambda: PNG[:33] + chunk(b"teSt", b"") * 4_000_000 + PNG[33:], "chunks"),
    "jpeg segments": (lambda: JPEG[:2] + b"\xff\xe1\0\2" * 11_000_000 + JPEG[2:], "segments"),
    "jpeg scans": (lambda: jpeg_of_scans(5000), "scans"),
    "gif blocks": (lambda: GIF[:GIF_START] + b"\x21\xfe\1a\0" * 9_000_000 + GIF[GIF_START:], "blocks"),
    "tiff strips": (tiff_in_strips, "strips"),
    "ppm text": (lambda: b"P3 4000 4000 255\n" + b"1 " * 20_000_000, "written as text"),
    "ppm comments": (lambda: b"P3 40 40 255\n" + b"#\n" * 20_000_000, "written as text"),
    "ppm samples": (lambda: b"P6 4000 4000 999\n" + bytes(6 * 4000 * 4000)[: 45 * MIB], "samples"),
    "ppm header": (lambda: b"P6\n#" + b"c" * 45 * MIB + b"\n8 8 255\n" + b"x" * 192, "header"),
    "bmp records": (lambda: rle_bmp(7_000_000), "run-length"),
}


@needs_limits
@pytest.mark.parametrize("name", SHOWN)
def test_what_decides_no_pixel_costs_nothing(name):
    said = load_limited([SHOWN[name]()])[0]
    assert said.startswith("RGB"), said


@needs_limits
@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_out_of_proportion_is_refused(name):
    make, reason = REFUSED[name]
    said = load_limited([make()])[0]
    assert said.startswith("refused"), said
    assert reason in said


@needs_limits
@pytest.mark.parametrize("size", [(1, 6_000), (300_000, 1)])
def test_thin_picture_stays_small_in_every_resize(size):
    """Whether a family resizes by the shortest edge or pads to a square."""
    image = load_image(encode(Image.new("L", size)))
    assert max(image.size) <= 200 * min(image.size)
    assert image_size(encode(Image.new("L", size))) == image.size


# Metadata never decides about pixels


def big_metadata():
    xmp, note = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", "<x>" + "history " * 200_000 + "</x>", zip=True)
    note.add_text("Comment", "frame " * 250_000, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(1_500_000)
    return {"XMP": {"pnginfo": xmp}, "text": {"pnginfo": note}, "ICC": {"icc_profile": profile}}


@pytest.mark.parametrize("options", big_metadata().values(), ids=big_metadata())
def test_large_metadata_does_not_cost_the_picture(options):
    assert load_image(encode(photo(), **options)).tobytes() == photo().tobytes()


def test_broken_metadata_does_not_cost_the_picture():
    wrong_sum = chunk(b"zTXt", b"a\0\0garbage")[:-4] + b"\0\0\0\0"
    assert load_image(PNG[:33] + wrong_sum + PNG[33:]).tobytes() == photo().tobytes()
    assert load_image(PNG[:-12] + chunk(b"iCCP", b"x") + PNG[-12:]).tobytes() == photo().tobytes()


def test_broken_pixels_cost_the_picture():
    place = PNG.index(b"IDAT") + 40
    with pytest.raises(ImageError):
        load_image(PNG[:place] + bytes([PNG[place] ^ 255]) + PNG[place + 1 :])


def test_orientation_survives_beside_other_metadata():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9286] = 6, "maker" * 3000, b"note" * 5000
    for fmt in ("PNG", "JPEG", "WEBP"):
        data = encode(photo(), fmt, exif=exif.tobytes())
        assert load_image(data).size == image_size(data) == (50, 70)


# A picture is truncated when pixels are missing


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}, {"keep_rgb": True}]
)
def test_jpeg_without_end_mark_is_whole_or_refused(options):
    whole = encode(photo(), "JPEG", quality=95, **options)
    expected = load_image(whole).tobytes()
    for lost in (1, 2):
        assert load_image(whole[:-lost]).tobytes() == expected
    with pytest.raises(ImageError):
        load_image(whole[: len(whole) * 3 // 4])
    for kept in range(len(whole) - 200, len(whole) - 2):
        with contextlib.suppress(ImageError):  # what is missing may be bits of the rows below the picture's last
            difference = ImageChops.difference(load_image(whole[:kept]), load_image(whole))
            assert max(high for _, high in difference.getextrema()) <= 2


def test_jpeg_cut_between_scans_is_refused():
    whole = encode(photo(), "JPEG", progressive=True)
    scans = [place for place in range(len(whole)) if whole[place : place + 2] == b"\xff\xc4"]
    assert len(scans) > 3
    for place in scans[3:]:
        with pytest.raises(ImageError):
            load_image(whole[:place])


def test_jpeg_filled_up_with_zeros_is_refused():
    half = JPEG[: len(JPEG) // 2]
    with pytest.raises(ImageError):
        load_image(half + bytes(len(JPEG)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# Transparency


def test_hidden_colours_come_out_only_where_nobody_looks():
    image = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    data = encode(image)
    assert load_image(data).tobytes() == image.tobytes()
    shown = load_image(data, background="white")
    assert shown.mode == "RGB"
    assert [shown.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (255, 0, 0), (127, 127, 127)]
    assert load_image(JPEG, background="white").tobytes() == load_image(JPEG).tobytes()


# True reasons


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>404", "web page"),
        (b"<!-- x -->\n<HTML>", "web page"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b'{"error": "not found"}', "JSON"),
        (b"PK\3\4", "archive"),
        (bytes(5000), "zero bytes"),
        (b"\0\0\0\x18ftypmp42" + bytes(99), "video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"some words", "no format that is read here"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(data, reason, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    for read in (load_image, image_size):
        with pytest.raises(ImageError, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert str(path) not in caught.value.reason


def test_heic_is_read_or_its_reader_is_named():
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        with pytest.raises(ImageError, match="pip install pillow-heif"):
            load_image(heic)
        with pytest.raises(ImageError) as caught:
            load_image(b"some words")
        assert "HEIF" not in str(caught.value)
    else:
        with pytest.raises(ImageError, match="cannot be read"):
            load_image(heic)


def test_data_uri_is_not_quoted():
    with pytest.raises(ImageError) as caught:
        load_image("data:image/png;base64,c29tZSB3b3Jkcw==")
    assert str(caught.value).startswith("Picture in a data: URI of 38 characters: no format")


# The worker


@pytest.mark.skipif("AVIF" not in Image.registered_extensions().values(), reason="this Pillow has no AVIF")
def test_avif_comes_from_the_worker_upright_and_within_its_limits():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photo(), "AVIF", exif=exif.tobytes(), quality=90)
    assert image_size(data) == load_image(data).size == (50, 70)
    assert load_image(data, background="white").mode == "RGB"
    with pytest.raises(ImageError, match="is 3500 pixels, allowed are 99"):
        load_image(data, max_pixels=99)
    with pytest.raises(ImageError):
        load_image(data[:-40])


def test_worker_that_dies_is_an_image_error(monkeypatch):
    from pipelines import image_worker

    monkeypatch.setattr(image_worker, "_BOOT", "import os; os.abort()")
    with pytest.raises(ImageError, match="needs more than"):
        image_worker.ask({}, b"")
    monkeypatch.setattr(
        image_worker, "_BOOT", "import resource as r; from pipelines.image_worker import _limit; _limit(); bytes(3 * 2**30)"
    )
    monkeypatch.setattr(image_worker.sys, "path", [os.getcwd(), *sys.path])
    with pytest.raises(ImageError, match="needs more than"):
        image_worker.ask({}, b"")
