"""Pictures from anywhere to upright RGB, and from RGB to the numbers a vision tower reads."""

from __future__ import annotations

import io
import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageOps, UnidentifiedImageError

from llavakit.config import ViewMode, VisionConfig

MAX_SIDE = 65_535  # the longest side a JPEG can have; keeps the memory of a thin, endless picture bounded
_THIN = 16  # pictures beyond this aspect ratio go ways that need not equal the published numbers to the last bit
_STRIP_PIXELS = 1 << 22  # of a padded square held at once
_ORIENTATION = 0x0112
_WHITE = (255, 255, 255)

# Pictures of these kinds are read. Others that Pillow knows are documents or have no use here; EPS starts a program.
# fmt: off
_KINDS = ("AVIF", "BMP", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI",
          "TGA", "TIFF", "WEBP")
# fmt: on

# What people mistake for a picture: the first bytes, and what to call it.
_LOOK_ALIKES = (
    (re.compile(rb"\s*<(!doctype\s+html|html)", re.I), "a web page"),
    (re.compile(rb"\s*(<\?xml.*)?<svg", re.I | re.S), "an SVG drawing, which has no pixels; export it as PNG"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"%!PS"), "a PostScript document"),
    (re.compile(rb"....ftyp(hei|hev|mif|msf)", re.S), "a HEIC photo; export it as JPEG"),
    (re.compile(rb"....ftypavi", re.S), "a damaged AVIF picture"),
    (re.compile(rb"....ftyp|\x1a\x45\xdf\xa3", re.S), "a video"),
    (re.compile(rb"\x89PNG"), "a damaged PNG picture"),
    (re.compile(rb"\xff\xd8\xff"), "a damaged JPEG picture"),
    (re.compile(rb"GIF8"), "a damaged GIF picture"),
    (re.compile(rb"RIFF....WEBP", re.S), "a damaged WebP picture"),
    (re.compile(rb"II\*\0|MM\0\*"), "a damaged TIFF picture or a camera's raw file; export it as JPEG"),
    (re.compile(rb"PK\x03\x04"), "a zip archive or an office document"),
    (re.compile(rb"\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ"), "a compressed archive"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer; run git lfs pull"),
    (re.compile(rb"[\t\r\n -~]{16}"), "text"),
)


class ImageError(ValueError):
    """A picture that cannot be used; the message says which one and what is wrong with it."""


def open_image(source: str | Path | bytes | BinaryIO | Image.Image) -> Image.Image:
    """Read the first frame of a picture as it is meant to be seen: upright, RGB, transparent parts over white.

    A Pillow image that is already so is returned itself, not copied. Raises `ImageError` with a sentence for the
    user: missing, a folder, empty, no image, cut off, or too large to be meant seriously.
    """
    if isinstance(source, Image.Image):
        return _finish(source, "The picture")
    if isinstance(source, str | Path):
        with _file(source) as file:
            return _decode(file, f"The picture {str(source)!r}")
    return _decode(io.BytesIO(source if isinstance(source, bytes) else source.read()), "The picture")


def _file(path: str | Path) -> BinaryIO:
    """The file to read from; a pipe, which can be read only once, is read whole."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - the caller closes it
        if file.seekable():
            return file
        with file:
            return io.BytesIO(file.read())
    except FileNotFoundError:
        if str(path).startswith(("http://", "https://")):
            raise ImageError(f"The picture {str(path)!r} is a web address; download it and give the file.") from None
        raise ImageError(f"There is no picture {str(path)!r}.") from None
    except IsADirectoryError:
        raise ImageError(f"{str(path)!r} is a folder, not a picture.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"The picture {str(path)!r} cannot be read: {reason}.") from None


def _decode(stream: BinaryIO, name: str) -> Image.Image:
    head = stream.read(256)
    if not head:
        raise ImageError(f"{name} is empty: it has no bytes at all.")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on and refuses at the limit: we only refuse.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=_kinds())
    except UnidentifiedImageError:
        kind = next((kind for pattern, kind in _LOOK_ALIKES if pattern.match(head)), None)
        guess = f": it looks like {kind}." if kind else ", or of a kind that is not known here."
        raise ImageError(f"{name} is not an image{guess}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {_bomb(error)}") from None
    except Exception as error:  # decoders of foreign bytes fail in every way there is
        raise ImageError(f"{name} is broken: {str(error).rstrip('.')}.") from error
    return _finish(image, name)


@lru_cache(maxsize=1)
def _kinds() -> tuple[str, ...]:
    """Those of our kinds that this build of Pillow has."""
    Image.init()
    return tuple(kind for kind in _KINDS if kind in Image.OPEN)


def _bomb(error: Image.DecompressionBombError) -> str:
    size, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
    return f"it has {size:,} pixels, and at most {limit:,} are read."


def _finish(image: Image.Image, name: str) -> Image.Image:
    """Decode, turn upright and bring to RGB."""
    width, height = image.size
    if min(width, height) < 1:
        raise ImageError(f"{name} has {width}x{height} pixels: there is nothing to see.")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name} has {width}x{height} pixels; a side may have at most {MAX_SIDE:,}.")
    try:
        image.load()
        return _rgb(_upright(image))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {_bomb(error)}") from None
    except Exception as error:  # decoders of foreign bytes fail in every way there is
        reason = "the file is cut off" if "truncated" in str(error) else str(error).rstrip(".")
        raise ImageError(f"{name} is broken: {reason}.") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # unreadable notes about a picture are no reason to refuse the picture
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB; 16-bit and float values are scaled, not cut off as Pillow's own conversion does."""
    if image.mode == "I" or image.mode.startswith("I;16") or image.mode == "F":
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("La", "RGBa"):  # alpha already multiplied in
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        if layer.getextrema()[3] != (255, 255):
            paper = Image.new("RGBA", layer.size, _WHITE)
            layer = Image.alpha_composite(paper, layer)
        return layer.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Grey values of 16 bits, 32 bits or floats as bytes.

    Modes `I` and `F` do not say what their white is: 1.0 (floats), 255 and 65535 are taken where the values fit,
    and anything else is stretched from its own darkest to its own brightest.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16"):
        low, high = 0, 65535
    else:
        whites = (1, 255, 65535) if image.mode == "F" else (255, 65535)
        fitting = [white for white in whites if low >= 0 and high <= white]
        low, high = (0, fitting[0]) if fitting else (low, high)
    scale = 255 / ((high - low) or 1)  # a stretch of one single grey is black
    return np.rint((values - low) * scale).astype(np.uint8)


