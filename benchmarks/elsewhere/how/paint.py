"""Draws pictures in real paint programs, mtPaint and KolourPaint, with a mouse moved by xdotool under Xvfb.

    python3 paint.py OUT [NAME ...]      needs xvfb openbox xdotool mtpaint kolourpaint, and Pillow

PACE=5 in the environment makes every wait five times as long, for a busy machine.

A picture is a list of steps of a hand: strokes of the brush, clicks of the bucket, boxes pulled open, text typed.
Freehand outlines are unsteady on purpose.
"""

import io
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

PALETTE = {
    "white": (255, 255, 255), "black": (0, 0, 0), "red": (237, 28, 36), "orange": (255, 127, 39),
    "yellow": (255, 242, 0), "green": (34, 177, 76), "blue": (63, 72, 204), "purple": (163, 73, 164),
    "pink": (255, 174, 201), "brown": (185, 122, 87), "gray": (127, 127, 127), "sky": (153, 217, 234),
}  # fmt: skip


PACE = float(os.environ.get("PACE", "1"))


def wait(seconds):
    time.sleep(seconds * PACE)


class Hand:
    """A mouse and a keyboard on a display."""

    def __init__(self, display, seed):
        self.display, self.rng = display, random.Random(seed)

    def do(self, *commands):
        paced = [f"sleep {float(c[6:]) * PACE:.3f}" if c.startswith("sleep ") else c for c in commands]
        script = "\n".join(paced) + "\n"
        subprocess.run(["xdotool", "-"], input=script, text=True, env=self.env, check=True, stdout=subprocess.DEVNULL)

    @property
    def env(self):
        return {**os.environ, "DISPLAY": self.display, "HOME": self.home, "QT_STYLE_OVERRIDE": "fusion"}

    def wait_for(self, title):
        search = ["xdotool", "search", "--onlyvisible", "--name", title]
        for _ in range(300):
            time.sleep(0.5)
            if subprocess.run(search, env=self.env, capture_output=True, text=True).stdout.strip():
                break
        wait(2)

    def click(self, x, y, button=1):
        self.do(f"mousemove {x} {y}", "sleep 0.1", f"click {button}", "sleep 0.25")

    def drag(self, points, pause=0.012):
        (x, y), *rest = [(round(a), round(b)) for a, b in points]
        moves = [line for a, b in rest for line in (f"mousemove {a} {b}", f"sleep {pause}")]
        self.do(f"mousemove {x} {y}", "sleep 0.1", "mousedown 1", "sleep 0.1", *moves, "sleep 0.1", "mouseup 1",
                "sleep 0.2")  # fmt: skip

    def unsteady(self, corners, wobble=2.5, closed=True):
        """A line through the corners as a hand with a mouse draws it."""
        ends = [*corners, corners[0]] if closed else corners
        dense = []
        for (x0, y0), (x1, y1) in zip(ends, ends[1:], strict=False):
            steps = max(2, round(math.hypot(x1 - x0, y1 - y0) / 7))
            dense += [(x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps) for k in range(steps)]
        dense.append(ends[-1])
        waves = [(self.rng.uniform(-1, 1), self.rng.uniform(2, 7), self.rng.uniform(0, 6)) for _ in range(6)]
        n = len(dense)

        def shake(k, some):
            return wobble * sum(a * math.sin(f * 2 * math.pi * k / n + p) for a, f, p in some)

        hand = [(x + shake(k, waves[:3]), y + shake(k, waves[3:])) for k, (x, y) in enumerate(dense)]
        if closed:
            hand += [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in [(hand[-1], hand[0])]] + hand[:2]
        return hand


