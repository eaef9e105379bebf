"""Every kind of image file becomes the right pixels or a clear error."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from surgery.artifact.errors import DataError, ImageError
from surgery.artifact.image import decode_image, decode_size, read_image, read_mask

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def encode(image: Any, format: str = "PNG", **options: Any) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """Write a PNG by hand, for kinds that Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_very_pixels(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = decode_image(encode(RGB, format, **options))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, RGB)


# What each EXIF orientation does to the stored pixels, after the EXIF 2.3 table for tag 274.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, -1)[::-1],
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = decode_image(encode(RGB, format, exif=exif, **options))
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](RGB))
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_in_the_header_is_that_of_the_picture(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(RGB, format, exif=exif)
    height, width, _ = decode_image(data).shape
    assert decode_size(data) == (width, height)


def test_jpeg_orientation_turns_the_picture() -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decode_image(encode(picture, "JPEG", exif=exif))
    assert pixels.shape == (32, 16, 3)
    assert pixels[:14].max() < 10
    assert pixels[18:].min() > 245


def test_broken_exif_leaves_the_picture() -> None:
    data = encode(RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode_image(data), RGB)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_white_of_16_bits_stays_white(format: str) -> None:
    values = np.array([[0, 65535, 257 * 100, 257 * 100 + 128, 257 * 100 + 129]], np.uint16)
    pixels = decode_image(encode(values, format))
    assert pixels[0, :, 0].tolist() == [0, 255, 100, 100, 101]
    assert (pixels == pixels[:, :, :1]).all()


def test_big_endian_tiff_of_16_bits() -> None:
    tags = {256: 2, 257: 1, 258: 16, 259: 1, 262: 1, 273: 200, 277: 1, 278: 1, 279: 4}
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + struct.pack(">I", 0)
    data = head.ljust(200, b"\0") + struct.pack(">HH", 65535, 257 * 7)
    assert decode_image(data)[0, :, 1].tolist() == [255, 7]


def test_16_bit_colour_and_alpha() -> None:
    colour = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 65535, 0, 257 * 9, 0, 0, 0))
    assert decode_image(colour).tolist() == [[[255, 0, 9], [0, 0, 0]]]
    grey_alpha = png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 0, 65535, 0, 0))
    assert decode_image(grey_alpha).tolist() == [[[0] * 3, [255] * 3]]
    clear = chunk(b"tRNS", struct.pack(">H", 1000))
    grey = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 1000, 0), clear)
    assert decode_image(grey).tolist() == [[[255] * 3, [0] * 3]]


def test_unknown_white_is_refused() -> None:
    for kind in (np.float32, np.int32):
        with pytest.raises(ImageError, match="white is not known"):
            decode_image(encode(np.full((2, 2), 70_000, kind), "TIFF"))


def test_grey_is_repeated() -> None:
    pixels = decode_image(encode(GREY))
    np.testing.assert_array_equal(pixels, np.stack([GREY] * 3, axis=2))
    assert decode_image(encode(Image.fromarray(GREY > 99)))[0, 0].tolist() == [255 * (RGB[0, 0, 0] > 99)] * 3


def test_palette_with_transparency_lies_over_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 0, 0, 0])
    image.putdata([0, 1, 2])
    assert decode_image(encode(image)).tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0]]]
    pixels = decode_image(encode(image, transparency=b"\xff\x00\x80"))
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]
    assert decode_image(encode(image, "GIF", transparency=1))[0, 1].tolist() == [255] * 3


def test_alpha_lies_over_white() -> None:
    rgba = np.array([[[9, 9, 9, 255], [9, 9, 9, 0], [0, 0, 0, 51]]], np.uint8)
    for format in ("PNG", "TIFF"):
        pixels = decode_image(encode(rgba, format))
        assert pixels.tolist() == [[[9] * 3, [255] * 3, [204] * 3]]
    grey = Image.fromarray(rgba[:, :, 2:].copy(), "LA")
    assert decode_image(encode(grey)).tolist() == [[[9] * 3, [255] * 3, [204] * 3]]


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode_image(encode(red, "JPEG")).astype(int) - [255, 0, 0]).max() < 6


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert decode_image(data)[0, 0].tolist() == [255, 0, 0], format


def test_extreme_shapes() -> None:
    for shape in ((1, 1, 3), (10, 10_000, 3), (10_000, 10, 3)):
        image = np.full(shape, 7, np.uint8)
        np.testing.assert_array_equal(decode_image(encode(image)), image)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_is_refused(format: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, format)
    with pytest.raises(ImageError, match="image"):
        decode_image(data[: int(len(data) * share)])