def view_of(width: int, height: int, size: int, resize_mode: ViewMode) -> tuple[float, float, float, float]:
    """Where `preprocess` puts a picture's points: what x and y are multiplied by, then what is added to each."""
    if resize_mode == "stretch":
        return size / width, size / height, 0, 0
    if resize_mode == "pad":
        side = max(width, height)
        scale = size / side
        return scale, scale, (side - width) // 2 * scale, (side - height) // 2 * scale
    _, (left, top) = _middle(width, height, size)
    scale = size / min(width, height)
    return scale, scale, -left, -top


def preprocess(image: Image.Image, vision: VisionConfig, resize_mode: ViewMode) -> Float32[np.ndarray, "3 size size"]:
    """An RGB picture as the tower was trained to see it: resized on bytes, then scaled and normalised.

    `square` cuts the middle out (CLIP: shortest edge to `image_size`, centre crop), `pad` keeps everything on a
    square of the mean colour (upstream: expand2square), `stretch` gives up the proportions (SigLIP). Bicubic, as
    Pillow does it. Raises ValueError if not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"preprocess takes an RGB picture, not mode {image.mode!r}; open_image makes one.")
    if resize_mode == "pad":
        fill = tuple(int(255 * mean) for mean in vision.image_mean)
        view = _pad(image, vision.image_size, fill)
    elif resize_mode == "stretch":
        view = image.resize((vision.image_size, vision.image_size), Image.Resampling.BICUBIC)
    else:
        view = _crop(image, vision.image_size)
    return normalise(np.asarray(view), vision.image_mean, vision.image_std)


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Shortest edge to `size`, centre crop."""
    width, height = image.size
    (new_width, new_height), (left, top) = _middle(width, height, size)
    if max(width, height) > _THIN * min(width, height):
        # Only the part that stays, equal but for the last bit of rounding.
        x, y = width / new_width, height / new_height
        box = (left * x, top * y, (left + size) * x, (top + size) * y)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def _middle(width: int, height: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size of a picture whose shortest edge becomes `size`, and where its middle square begins."""
    short = min(width, height)
    new_width, new_height = int(size * width / short), int(size * height / short)
    return (new_width, new_height), ((new_width - size) // 2, (new_height - size) // 2)


def _pad(image: Image.Image, size: int, fill: tuple[int, ...]) -> Image.Image:
    """A square of the longer side with the picture in its middle, resized to `size`.

    Pillow resizes a square along its rows, then along its columns. Doing the two by hand gives the same bytes
    without ever holding the square: rows above and below the picture are of one colour and need no first step,
    and the others go through it in strips.
    """
    width, height = image.size
    if height > _THIN * width:  # rows are mostly fill: columns first is a thousand times less work
        turn = Image.Transpose.TRANSPOSE
        return _pad(image.transpose(turn), size, fill).transpose(turn)
    side = max(width, height)
    column = Image.new("RGB", (size, side), fill)
    if width == side:
        column.paste(image.resize((size, height), Image.Resampling.BICUBIC), (0, (side - height) // 2))
    else:
        num_rows = max(1, _STRIP_PIXELS // side)
        for y in range(0, height, num_rows):
            strip = Image.new("RGB", (side, min(num_rows, height - y)), fill)
            strip.paste(image.crop((0, y, width, y + strip.height)), ((side - width) // 2, 0))
            column.paste(strip.resize((size, strip.height), Image.Resampling.BICUBIC), (0, y))
    return column.resize((size, size), Image.Resampling.BICUBIC)


@lru_cache(maxsize=8)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What turns a byte into its normalised value: (byte / 255 - mean) / std = byte * scale - shift."""
    scale, shift = 1 / (255 * np.array(std)), np.array(mean) / np.array(std)
    return scale.astype(np.float32)[:, None, None], shift.astype(np.float32)[:, None, None]


def normalise(view: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Float32[np.ndarray, "3 size size"]:
    """The bytes of one view, rows of RGB, as the tower reads them."""
    scale, shift = _scale_and_shift(mean, std)
    pixels = np.empty((3, *view.shape[:2]), np.float32)
    pixels[...] = view.transpose(2, 0, 1)
    pixels *= scale
    pixels -= shift
    return pixels