class MtPaint(Hand):
    def start(self, path):
        self.program = subprocess.Popen(["mtpaint", path], env=self.env, stderr=subprocess.DEVNULL)
        self.wait_for("^Settings Toolbar")
        self.drag([(138, 9), (300, 20), (700, 30), (1110, 12), (1118, 9)], 0.1)  # the settings out of the way
        self.do("sleep 0.5", "mousemove 400 9", "click --repeat 2 --delay 80 1", "sleep 1.5")  # full screen
        while not self.finds_canvas():
            wait(1)

    def finds_canvas(self):
        """The corner of the canvas is its first white pixel on the screen."""
        shot = subprocess.run(["import", "-window", "root", "ppm:-"], env=self.env, capture_output=True).stdout
        screen = Image.open(io.BytesIO(shot)).convert("RGB")
        y = 480
        white, gray = (255, 255, 255), screen.getpixel((900, 850))
        left = next((x for x in range(95, 900) if screen.getpixel((x, y)) == white), None)
        if left is None or white in (gray, screen.getpixel((900, 120))):
            return False
        self.left = left
        self.top = next(k for k in range(90, 800) if screen.getpixel((left + 2, k)) == white)
        return True

    def color(self, name):
        self.click(38, 152 + 16 * list(PALETTE).index(name))

    def at(self, points):
        return [(self.left + x, self.top + y) for x, y in points]

    def brush(self, name, width, points, closed=True, wobble=2.5):
        self.click(437, 64)
        self.color(name)
        self.do("mousemove 1212 146", "click --repeat 2 --delay 60 1", "key ctrl+a", f"type {width}", "key Return",
                "sleep 0.2")  # fmt: skip
        self.drag(self.at(self.unsteady(points, wobble, closed)))

    def bucket(self, name, x, y):
        self.click(502, 64)
        self.color(name)
        self.click(self.left + x, self.top + y)

    def finish(self):
        self.do("mousemove 77 64", "click 1", "sleep 2")


class KolourPaint(Hand):
    TOP = ("black", "gray", "red", "orange", "yellow", "lime", "cyan", "blue", "magenta", "salmon", "light green")
    LOW = ("white", "silver", "maroon", "brown", "olive", "green", "teal", "navy", "purple", "periwinkle", "cream")
    TOOLS = {"text": (243, 114), "brush": (243, 162), "bucket": (81, 186), "rectangle": (243, 234),
             "ellipse": (243, 258), "lines": (81, 282), "polygon": (81, 258)}  # fmt: skip

    def start(self, path):
        self.program = subprocess.Popen(["kolourpaint", path], env=self.env, stderr=subprocess.DEVNULL)
        self.wait_for(Path(path).name)
        self.do("mousemove 500 206", "click --repeat 2 --delay 80 1", "sleep 1.5")

    def color(self, name, button=1):
        row, y = (self.TOP, 823) if name in self.TOP else (self.LOW, 849)
        self.click(475 + 26 * row.index(name), y, button)

    def at(self, points):
        return [(334 + x, 75 + y) for x, y in points]

    def tool(self, name):
        self.click(*self.TOOLS[name])

    def brush(self, name, points, closed=True, wobble=2.5):
        self.tool("brush")
        self.color(name)
        self.drag(self.at(self.unsteady(points, wobble, closed)))

    def bucket(self, name, x, y):
        self.tool("bucket")
        self.color(name)
        self.click(334 + x, 75 + y)

    def pull(self, tool, name, box, inside=None, width=4):
        """A rectangle, ellipse or polygon; `inside` is another colour to fill it with."""
        self.tool(tool)
        self.color(name)
        if inside:
            self.color(inside, 3)
        self.click(165, {True: 357, False: 379}[inside is not None])
        self.click(165, (402, 414, 427, 438, 451)[width])
        x0, y0, x1, y1 = box
        self.drag(self.at([(x0, y0), ((x0 + x1) / 2, (y0 + y1) / 2), (x1 - 3, y1 - 3), (x1, y1)]), 0.08)

    def text(self, name, font, size, words, box):
        self.tool("text")
        self.color(name)
        self.do("mousemove 620 57", "click --repeat 3 --delay 60 1", "key ctrl+a", f"type '{font}'", "key Return",
                "sleep 0.4", "mousemove 763 57", "click --repeat 3 --delay 60 1", "key ctrl+a", f"type {size}",
                "key Return", "sleep 0.4")  # fmt: skip
        x0, y0, x1, y1 = box
        self.drag(self.at([(x0, y0), ((x0 + x1) / 2, (y0 + y1) / 2), (x1, y1)]), 0.1)
        self.do("sleep 0.3", f"type --delay 60 {words}", "sleep 0.4")
        self.tool("brush")  # lets go of the text

    def finish(self):
        self.do("mousemove 125 57", "click 1", "sleep 1.5", "key Return", "sleep 1")


