"""Questions about a scene, a file for each family, and how often each is asked.

A family is a function of the scene and a voice; it gives None where the scene does not answer its question
beyond dispute.
"""

from collections.abc import Callable

from ..scene import Scene
from .asked import Asked, Voice
from .color import color
from .compare import compare
from .count import count
from .describe import absent_, caption, detail
from .existence import existence
from .listing import listing
from .name import name
from .position import position
from .reading import reading
from .reason import reason
from .relation import relation_
from .size import size

Family = Callable[[Scene, Voice], Asked | None]

FAMILIES: dict[Family, int] = {
    existence: 14, name: 17, count: 24, color: 13, position: 12, relation_: 24, reading: 55, compare: 6, reason: 16,
    size: 14, caption: 7, detail: 8, absent_: 5, listing: 6,
}  # fmt: skip

__all__ = ["FAMILIES", "Asked", "Family", "Voice"]
