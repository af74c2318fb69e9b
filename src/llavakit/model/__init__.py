"""Tensors to hidden states to logits; single-device, and ignorant of text, disk and training."""

from llavakit.model.cache import Cache, KVCache
from llavakit.model.language import LanguageModel
from llavakit.model.llava import Images, Llava
from llavakit.model.projector import Projector
from llavakit.model.vision import VisionTower

__all__ = ["Cache", "Images", "KVCache", "LanguageModel", "Llava", "Projector", "VisionTower"]