def ring(x, y, rx, ry=None):
    return [(x + rx * math.cos(k * math.pi / 12), y + (ry or rx) * math.sin(k * math.pi / 12)) for k in range(24)]


def star(x, y, r, inner=0.45):
    radii = [r if k % 2 == 0 else r * inner for k in range(10)]
    return [(x + q * math.sin(k * math.pi / 5), y - q * math.cos(k * math.pi / 5)) for k, q in enumerate(radii)]


def heart(x, y, r):
    turns = [k * math.pi / 14 for k in range(28)]
    return [(x + r * math.sin(t) ** 3,
             y - r / 16 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)))
            for t in turns]  # fmt: skip


def cross(x, y, r, a=0.34):
    a *= r
    return [(x + p, y + q) for p, q in ((-a, -r), (a, -r), (a, -a), (r, -a), (r, a), (a, a), (a, r), (-a, r), (-a, a),
                                        (-r, a), (-r, -a), (-a, -a))]  # fmt: skip


def filled(hand, outline, inside, points, x, y, width=5, wobble=2.5):
    """An outline drawn by hand, then the bucket poured into it."""
    hand.brush(outline, width, points, wobble=wobble)
    hand.bucket(inside, x, y)


def mt_circle_square(h):
    filled(h, "black", "red", ring(120, 160, 72), 120, 160)
    filled(h, "black", "blue", [(290, 95), (415, 100), (412, 222), (286, 218)], 350, 160)


def mt_stars(h):
    for x, y, r in ((95, 110, 65), (245, 215, 72), (390, 100, 62)):
        filled(h, "black", "yellow", star(x, y, r, 0.5), x, y, 4, 2)


def mt_heart(h):
    filled(h, "purple", "purple", heart(200, 190, 125), 200, 190, 7)


def mt_hi(h):
    for line in ([(90, 60), (88, 175)], [(160, 58), (162, 178)], [(90, 118), (160, 115)], [(225, 60), (223, 176)]):
        h.brush("blue", 14, line, closed=False)
    filled(h, "green", "green", [(385, 190), (470, 318), (298, 322)], 385, 280)


def mt_triangles(h):
    for x, y in ((110, 100), (350, 95), (105, 265), (355, 270)):
        h.brush("green", 9, [(x, y - 62), (x + 68, y + 55), (x - 70, y + 52)])


def mt_sky(h):
    h.bucket("sky", 10, 10)
    filled(h, "black", "orange", [(110, 50), (180, 150), (112, 248), (42, 148)], 110, 150, 4)
    filled(h, "black", "brown", [(240, 215), (455, 212), (452, 318), (236, 322)], 350, 270, 4)


def mt_arrow(h):
    arrow = [(35, 215), (150, 212), (150, 160), (240, 250), (152, 342), (150, 290), (36, 292)]
    filled(h, "black", "black", arrow, 120, 250, 5)
    filled(h, "black", "pink", ring(470, 250, 105, 62), 470, 250, 5)


def kp_circle_rectangle(h):
    h.pull("ellipse", "black", (30, 25, 170, 165), "yellow", 3)
    h.pull("rectangle", "green", (250, 225, 455, 330))


def kp_dog(h):
    h.text("red", "Liberation Sans", 64, "DOG", (130, 25, 400, 150))
    h.pull("ellipse", "blue", (180, 190, 310, 320))


