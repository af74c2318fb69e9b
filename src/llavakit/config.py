"""What a model is, as plain data: frozen, and checked once when it is made.

Everything the code decides about a model it reads here, never from a file or folder name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

# How a picture becomes square: by its middle, whole on a wider ground, or pulled into shape.
ViewMode = Literal["square", "pad", "stretch"]
ResizeMode = Literal[ViewMode, "anyres"]  # anyres: cut into tiles, as `TilingConfig` says
VisualMethod = Literal["attention", "pool"]
Compat = Literal["original", "hf"]  # whose arithmetic, where the two public implementations differ
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)


_LONGEST = 2000  # characters of a message
_LONGEST_VALUE = 120  # and of a value in it

# No published model comes near these; they keep a file that was made to hurt from taking all time or memory.
_LIMITS = {
    "image_size": 1 << 12,
    "patch_size": 1 << 12,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 20,
    "embed_dim": 1 << 20,
    "head_dim": 1 << 16,
    "num_heads": 1 << 16,
    "num_kv_heads": 1 << 16,
    "num_layers": 1 << 10,
    "vocab_size": 1 << 24,
    "max_positions": 1 << 28,
    "max_tiles": 1 << 12,
}
MAX_PINPOINTS = 1 << 10
_MAX_CANVAS = 1 << 26  # pixels


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says what was given and what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """A message that may quote anything a file holds, in one line of bearable length, without control characters."""
    message = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message[: _LONGEST * 2])
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."


def shown(value: object) -> str:
    """A value as a message quotes it: no more of it than tells what it is."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def nearest(name: str, known: list[str] | tuple[str, ...], *, otherwise: str = "") -> str:
    """A hint for a misspelt name: the closest known one, or all of them; `otherwise` where all are too many."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return otherwise or "known: " + ", ".join(sorted(known))


class Config(BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Build from plain data; raises `ConfigError` with one sentence per problem."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError("; ".join(cls._sentence(problem) for problem in error.errors())) from None

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        for name in _LIMITS.keys() & type(self).model_fields.keys():
            value = getattr(self, name)
            if value is not None and value > _LIMITS[name]:
                raise ValueError(f"{name} is {value:,}, and at most {_LIMITS[name]:,} are read")
        return self

    @classmethod
    def _sentence(cls, problem: Any) -> str:
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            *parents, name = problem["loc"]
            return f"unknown key {where!r}: {nearest(str(name), cls._known_keys(parents))}"
        if problem["type"] == "missing":
            return f"{where} is missing"
        if problem["type"] == "value_error":
            return f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
        return f"{where} is {shown(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}"

    @classmethod
    def _known_keys(cls, parents: list[str]) -> list[str]:
        config: Any = cls
        for parent in parents:
            annotation = config.model_fields[parent].annotation
            config = next(kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields"))
        return list(config.model_fields)


class VisionConfig(Config):
    """A vision tower and how LLaVA reads it (upstream: `vision_config`, `mm_vision_select_*`).

    The defaults are CLIP's: a class vector in front of the patches, a norm in front of the layers, patches without a
    bias. SigLIP (Zhai et al. 2023) has the opposite of each. `feature_select` `patch` is every patch and nothing
    else, `full` the class vector too. An `image_size` that is no whole number of patches leaves a rest unseen.
    """

    image_size: int = Field(336, gt=0)
    patch_size: int = Field(14, gt=0)
    hidden_size: int = Field(1024, gt=0)
    intermediate_size: int = Field(4096, gt=0)
    num_layers: int = Field(24, gt=0)
    num_heads: int = Field(16, gt=0)
    activation: Literal["quick_gelu", "gelu", "gelu_tanh"] = "quick_gelu"
    layer_norm_eps: float = Field(1e-5, gt=0)
    class_token: bool = True
    pre_norm: bool = True
    patch_bias: bool = False
    feature_layer: int = -2
    feature_select: Literal["patch", "full"] = "patch"
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is less than one patch of {self.patch_size} pixels")
        if not -self.num_layers - 1 <= self.feature_layer <= self.num_layers:
            raise ValueError(f"feature_layer {self.feature_layer} lies outside a tower of {self.num_layers} layers")
        if self.feature_select == "full" and not self.class_token:
            raise ValueError("feature_select 'full' keeps the class feature, and this tower has none: use 'patch'")
        return self

    @property
    def num_patches_across(self) -> int:
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.num_patches_across**2

    @property
    def num_positions(self) -> int:
        """Vectors inside the tower for one view."""
        return self.num_patches + self.class_token

    @property
    def num_features(self) -> int:
        """Feature vectors the language model sees for one view."""
        return self.num_patches + (self.feature_select == "full")

    @property
    def num_used_layers(self) -> int:
        """Layers that the chosen feature layer depends on; 0 is what enters the first."""
        return self.feature_layer if self.feature_layer >= 0 else self.num_layers + 1 + self.feature_layer


class TilingConfig(Config):
    """How a picture of any resolution is cut into tiles, and how their features become one sequence (LLaVA-NeXT).

    `pinpoints` are the canvases to choose from (upstream: `image_grid_pinpoints`), as (width, height) here whatever
    a file has; the first wins a tie. `merge` (upstream: `mm_patch_merge_type`): `flat`, tile behind tile; `spatial`,
    row by row across the tiles of the canvas; `spatial_unpad`, so too, but without the patches around the picture and
    with a newline vector behind each row. `max_tiles` bounds an unpadded canvas by pooling (upstream: `anyres_max_N`).
    With `only_alone` the pictures of a conversation that has several are padded and seen in one view each
    (LLaVA-OneVision was trained so). `compat` says who rounds an unpadded canvas; see `anyres.unpadded_grid`.
    """

    pinpoints: tuple[tuple[int, int], ...] = Field(min_length=1, max_length=MAX_PINPOINTS)
    merge: Literal["flat", "spatial", "spatial_unpad"] = "spatial_unpad"
    max_tiles: int | None = Field(None, gt=0)
    only_alone: bool = False
    compat: Compat = "original"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(side < 1 for pinpoint in self.pinpoints for side in pinpoint):
            raise ValueError(f"pinpoints {shown(self.pinpoints)} are not all pairs of positive numbers")
        if too_large := [pinpoint for pinpoint in self.pinpoints if pinpoint[0] * pinpoint[1] > _MAX_CANVAS]:
            raise ValueError(f"pinpoints {shown(too_large)} are canvases of more than {_MAX_CANVAS:,} pixels")
        if self.max_tiles and self.merge != "spatial_unpad":
            raise ValueError(f"max_tiles bounds merge 'spatial_unpad' only, not {self.merge!r}: leave it out")
        return self

    @property
    def with_newline(self) -> bool:
        """Whether a learned vector ends each row."""
        return self.merge == "spatial_unpad"


class VisualTokens(Config):
    """How many vectors a view of a picture is brought down to, where, and how.

    Before the language model reads them, by default. `attention`: the `count` patches that the tower looks at and that
    stand for the others, each counting for as many. `pool`: the mean of each square of patches, as many squares as
    `count`. See `model/reduce.py`.

    With `after_layer` inside the language model: so many layers read all of them, the others only those `count` that
    the end of the prompt attends to most. See `model/drop.py`.
    """

    count: int = Field(gt=0)
    method: VisualMethod = "attention"
    after_layer: int | None = Field(None, gt=0)

    def __str__(self) -> str:
        where = "" if self.after_layer is None else f" after layer {self.after_layer}"
        return f"{self.count} by {self.method}{where}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.after_layer is not None and self.method != "attention":
            raise ValueError(
                f"visual tokens are dropped after layer {self.after_layer} by attention, not by method "
                f"{self.method!r}: leave out one of the two"
            )
        return self


class ProjectorConfig(Config):
    """The connector from tower width to language width (upstream: `mm_projector_type`)."""

    kind: Literal["linear", "mlp2x_gelu"] = "mlp2x_gelu"
    bias: bool = True


class RopeScaling(Config):
    """Rotary positions slowed down for a longer context than a model had at first (upstream: `rope_scaling`).

    `linear` slows every pair of channels by `factor`. `llama3` (Llama 3.1) slows those that turn fewer than
    `low_freq_factor` times within `original_positions`, leaves those that turn more than `high_freq_factor` times, and
    passes smoothly from one to the other; `linear` has none of these three.
    """

    kind: Literal["linear", "llama3"]
    factor: float = Field(ge=1, allow_inf_nan=False)
    low_freq_factor: float | None = Field(None, gt=0, allow_inf_nan=False)
    high_freq_factor: float | None = Field(None, gt=0, allow_inf_nan=False)
    original_positions: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        own = (self.low_freq_factor, self.high_freq_factor, self.original_positions)
        if self.kind == "linear" and any(value is not None for value in own):
            raise ValueError("kind 'linear' has a factor and nothing else")
        if self.kind == "llama3" and (None in own or own[0] >= own[1]):
            raise ValueError(
                "kind 'llama3' needs original_positions, and a low_freq_factor below its high_freq_factor; given: "
                f"{own[2]}, {own[0]} and {own[1]}"
            )
        return self


class LanguageConfig(Config):
    """A decoder of the Llama family: grouped KV heads, rotary positions, SwiGLU, RMSNorm; Qwen2 has `qkv_bias`."""

    vocab_size: int = Field(32000, gt=0)
    hidden_size: int = Field(4096, gt=0)
    intermediate_size: int = Field(11008, gt=0)
    num_layers: int = Field(32, gt=0)
    num_heads: int = Field(32, gt=0)
    num_kv_heads: int = Field(32, gt=0)
    head_dim: int = Field(128, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(10000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    max_positions: int = Field(2048, gt=0)
    tie_embeddings: bool = False
    qkv_bias: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} heads do not share {self.num_kv_heads} KV heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary positions turn pairs of channels")
        return self


class ClipConfig(Config):
    """What the tower is trained beside: a text tower to be matched with."""

    vision: VisionConfig
    text: LanguageConfig
    embed_dim: int = Field(256, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.vision.class_token:
            raise ValueError("a picture is matched by its class vector: vision.class_token has to be true")
        return self


class SpecialTokens(Config):
    """Ids with a meaning of their own.

    `eos` is the token that templates write behind an answer; an answer ends with it or with any of `also_ends`.
    `image` is the placeholder that a feature vector replaces; where the vocabulary has no word for it, it is the first
    id behind the vocabulary. `image_start` and `image_end` stand around a picture in the first generation of models.
    """

    bos: int | None = 1
    eos: int = 2
    also_ends: tuple[int, ...] = ()
    pad: int = 0
    image: int = 32000
    image_start: int | None = None
    image_end: int | None = None

    @property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends an answer."""
        return (self.eos, *self.also_ends)

    @property
    def ids(self) -> list[tuple[str, int]]:
        """All of them with their names; `also_ends` once for each."""
        named = [(name, id) for name, id in self if isinstance(id, int)]
        return named + [("also_ends", id) for id in self.also_ends]


