"""Finding the open fonts the pictures are drawn with. They are needed only where pictures are drawn."""

from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")

EMOJI = "noto-emoji"
HELD_OUT_FONT = "dejavu-serif-bold"

# our name: file, Debian package, width of an average capital letter in heights of one
_FILES = {
    "liberation-sans": ("LiberationSans-Regular.ttf", "fonts-liberation", 0.98),
    "liberation-sans-bold": ("LiberationSans-Bold.ttf", "fonts-liberation", 1.02),
    "liberation-sans-narrow-bold": ("LiberationSansNarrow-Bold.ttf", "fonts-liberation", 0.85),
    "liberation-serif-bold": ("LiberationSerif-Bold.ttf", "fonts-liberation", 1.08),
    "liberation-mono-bold": ("LiberationMono-Bold.ttf", "fonts-liberation", 1.05),
    "dejavu-sans": ("DejaVuSans.ttf", "fonts-dejavu-core", 0.96),
    "dejavu-sans-bold": ("DejaVuSans-Bold.ttf", "fonts-dejavu-core", 1.06),
    "dejavu-sans-mono-bold": ("DejaVuSansMono-Bold.ttf", "fonts-dejavu-core", 0.87),
    "dejavu-serif-bold": ("DejaVuSerif-Bold.ttf", "fonts-dejavu-core", 1.10),
    "free-sans-bold": ("FreeSansBold.ttf", "fonts-freefont-ttf", 1.02),
    "free-serif-bold": ("FreeSerifBold.ttf", "fonts-freefont-ttf", 1.05),
    EMOJI: ("NotoColorEmoji.ttf", "fonts-noto-color-emoji", 1.0),
}
LETTER_WIDTHS = {name: width for name, (_, _, width) in _FILES.items() if name != EMOJI}
TRAIN_FONTS = tuple(name for name in LETTER_WIDTHS if name != HELD_OUT_FONT)


@lru_cache(maxsize=1024)
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of our fonts at a size in pixels."""
    return ImageFont.truetype(_path(name), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _path(name: str) -> Path:
    file, package, _ = _FILES[name]
    for folder in _FOLDERS:
        for path in folder.rglob(file):
            return path
    raise FileNotFoundError(
        f"The font file {file} is not installed, and pictures cannot be drawn without it. "
        f"On Debian or Ubuntu: apt-get install {package}"
    )
