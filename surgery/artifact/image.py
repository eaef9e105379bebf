"""Image in: bytes to RGB pixels, and RGB pixels to the size that a network takes."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

# The plugins are imported by name so that Pillow never goes on to import all the others.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from surgery.artifact.errors import DataError, ImageError, PixelsError
from surgery.artifact.manifest import InputSpec

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_PLUGINS = (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels: 300 MB as RGB."""

_CONVERT = f"convert it to one of {', '.join(FORMATS)} (8 bits per channel) and try again."
_ORIENTATION = 0x0112

# Size is checked here from the header, against a bound that the caller states.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What Pillow thinks of damaged metadata is nothing to whoever sent the image, and would fill a server's log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Pixels = NDArray[np.uint8]


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the image in a file as RGB, shape (h, w, 3), uint8.

    Raises:
        ImageError: If the file cannot be read or `decode_image` refuses its bytes.
    """
    return decode_image(_read_bytes(path), str(path), max_pixels)


def decode_image(data: bytes, where: str = "image", max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return an encoded image as RGB, shape (h, w, 3), uint8, maybe read-only.

    The format is recognised by content. The EXIF orientation is applied, the first frame is
    taken, 16-bit grey is scaled to 8 bits, transparency lies over white.

    Args:
        data: The file's bytes.
        where: Name of the image in error messages.
        max_pixels: Largest width times height; checked before anything is decoded.

    Raises:
        ImageError: If the bytes are no whole image of an allowed format; PixelsError if it is too large.
    """
    image = _open(data, where, max_pixels)
    try:
        image.load()
        pixels = _to_rgb(image)
        return _turn_upright(pixels, image)
    except ImageError as error:
        raise ImageError(f"{where}: {error.message}", error.hint) from None
    # Decoders raise whatever they like on damaged bytes; all of it means the same here.
    except Exception as error:
        raise _damaged(where, error) from error


def read_size(path: Path | str) -> tuple[int, int]:
    """Return (width, height) of the image in a file as `read_image` will give it, from its header.

    Raises:
        ImageError: If the file cannot be read or is no image of a known format.
    """
    return decode_size(_read_bytes(path), str(path))


