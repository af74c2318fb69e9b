"""How many tokens a picture becomes: pure integers, one place, used by processor, model, engine and explanation."""

from __future__ import annotations

from llavakit.config import VisionConfig


def num_image_tokens(width: int, height: int, vision: VisionConfig) -> int:
    """Placeholders, and so feature vectors, for a picture of `width` x `height` pixels.

    The resize modes `square` and `pad` bring every picture to one view, whatever its size.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width}x{height} pixels has no area")
    return vision.num_features
