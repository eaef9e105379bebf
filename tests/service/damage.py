"""Images that are damaged, lie about themselves, are odd, or are none: the same for the same seed."""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

SIZE = (64, 48)
SIDE_OF_A_BOMB = 20_000
Chance = random.Random


def damaged(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield kinds and bytes, every kind in turn; some of the odd ones are whole images.

    Args:
        seed: The same seed gives the same bytes.
        count: How many.
    """
    chance = Chance(seed)
    kinds = [*KINDS]
    for number in range(count):
        if number % len(kinds) == 0:
            chance.shuffle(kinds)
        kind = kinds[number % len(kinds)]
        yield kind, KINDS[kind](chance)


@functools.cache
def whole() -> dict[str, bytes]:
    """Return small images of every format that is taken, whole ones, made from one picture."""
    grid = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(grid).resize(SIZE, Image.Resampling.BICUBIC)
    frames = [picture.rotate(30 * turn) for turn in range(4)]
    return {
        "jpeg": _saved(picture, "JPEG", quality=90),
        "progressive jpeg": _saved(picture, "JPEG", progressive=True),
        "png": _saved(picture, "PNG"),
        "palette png": _saved(picture.quantize(16), "PNG", transparency=3),
        "gif": _saved(picture, "GIF"),
        "animated gif": _saved(picture, "GIF", save_all=True, append_images=frames),
        "webp": _saved(picture, "WEBP"),
        "lossless webp": _saved(picture, "WEBP", lossless=True),
        "animated webp": _saved(picture, "WEBP", save_all=True, append_images=frames),
        "bmp": _saved(picture, "BMP"),
        "tiff": _saved(picture, "TIFF"),
        "packed tiff": _saved(picture, "TIFF", compression="tiff_lzw"),
    }


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _any(chance: Chance) -> bytes:
    return chance.choice([*whole().values()])


def flip_bits(chance: Chance) -> bytes:
    data = bytearray(_any(chance))
    for _ in range(chance.randint(1, 40)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def flip_the_header(chance: Chance) -> bytes:
    data = bytearray(_any(chance))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(min(64, len(data)))] = chance.randrange(256)
    return bytes(data)


def truncate(chance: Chance) -> bytes:
    data = _any(chance)
    return data[: chance.randrange(1, len(data))]


def drop_the_middle(chance: Chance) -> bytes:
    data = _any(chance)
    start, end = sorted(chance.sample(range(1, len(data)), 2))
    return data[:start] + data[end:]


def insert_bytes(chance: Chance) -> bytes:
    data, at = _any(chance), chance.randrange(64)
    return data[:at] + chance.randbytes(chance.randint(1, 200)) + data[at:]


def header_and_garbage(chance: Chance) -> bytes:
    return _any(chance)[: chance.randint(4, 60)] + chance.randbytes(chance.randint(0, 4000))


def head_of_one_and_tail_of_another(chance: Chance) -> bytes:
    first, second = _any(chance), _any(chance)
    return first[: len(first) // 2] + second[len(second) // 2 :]


def tail_of_garbage(chance: Chance) -> bytes:
    return _any(chance) + chance.randbytes(chance.randint(1, 5000))


def nothing(chance: Chance) -> bytes:
    return b"\0" * chance.choice((0, 0, 1, 1000))


def random_bytes(chance: Chance) -> bytes:
    return chance.randbytes(chance.randint(1, 20_000))


def another_type(chance: Chance) -> bytes:
    """No image, or one of a format that is not taken."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("image.png", whole()["png"])
    return chance.choice(
        (
            archive.getvalue(),
            gzip.compress(whole()["jpeg"], mtime=0),
            b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\ntrailer << /Root 1 0 R >>\n%%EOF",
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"<!DOCTYPE html><html><body><img src='x'></body></html>",
            b'{"image": "http://127.0.0.1/x.png"}',
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + chance.randbytes(200),
            b"8BPS\0\1" + chance.randbytes(60),
            b"\x7fELF\2\1\1" + chance.randbytes(60),
            b"\x80\x04cos\nsystem\n(S'true'\ntR.",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            b"P6 4 4 255\n" + bytes(48),
            _saved(Image.new("RGB", (16, 16)), "ICO"),
            "Straße".encode("utf-16"),
        )
    )


def bomb(chance: Chance) -> bytes:
    """A few bytes that state more pixels than anybody can hold."""
    side = chance.choice((SIDE_OF_A_BOMB, 65_535))
    return chance.choice((_png_bomb, _jpeg_bomb, _gif_bomb, _bmp_bomb, _tiff_bomb))(side)


@functools.cache
def real_bomb() -> bytes:
    """Return a whole PNG of 20,000 × 20,000 black pixels, in a few KB."""
    rows = bytes((SIDE_OF_A_BOMB // 8 + 1) * SIDE_OF_A_BOMB)
    return _png(SIDE_OF_A_BOMB, SIDE_OF_A_BOMB, zlib.compress(rows, 9), depth=1, colour=0)


def _png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2, *before: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *before, _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    stated = len(data) if length is None else length
    return struct.pack(">I", stated) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bomb(side: int) -> bytes:
    return _png(side, side, zlib.compress(bytes(100_000)))


def _jpeg_bomb(side: int) -> bytes:
    data = bytearray(whole()["jpeg"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def _gif_bomb(side: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, side, side) + b"\x00\x02\x02\x4c\x01\x00\x3b"
    return b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + bytes(6) + frame


def _bmp_bomb(side: int) -> bytes:
    data = bytearray(whole()["bmp"])
    data[18:26] = struct.pack("<ii", side, -side)
    return bytes(data)


def _tiff_bomb(side: int) -> bytes:
    return _tiff([(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8),
                  (278, 4, 1, side), (279, 4, 1, 100)], 0)  # fmt: skip


def _tiff(entries: list[tuple[int, int, int, int]], next_page: int) -> bytes:
    """Return a TIFF of one page; `next_page` is where it says that the next one stands."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + table
        + struct.pack("<I", next_page)
        + bytes(100)
    )


def compressed_text(chance: Chance) -> bytes:
    """A PNG whose text or colour profile unpacks to a thousand times its size."""
    packed = _packed(chance.choice((1_000_000, 20_000_000)))
    extra = chance.choice((_chunk(b"zTXt", b"x\0\0" + packed), _chunk(b"iCCP", b"x\0\0" + packed)))
    return _png(4, 4, zlib.compress(bytes(52)), 8, 2, extra)


@functools.cache
def _packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def fake_length(chance: Chance) -> bytes:
    """A part that states another length than it has."""
    kind = chance.choice(("png", "jpeg", "bmp", "tiff", "webp", "gif"))
    data = bytearray(whole()[kind])
    length = chance.choice((0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, chance.randrange(2**32)))
    if kind == "png":
        at = chance.choice([data.index(name) - 4 for name in (b"IHDR", b"IDAT", b"IEND")])
        data[at : at + 4] = struct.pack(">I", length)
    elif kind == "jpeg":
        at = data.index(chance.choice((b"\xff\xdb", b"\xff\xc4", b"\xff\xda"))) + 2
        data[at : at + 2] = struct.pack(">H", length & 0xFFFF)
    elif kind == "bmp":
        at = chance.choice((2, 10, 14, 34))
        data[at : at + 4] = struct.pack("<I", length)
    elif kind == "tiff":
        table = struct.unpack_from("<I", data, 4)[0]
        at = table + 2 + 12 * chance.randrange(struct.unpack_from("<H", data, table)[0])
        data[at + 4 : at + 8] = struct.pack("<I", length)
    elif kind == "webp":
        at = chance.choice((4, 16))
        data[at : at + 4] = struct.pack("<I", length)
    else:
        at = chance.randrange(len(data) // 2, len(data))
        data[at] = length & 0xFF
    return bytes(data)


def huge_exif(chance: Chance) -> bytes:
    """EXIF of the largest size there is, sound or senseless, its table pointing at itself."""
    order = b"Exif\0\0MM\0*\0\0\0\x08"
    turn = struct.pack(">HHIHH", 0x0112, 3, 1, chance.choice((0, 3, 6, 9, 65_535)), 0)
    loop = struct.pack(">HHII", 0x8769, 4, 1, 8)
    table = struct.pack(">H", chance.choice((2, 2, 5000))) + turn + loop + struct.pack(">I", 8)
    filler = chance.choice((bytes, chance.randbytes))(65_000 - len(order + table))
    part = order + table + filler
    segment = b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part
    jpeg = whole()["jpeg"]
    return jpeg[:2] + segment * chance.choice((1, 1, 20)) + jpeg[2:]


def odd_gif(chance: Chance) -> bytes:
    """No frame, a frame outside of the screen, of no size, a hundred of them, or a GIF in a comment."""
    gif = whole()["gif"]
    screen = b"GIF89a" + struct.pack("<HH", 8, 8) + b"\x80\0\0" + bytes(6)
    frame = b"\x02\x02\x4c\x01\x00"
    outside = b"\x2c" + struct.pack("<HHHH", 60_000, 60_000, 8, 8) + b"\0" + frame
    no_size = b"\x2c" + struct.pack("<HHHH", 0, 0, 0, 0) + b"\0" + frame
    comment = b"\x21\xfe" + b"".join(
        bytes([len(part)]) + part for part in (gif[at : at + 255] for at in range(0, len(gif), 255))
    ) + b"\0"  # fmt: skip
    return chance.choice(
        (
            screen + b"\x3b",
            screen + outside + b"\x3b",
            screen + no_size + b"\x3b",
            screen[:6] + bytes(4) + screen[10:] + outside + b"\x3b",
            gif[:-1] + comment + b"\x3b",
            gif[:13] + comment * 50 + gif[13:],
            _many_frames(),
        )
    )


@functools.cache
def _many_frames() -> bytes:
    first, *others = (Image.new("P", (8, 8), number) for number in range(100))
    return _saved(first, "GIF", save_all=True, append_images=others)


def odd_tiff(chance: Chance) -> bytes:
    """Pages that lead in a circle, a page without a size, values that stand outside of the file."""
    small = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 16)]
    outside = [*small[:4], (273, 4, 1000, 0xFFFF_0000), (279, 4, 1000, 0xFFFF_0000)]
    compressed = [*small[:2], (259, 3, 1, chance.choice((5, 7, 8, 50_000, 34_712))), *small[2:]]
    pages = chance.choice((small, small[2:], outside, compressed, [*small, (254, 4, 1, 0)] * 50))
    return _tiff(pages, chance.choice((0, 8, 0xFFFF_FFF0)))


@functools.cache
def oddities() -> tuple[bytes, ...]:
    """Return whole images of unusual modes and sizes."""
    grey = np.arange(64 * 48).reshape(48, 64)
    images = [
        *((Image.new(mode, (16, 16)), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")),
        *((Image.new(mode, (16, 16)), "TIFF") for mode in ("CMYK", "F", "I", "LAB", "YCbCr", "RGBA")),
        *((Image.new("RGB", size, (9, 9, 9)), "PNG") for size in ((1, 1), (1, 9000), (9000, 1), (3, 2000))),
        (Image.new("CMYK", SIZE, (10, 200, 30, 40)), "JPEG"),
        (Image.new("L", SIZE, 90), "JPEG"),
        (Image.fromarray((grey * 21).astype(np.uint16)), "PNG"),
        (Image.fromarray((grey * 21).astype(np.uint16)), "TIFF"),
    ]
    return tuple(_saved(image, kind) for image, kind in images)


def odd(chance: Chance) -> bytes:
    return chance.choice(oddities())


def odd_and_flipped(chance: Chance) -> bytes:
    data = bytearray(chance.choice(oddities()))
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def several_in_one(chance: Chance) -> bytes:
    return b"".join(itertools.islice(iter(lambda: _any(chance), None), chance.randint(2, 5)))


KINDS: dict[str, Callable[[Chance], bytes]] = {
    "bits flipped": flip_bits,
    "header altered": flip_the_header,
    "truncated": truncate,
    "middle missing": drop_the_middle,
    "bytes inserted": insert_bytes,
    "header and garbage": header_and_garbage,
    "two halves": head_of_one_and_tail_of_another,
    "tail of garbage": tail_of_garbage,
    "nothing": nothing,
    "random bytes": random_bytes,
    "another type": another_type,
    "bomb": bomb,
    "real bomb": lambda _: real_bomb(),
    "compressed text": compressed_text,
    "fake length": fake_length,
    "huge EXIF": huge_exif,
    "odd GIF": odd_gif,
    "odd TIFF": odd_tiff,
    "odd": odd,
    "odd and flipped": odd_and_flipped,
    "several in one": several_in_one,
}