def test_truncated_progressive_jpeg_is_refused() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, "JPEG", progressive=True)
    with pytest.raises(ImageError, match="truncated"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, this is no image\n" * 40, "not an image"),
        (b"\0" * 1000, "not an image"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff", "damaged"),
        (b"GIF89a", "damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (png(0, 5, 8, 2, b""), "image"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        decode_image(data, "upload")
    assert caught.value.message.startswith("upload: ")
    assert caught.value.hint
    assert "0x" not in caught.value.message


@pytest.mark.parametrize("format", ["PPM", "ICNS", "PCX", "TGA", "EPS"])
def test_formats_off_the_list_are_refused(format: str) -> None:
    with pytest.raises(ImageError, match="JPEG, PNG"):
        decode_image(encode(Image.new("RGB", (128, 128)), format))


def test_a_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encode(RGB, "PNG"))
    np.testing.assert_array_equal(read_image(path), RGB)


def test_bomb_is_refused_before_it_is_decoded() -> None:
    for side in (10_001, 20_000, 2**31 - 1):
        bomb = png(side, side, 8, 2, b"\0" * 100_000)
        tracemalloc.start()
        with pytest.raises(ImageError, match="pixels"):
            decode_image(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()
    with pytest.raises(ImageError, match="at most 34 are taken"):
        decode_image(encode(RGB), max_pixels=34)
    decode_image(encode(RGB), max_pixels=35)


def test_random_damage_never_lets_another_error_out() -> None:
    noise = np.random.default_rng(2)
    photo = Image.fromarray(noise.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for format in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = encode(photo, format)
        for _ in range(150):
            data = bytearray(whole)
            for place in noise.integers(0, min(len(data), 600), 6):
                data[place] = noise.integers(0, 256)
            try:
                pixels = decode_image(bytes(data))
            except ImageError:
                continue
            assert pixels.ndim == 3
            assert pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["missing.png", ".", "a\0b"])
def test_unreadable_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"cannot be read|not a path"):
        read_image(tmp_path / name)


class TestMasks:
    def write(self, folder: Path, data: bytes) -> Path:
        (folder / "mask").write_bytes(data)
        return folder / "mask"

    def test_palette_gives_indices(self, tmp_path: Path) -> None:
        values = np.array([[0, 1, 2, 11]], np.uint8)
        image = Image.fromarray(values, "P")
        image.putpalette([200, 100, 50] * 12)
        for format in ("PNG", "BMP", "TIFF"):
            mask = read_mask(self.write(tmp_path, encode(image, format)))
            assert mask.tolist() == values.tolist()

    def test_gif_gives_indices(self, tmp_path: Path) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 255, 255, 255])
        image.putdata([0, 1])
        assert read_mask(self.write(tmp_path, encode(image, "GIF"))).tolist() == [[0, 1]]

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_grey_of_few_bits_keeps_its_values(self, tmp_path: Path, bits: int) -> None:
        values = list(range(min(2**bits, 16)))
        row = b"\0" + int("".join(f"{value:0{bits}b}" for value in values).ljust(8, "0"), 2).to_bytes(
            max(1, len(values) * bits // 8), "big"
        )
        data = png(len(values), 1, bits, 0, row)
        assert read_mask(self.write(tmp_path, data)).tolist() == [values]

    def test_16_bits_keep_their_values(self, tmp_path: Path) -> None:
        mask = read_mask(self.write(tmp_path, encode(np.array([[0, 300, 65535]], np.uint16))))
        assert mask.dtype == np.uint16
        assert mask.tolist() == [[0, 300, 65535]]

    def test_colour_stays_colour(self, tmp_path: Path) -> None:
        np.testing.assert_array_equal(read_mask(self.write(tmp_path, encode(RGB))), RGB)

    @pytest.mark.parametrize(
        "data", [b"", b"text", encode(RGB)[:60], encode(np.full((2, 2), 0.5, np.float32), "TIFF")]
    )
    def test_what_is_no_mask_is_refused(self, tmp_path: Path, data: bytes) -> None:
        with pytest.raises(DataError, match="mask"):
            read_mask(self.write(tmp_path, data))
        with pytest.raises(DataError, match="mask"):
            read_mask(tmp_path / "missing.png")