def kp_squares(h):
    for x, y in ((30, 30), (190, 22), (360, 40), (100, 190), (280, 200)):
        h.pull("rectangle", "black", (x, y, x + 92, y + 92), "red", 2)


def kp_number(h):
    h.text("black", "DejaVu Sans", 60, "27", (40, 200, 200, 320))
    h.brush("purple", star(360, 120, 95, 0.5), wobble=2)
    h.bucket("purple", 360, 120)


def kp_milk(h):
    h.bucket("cream", 20, 20)
    h.text("navy", "Liberation Serif", 72, "MILK", (100, 110, 450, 250))


def kp_heart_cross(h):
    h.brush("gray", cross(125, 170, 90))
    h.bucket("gray", 125, 170)
    h.brush("black", heart(360, 180, 88))
    h.bucket("salmon", 360, 180)


def kp_sun_rectangles(h):
    """A hollow oval between two hollow rectangles."""
    h.tool("rectangle")
    for tool, name, box in (("rectangle", "blue", (25, 60, 145, 300)), ("ellipse", "red", (200, 65, 300, 295)),
                            ("rectangle", "orange", (355, 60, 475, 300))):  # fmt: skip
        h.tool(tool)
        h.color(name)
        h.click(165, 335)
        h.click(165, 451)
        h.drag(h.at([(box[0], box[1]), (box[0] + 40, box[1] + 40), (box[2] - 3, box[3] - 3), box[2:]]), 0.08)


PICTURES = {
    "mtpaint-1": (MtPaint, (480, 320), mt_circle_square), "mtpaint-2": (MtPaint, (480, 320), mt_stars),
    "mtpaint-3": (MtPaint, (400, 400), mt_heart), "mtpaint-4": (MtPaint, (500, 360), mt_hi),
    "mtpaint-5": (MtPaint, (460, 360), mt_triangles), "mtpaint-6": (MtPaint, (500, 350), mt_sky),
    "mtpaint-7": (MtPaint, (640, 480), mt_arrow),
    "kolourpaint-1": (KolourPaint, (480, 360), kp_circle_rectangle), "kolourpaint-2": (KolourPaint, (480, 360), kp_dog),
    "kolourpaint-3": (KolourPaint, (480, 320), kp_squares), "kolourpaint-4": (KolourPaint, (480, 360), kp_number),
    "kolourpaint-5": (KolourPaint, (520, 340), kp_milk), "kolourpaint-6": (KolourPaint, (480, 360), kp_heart_cross),
    "kolourpaint-7": (KolourPaint, (500, 360), kp_sun_rectangles),
}  # fmt: skip


def blank(path, size):
    image = Image.new("P", size, 0)
    image.putpalette([channel for rgb in PALETTE.values() for channel in rgb])
    image.save(path)


def draw(name, out, display):
    program, size, steps = PICTURES[name]
    with tempfile.TemporaryDirectory() as home:
        screen = subprocess.Popen(["Xvfb", display, "-screen", "0", "1280x900x24"], stderr=subprocess.DEVNULL)
        wait(1)
        hand = program(display, name)
        hand.home = home
        windows = subprocess.Popen(["openbox"], env=hand.env, stderr=subprocess.DEVNULL)
        wait(1)
        path = f"{home}/{name}.png"
        blank(path, size)
        try:
            hand.start(path)
            steps(hand)
            hand.finish()
            if os.environ.get("SHOT"):
                subprocess.run(["import", "-window", "root", f"{os.environ['SHOT']}/{name}.png"], env=hand.env)
            drawn = Image.open(path).convert("RGB")
            drawn.info.clear()
            drawn.quantize(64, dither=Image.Dither.NONE).save(out / f"{name}.png", optimize=True)
        finally:
            hand.program.kill()
            windows.kill()
            screen.kill()
            screen.wait()


def main():
    out = Path(sys.argv[1])
    for name in sys.argv[2:] or PICTURES:
        draw(name, out, f":{60 + list(PICTURES).index(name)}")


if __name__ == "__main__":
    main()