def decode_size(data: bytes, where: str = "image", max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (width, height) of an encoded image as `decode_image` will give it, from its header.

    Raises:
        ImageError: If the bytes are no image of an allowed format; PixelsError if it is too large.
    """
    image = _open(data, where, max_pixels)
    if image.format == "TIFF":  # Pillow has turned the size already
        return image.size
    return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size


def read_mask(path: Path | str) -> NDArray[Any]:
    """Return an index mask as it is stored, shape (h, w), uint8 or uint16.

    Palette images give their indices, grey ones their values, 1-bit ones 0 and 1. A colour
    image is returned as (h, w, 3) uint8, for a colour table to be applied to.

    Raises:
        DataError: If the file is no whole image, or holds no integers.
    """
    where = str(path)
    try:
        image = _open(_read_bytes(path), where, MAX_PIXELS)
        step = _grey_step(image)
        image.load()
        values = _to_values(image, where) // step
        return cast("NDArray[Any]", _turn_upright(values, image))
    except ImageError as error:
        raise DataError(f"mask {error.message}", error.hint) from error
    except DataError:
        raise
    except Exception as error:
        damaged = _damaged(where, error)
        raise DataError(f"mask {damaged.message}", damaged.hint) from error


def input_size(size: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """Return the (width, height) that an image of `size` (width, height) has as input."""
    if spec.size_rule != "native":
        return cast(int, spec.width), cast(int, spec.height)
    width, height = size
    if width * height <= spec.max_pixels:
        return size
    scale = math.sqrt(spec.max_pixels / (width * height))
    # A strip thinner than one pixel is held at one, and its length gives way instead.
    narrow, short = max(1, int(width * scale)), max(1, int(height * scale))
    narrow = max(1, min(narrow, spec.max_pixels // short))
    return narrow, min(short, spec.max_pixels // narrow)


def prepare_image(image: Pixels, spec: InputSpec) -> Pixels:
    """Return the network's input for one image.

    Args:
        image: RGB, shape (h, w, 3), uint8.
        spec: The size rule; see `InputSpec`.

    Returns:
        RGB, shape (H, W, 3), uint8, maybe read-only; the image itself where nothing is to be done.

    Raises:
        ImageError: If `image` is not (h, w, 3) uint8 or is empty.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ImageError(f"image is {image.dtype} {image.shape}; (h, w, 3) uint8 RGB is wanted")
    height, width = image.shape[:2]
    target = input_size((width, height), spec)
    if spec.size_rule != "crop" and target == (width, height):
        return np.ascontiguousarray(image)
    box = crop_box((width, height), spec)
    resized = Image.fromarray(image).resize(target, Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def crop_box(size: tuple[int, int], spec: InputSpec) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom), pixels, of what the input shows of a (width, height) image."""
    width, height = size
    if spec.size_rule != "crop":
        return 0.0, 0.0, float(width), float(height)
    target = input_size(size, spec)
    scale = min(width / target[0], height / target[1]) * spec.crop_share
    box_w, box_h = target[0] * scale, target[1] * scale
    left, top = max(0.0, (width - box_w) / 2), max(0.0, (height - box_h) / 2)
    return left, top, min(left + box_w, width), min(top + box_h, height)


def _read_bytes(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{path}: cannot be read ({reason})", "check the path.") from error
    except ValueError as error:  # a NUL byte in the path
        raise ImageError(f"{path!r}: not a path ({error})", "check the path.") from error


def _damaged(where: str, error: Exception) -> ImageError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ImageError(
        f"{where}: damaged or truncated image ({reason})",
        "get the file again from its source.",
    )


def _open(data: bytes, where: str, max_pixels: int) -> ImageFile.ImageFile:
    """Open by content and check the size; nothing is decoded yet."""
    if not data:
        raise ImageError(f"{where}: empty, 0 bytes", "send or point at an image file.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if data.startswith(_SIGNATURES):
            raise _damaged(where, ValueError("unreadable header")) from error
        raise ImageError(f"{where}: {_describe(data)}", _CONVERT) from error
    except Image.DecompressionBombError as error:
        raise PixelsError(f"{where}: {error}", _too_large(max_pixels)) from error
    except Exception as error:
        raise _damaged(where, error) from error
    width, height = image.size
    if width * height > max_pixels:
        message = f"{where}: {width}×{height} pixels; at most {max_pixels:,} are taken"
        raise PixelsError(message, _too_large(max_pixels))
    if not width * height:
        raise ImageError(f"{where}: {width}×{height} pixels", "send an image that is not empty.")
    return image


_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
)
_OTHER = {
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing",
    b"8BPS": "a Photoshop file",
}


def _describe(data: bytes) -> str:
    """Name what the bytes look like, for the error message."""
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        return f"a {brand.upper()} file; {', '.join(FORMATS)} are taken"
    for start, name in _OTHER.items():
        if data.startswith(start):
            return f"{name}; {', '.join(FORMATS)} are taken"
    return f"not an image of a known format; {', '.join(FORMATS)} are taken"


def _too_large(max_pixels: int) -> str:
    side = math.isqrt(max_pixels)
    return f"scale it down to at most {max_pixels:,} pixels ({side}×{side}) and try again."


def _to_rgb(image: Image.Image) -> Pixels:
    """Return decoded pixels as RGB, shape (h, w, 3)."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode == "F":
        raise ImageError("floating-point pixels, whose white is not known", _CONVERT)
    if image.mode.startswith("I"):
        grey = _grey_of_16_bits(image)
        return np.repeat(grey[:, :, None], 3, axis=2)  # (h, w) -> (h, w, 3)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    clear = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, clear).convert("RGB"))


def _grey_of_16_bits(image: Image.Image) -> Pixels:
    """Scale integers of 16 bits to 8, so that 65535 becomes 255."""
    values = np.asarray(image)
    if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
        raise ImageError("32-bit integer pixels, whose white is not known", _CONVERT)
    grey = (values.astype(np.uint32) + 128) // 257
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return grey.astype(np.uint8)


def _grey_step(image: ImageFile.ImageFile) -> int:
    """Return the factor by which Pillow stretches grey of 2 or 4 bits to 8."""
    rawmode = image.tile[0].args if image.tile else None
    if isinstance(rawmode, tuple):
        rawmode = rawmode[0] if rawmode else None
    return {"L;2": 85, "L;4": 17}.get(str(rawmode), 1)


def _to_values(image: Image.Image, where: str) -> NDArray[Any]:
    """Return the integers that a mask holds: indices, grey values or RGB."""
    if image.mode in ("P", "L"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[:, :, 0]
    if image.mode in ("RGB", "RGBA"):
        return np.asarray(image)[:, :, :3]
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() >= 0 and values.max() <= 65535:
            return values.astype(np.uint16)
    raise DataError(
        f"mask {where}: pixels of mode {image.mode} are no class indices",
        "save it as an 8-bit grey or palette PNG whose values are the classes' indices.",
    )


def _turn_upright(pixels: Pixels, image: Image.Image) -> Pixels:
    """Apply the EXIF orientation, (h, w, …) -> (h, w, …) or (w, h, …)."""
    orientation = _orientation(image)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata of a whole image says nothing about its pixels
        return 1
