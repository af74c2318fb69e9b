"""The drawn world of the pocket model: pictures of which everything is known, and what is said about them.

Everything is a pure function of (seed, index): `sample_scene` gives the scene, `draw` its picture, and
`write_scenes` writes many of them as ordinary LLaVA JSON and image files.
"""

from .draw import draw
from .sample import sample_scene
from .scene import Item, Scene
from .write import write_scenes

__all__ = ["Item", "Scene", "draw", "sample_scene", "write_scenes"]
