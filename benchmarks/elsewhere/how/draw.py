"""Pictures drawn through Cairo, Qt and matplotlib:  draw.py OUT cairo|qt|matplotlib   (see README.md)."""

import math
import random
import sys
from pathlib import Path


def star(x, y, r, inner=0.4):
    radii = [r if k % 2 == 0 else r * inner for k in range(10)]
    return [(x + q * math.sin(k * math.pi / 5), y - q * math.cos(k * math.pi / 5)) for k, q in enumerate(radii)]


def cross(x, y, r, a=0.33):
    a *= r
    return [(x + p, y + q) for p, q in ((-a, -r), (a, -r), (a, -a), (r, -a), (r, a), (a, a), (a, r), (-a, r), (-a, a),
                                        (-r, a), (-r, -a), (-a, -a))]  # fmt: skip


def with_cairo(out):
    import cairo

    def page(w, h, r=1.0, g=1.0, b=1.0):
        surface = cairo.ImageSurface(cairo.FORMAT_RGB24, w, h)
        pen = cairo.Context(surface)
        pen.set_source_rgb(r, g, b)
        pen.paint()
        return surface, pen

    def sketch(pen, points, fill, line=(0, 0, 0), seed=1, shake=4):
        """A crooked outline of curves, filled."""
        rng = random.Random(seed)
        spots = [(x + rng.uniform(-shake, shake), y + rng.uniform(-shake, shake)) for x, y in points]
        pen.move_to(*spots[0])
        for (x0, y0), (x1, y1) in zip(spots, spots[1:] + spots[:1], strict=True):
            dx, dy = rng.uniform(-shake, shake), rng.uniform(-shake, shake)
            pen.curve_to(x0 + (x1 - x0) / 3 + dx, y0 + (y1 - y0) / 3 + dy, x0 + (x1 - x0) * 0.6 - dx,
                         y0 + (y1 - y0) * 0.6 - dy, x1, y1)  # fmt: skip
        pen.close_path()
        pen.set_source_rgb(*fill)
        pen.fill_preserve()
        pen.set_source_rgb(*line)
        pen.set_line_width(4)
        pen.stroke()

    surface, pen = page(600, 450)
    for k, (x, y) in enumerate(((120, 110), (470, 120), (130, 330), (460, 330))):
        sketch(pen, [(x, y - 75), (x + 60, y), (x, y + 75), (x - 60, y)], (0.12, 0.47, 0.9), seed=k)
    surface.write_to_png(f"{out}/cairo-1.png")

    surface, pen = page(700, 350)
    sketch(pen, [(40, 100), (230, 96), (234, 250), (38, 255)], (1, 0.6, 0), seed=5)
    sketch(pen, [(350, 85), (445, 250), (258, 252)], (0.9, 0.1, 0.1), seed=6)
    sketch(pen, cross(575, 170, 88), (0.55, 0.2, 0.75), seed=7, shake=3)
    surface.write_to_png(f"{out}/cairo-2.png")

    surface, pen = page(400, 400, 1, 0.98, 0.86)
    pen.select_font_face("DejaVu Serif", cairo.FONT_SLANT_NORMAL, cairo.FONT_WEIGHT_BOLD)
    pen.set_font_size(110)
    pen.set_source_rgb(0.4, 0.2, 0.05)
    pen.move_to(70, 180)
    pen.show_text("SUN")
    pen.set_source_rgb(0, 0.5, 0)
    pen.new_path()
    pen.arc(200, 300, 60, 0, 7)
    pen.fill()
    surface.write_to_png(f"{out}/cairo-3.png")

    surface, pen = page(320, 480, 0.08, 0.08, 0.1)
    pen.set_source_rgb(1, 0.41, 0.7)
    for k, (x, y) in enumerate(star(160, 240, 130)):
        (pen.line_to if k else pen.move_to)(x, y)
    pen.fill()
    surface.write_to_png(f"{out}/cairo-4.png")