class LlavaConfig(Config):
    """A whole LLaVA: tower, projector, language model, and how it was trained to be spoken to."""

    vision: VisionConfig = VisionConfig()
    projector: ProjectorConfig = ProjectorConfig()
    language: LanguageConfig = LanguageConfig()
    tokens: SpecialTokens = SpecialTokens()
    resize_mode: ResizeMode = "pad"
    tiling: TilingConfig | None = None
    template: str = "vicuna_v1"
    visual_tokens: VisualTokens | None = Field(None, exclude=True)  # asked for at run time, never stored

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tiling:
            self._check_tiling(self.tiling)
        elif self.resize_mode == "anyres":
            raise ValueError("resize_mode 'anyres' cuts pictures into tiles, so tiling has to say into which")
        if self.visual_tokens:
            self._check_visual_tokens(self.visual_tokens)
        for name, token in self.tokens.ids:
            if not 0 <= token < self.language.vocab_size + (name == "image"):
                raise ValueError(f"tokens.{name} is {token}, outside the vocabulary of {self.language.vocab_size}")
        return self

    def for_pictures(self, count: int) -> LlavaConfig:
        """What holds in a conversation with so many pictures: not every model cuts one that is not alone."""
        if self.resize_mode == "anyres" and self.tiling.only_alone and count > 1:
            return self.model_copy(update={"resize_mode": "pad"})
        return self

    def with_visual_tokens(self, visual_tokens: VisualTokens | None) -> LlavaConfig:
        """The same model, its pictures brought down to fewer tokens; raises `ConfigError` if it cannot be."""
        return self.parse({**dict(self), "visual_tokens": visual_tokens})

    @property
    def condensing(self) -> VisualTokens | None:
        """The fewer visual tokens that were asked for, if they are made before the language model."""
        wanted = self.visual_tokens
        return wanted if wanted and wanted.after_layer is None else None

    @property
    def dropping(self) -> VisualTokens | None:
        """The same if the others are dropped inside it."""
        wanted = self.visual_tokens
        return wanted if wanted and wanted.after_layer is not None else None

    @property
    def num_view_tokens(self) -> int:
        """Vectors the language model reads of one view: all features, unless fewer were asked for before it."""
        return self.condensing.count if self.condensing else self.vision.num_features

    def _check_visual_tokens(self, wanted: VisualTokens) -> None:
        if wanted.after_layer is None:
            self._check_condensed(wanted)
        else:
            self._check_dropped(wanted.count, wanted.after_layer)

    def _check_dropped(self, count: int, after_layer: int) -> None:
        last, most = self.language.num_layers - 1, self.vision.num_features
        if last < 1:
            raise ValueError("visual tokens are dropped between two layers, and this language model has only one")
        if after_layer > last:
            raise ValueError(
                f"after layer {after_layer} of {last + 1} nothing reads what is left: drop visual tokens after layer "
                f"{'1' if last == 1 else f'1 to {last}'} of this language model"
            )
        if count > most:
            raise ValueError(f"{count} visual tokens are more than the {most} of a view: ask for 1 to {most}")

    def _check_condensed(self, wanted: VisualTokens) -> None:
        vision = self.vision
        if vision.feature_select == "full":
            raise ValueError("visual tokens are chosen among patches, and this model reads the class feature too")
        if wanted.count > vision.num_patches:
            raise ValueError(
                f"{wanted.count} visual tokens are more than the {vision.num_patches} patches of a view: "
                f"ask for 1 to {vision.num_patches}"
            )
        if wanted.method == "attention" and not vision.num_used_layers:
            raise ValueError("this tower is read before its first layer, where nothing attends: use method 'pool'")
        side = vision.num_patches_across
        pooled = [(side // square) ** 2 for square in range(1, side + 1) if side % square == 0]
        if wanted.method == "pool" and wanted.count not in pooled:
            raise ValueError(
                f"{wanted.count} visual tokens are no whole squares of {side}x{side} patches: pooling gives "
                f"{', '.join(map(str, pooled))}; use one of these, or method 'attention'"
            )

    def _check_tiling(self, tiling: TilingConfig) -> None:
        size = self.vision.image_size
        uneven = [canvas for canvas in tiling.pinpoints if canvas[0] % size or canvas[1] % size]
        if uneven:
            raise ValueError(f"tiling.pinpoints {shown(uneven)} are no whole number of tiles of {size}x{size} pixels")
        if tiling.merge != "flat" and self.vision.feature_select == "full":
            raise ValueError(
                f"tiling.merge {tiling.merge!r} lays patches out in rows, where the class feature has no place: "
                "it needs vision.feature_select 'patch', or merge 'flat'"
            )
