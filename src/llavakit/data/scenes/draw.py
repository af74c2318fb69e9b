"""From a scene to pixels. The same scene always gives the same picture."""

import math
from functools import lru_cache
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from .backgrounds import paint
from .fonts import EMOJI, font
from .scene import Item, Scene
from .shapes import outline

_FINE = 3  # shapes are drawn this much larger and shrunk, where the picture is smooth


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene."""
    canvas = paint(scene.background, scene.width, scene.height)
    for item in scene.items:
        if item.kind == "shape":
            _draw_shape(canvas, item, scene.smooth)
        elif item.kind == "thing":
            _draw_thing(canvas, item)
        else:
            _draw_written(canvas, item, scene.smooth)
    return canvas


def _draw_shape(canvas: Image.Image, item: Item, smooth: bool) -> None:
    scale = _FINE if smooth else 1
    left, top, right, bottom = int(item.box[0]) - 1, int(item.box[1]) - 1, int(item.box[2]) + 2, int(item.box[3]) + 2
    middle = ((item.box[0] + item.box[2]) / 2 - left, (item.box[1] + item.box[3]) / 2 - top)
    stroke = item.stroke * item.length if item.style != "filled" else 0.0
    points = outline(item.name, item.angle, item.grain, item.wobble) * (item.length - stroke) + middle
    path = [(float(x), float(y)) for x, y in points * scale]
    size = ((right - left) * scale, (bottom - top) * scale)

    if item.style != "hollow":
        inside = Image.new("L", size)
        ImageDraw.Draw(inside).polygon(path, fill=255)
        canvas.paste(item.rgb, (left, top), inside.reduce(scale))
    if item.style != "filled":
        line = Image.new("L", size)
        _trace(ImageDraw.Draw(line), path, stroke * scale)
        canvas.paste(item.rgb if item.style == "hollow" else item.edge, (left, top), line.reduce(scale))


def _trace(pen: ImageDraw.ImageDraw, path: list[tuple[float, float]], width: float) -> None:
    """A closed line with round corners."""
    pen.line([*path, path[0]], fill=255, width=max(1, round(width)))
    r = width / 2 - 0.5
    if r > 1:
        for x, y in path:
            pen.ellipse((x - r, y - r, x + r, y + r), fill=255)


def _draw_thing(canvas: Image.Image, item: Item) -> None:
    glyph = _glyph(item.glyph)
    turn = math.radians(item.angle)
    length = max(math.hypot(a * math.cos(turn), b * math.sin(turn)) for a, b in (glyph.size, glyph.size[::-1]))
    shrink = item.length / length
    glyph = glyph.resize(
        (max(1, round(glyph.width * shrink)), max(1, round(glyph.height * shrink))), Image.Resampling.BILINEAR
    )
    if item.flip:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if item.angle:
        glyph = glyph.rotate(item.angle, Image.Resampling.BICUBIC, expand=True)
    face = glyph.convert("RGB").point([min(255, round(level * item.light)) for level in range(256)] * 3)
    x, y = item.center
    canvas.paste(face, (round(x - glyph.width / 2), round(y - glyph.height / 2)), glyph.getchannel("A"))


@lru_cache(maxsize=1024)
def _glyph(character: str) -> Image.Image:
    """A picture of the emoji font, cut to what is seen of it, with a rim so that it turns smoothly."""
    picture = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(picture).text((12, 16), character, font=font(EMOJI, 109), embedded_color=True)
    return picture.crop(picture.getbbox())


def _draw_written(canvas: Image.Image, item: Item, smooth: bool) -> None:
    """Letters as large as the box allows, about its middle; on a board if it is a sign."""
    width, height = item.box[2] - item.box[0], item.box[3] - item.box[1]
    layers = [(_letters(item.name, _fitting_font(item), smooth), item.rgb)]
    if item.style == "sign":
        layers.insert(0, (Image.new("L", (round(width), round(height)), 255), item.edge))
    x, y = item.center
    for layer, color in layers:
        if item.angle:
            filter_ = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
            layer = layer.rotate(item.angle, filter_, expand=True)
        canvas.paste(color, (round(x - layer.width / 2), round(y - layer.height / 2)), layer)


def letter_extents(item: Item) -> tuple[list[tuple[float, float]], float]:
    """From where to where each letter of a written item reaches, and half their height: pixels from its middle."""
    font_ = _fitting_font(item)
    left, top, right, bottom = font_.getbbox(item.name)
    ends = [font_.getlength(item.name[:k]) - (left + right) / 2 for k in range(len(item.name) + 1)]
    return list(pairwise(ends)), (bottom - top) / 2


def _fitting_font(item: Item) -> ImageFont.FreeTypeFont:
    """Capitals as high as the box has room for, unless that makes the letters wider than it."""
    width, height = item.box[2] - item.box[0], item.box[3] - item.box[1]
    room = 1.35 if item.style == "sign" else 1.1
    tall, wide = height / room, width - (room - 1) * height / room
    size = max(8, round(tall / 0.71))
    left, _, right, _ = font(item.font, size).getbbox(item.name)
    return font(item.font, max(8, int(size * wide / (right - left))) if right - left > wide else size)


def _letters(text: str, font_: ImageFont.FreeTypeFont, smooth: bool) -> Image.Image:
    """The letters as a mask."""
    left, top, right, bottom = font_.getbbox(text)
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    pen = ImageDraw.Draw(mask)
    pen.fontmode = "L" if smooth else "1"
    pen.text((1 - left, 1 - top), text, font=font_, fill=255)
    return mask