def with_qt(out):
    from PyQt5.QtCore import QPointF, QRectF, Qt
    from PyQt5.QtGui import QColor, QFont, QGuiApplication, QImage, QPainter, QPen, QPolygonF

    app = QGuiApplication(["draw", "-platform", "offscreen"])

    def page(w, h, back="white"):
        image = QImage(w, h, QImage.Format_RGB32)
        image.fill(QColor(back))
        return image, QPainter(image)

    def use(pen, fill, line="black", width=3):
        pen.setBrush(QColor(fill) if fill else Qt.NoBrush)
        pen.setPen(QPen(QColor(line), width))

    def polygon(pen, points):
        pen.drawPolygon(QPolygonF([QPointF(x, y) for x, y in points]))

    image, pen = page(500, 400)
    for x, y in ((60, 60), (330, 50), (190, 230)):
        use(pen, "gray")
        pen.drawEllipse(QRectF(x, y, 110, 110))
    pen.end()
    image.save(f"{out}/qt-1.png")

    image, pen = page(800, 300)
    use(pen, "#ff69b4")
    pen.drawRect(60, 70, 160, 160)
    use(pen, "#00aa00")
    polygon(pen, star(400, 155, 105))
    use(pen, "#ffff00")
    pen.drawEllipse(QRectF(560, 95, 190, 110))
    pen.end()
    image.save(f"{out}/qt-2.png")

    image, pen = page(420, 420)
    use(pen, None, "#0000ff", 10)
    polygon(pen, [(210, 50), (370, 350), (50, 350)])
    pen.end()
    image.save(f"{out}/qt-3.jpg", quality=60)

    image, pen = page(560, 300)
    pen.setFont(QFont("FreeSans", 90, QFont.Bold))
    pen.setPen(QColor("#008000"))
    pen.drawText(QRectF(0, 0, 560, 300), Qt.AlignCenter, "OPEN")
    pen.end()
    image.save(f"{out}/qt-4.png")

    image, pen = page(600, 600)
    use(pen, "#8b4513")
    pen.drawRect(30, 40, 280, 130)
    use(pen, "#ff0000")
    polygon(pen, [(40, 470), (180, 470), (180, 420), (270, 505), (180, 590), (180, 540), (40, 540)])
    use(pen, "#9932cc")
    pen.drawEllipse(QRectF(430, 430, 130, 130))
    pen.end()
    image.save(f"{out}/qt-5.png")

    image, pen = page(640, 480, "#0b1d4a")
    for sign, size, x, y in (("\U0001f680", 120, 60, 240), ("\U0001f319", 90, 430, 40)):
        pen.setFont(QFont("Noto Color Emoji", size))
        pen.drawText(QRectF(x, y, 220, 220), Qt.AlignCenter, sign)
    pen.end()
    image.save(f"{out}/qt-6.png")
    del app


def with_matplotlib(out):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches
    from matplotlib import pyplot as plt

    def page(w, h, wide, high):
        figure = plt.figure(figsize=(w / 100, h / 100), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, wide), ylim=(0, high), aspect="equal")
        axes.axis("off")
        return figure, axes

    figure, axes = page(500, 500, 5, 5)
    axes.add_patch(patches.Circle((1.1, 3.9), 0.75, color="tab:blue"))
    axes.add_patch(patches.Rectangle((2.9, 3.1), 1.5, 1.5, color="tab:orange"))
    axes.add_patch(patches.RegularPolygon((1.1, 1.2), 3, radius=0.95, color="tab:green"))
    axes.add_patch(patches.Ellipse((3.7, 1.2), 1.9, 1.05, color="tab:red"))
    figure.savefig(f"{out}/matplotlib-1.png")

    figure, axes = page(640, 320, 6.4, 3.2)
    for k in range(5):
        axes.plot(0.75 + 1.22 * k, 1.6, marker="*", markersize=52, color="purple")
    figure.savefig(f"{out}/matplotlib-2.png")

    figure, axes = page(600, 300, 6, 3)
    axes.add_patch(patches.FancyArrow(5.2, 1.5, -2.9, 0, width=0.5, head_width=1.3, head_length=1.1, color="black"))
    figure.savefig(f"{out}/matplotlib-3.png")

    figure, axes = page(480, 360, 4.8, 3.6)
    axes.text(2.4, 2.5, "358", fontsize=64, ha="center", va="center", color="crimson")
    axes.plot(2.4, 0.9, marker="P", markersize=80, color="dodgerblue")
    figure.savefig(f"{out}/matplotlib-4.png")


if __name__ == "__main__":
    {"cairo": with_cairo, "qt": with_qt, "matplotlib": with_matplotlib}[sys.argv[2]](Path(sys.argv[1]))
