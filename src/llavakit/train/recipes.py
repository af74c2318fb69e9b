"""Every run by name: a function that returns its full configuration. The pocket model is five of them in order.

What a recipe's function asks for, the user gives: `llava train finetune start=pocket data=my/samples.json`.
"""

from __future__ import annotations

from collections.abc import Callable

from llavakit.config import ClipConfig, LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.train.config import TrainConfig
from llavakit.train.pocket import pocket_data, pocket_tokenizer

POCKET_VISION = VisionConfig(
    image_size=128, patch_size=16, hidden_size=256, intermediate_size=1024, num_layers=7, num_heads=4
)
POCKET_LANGUAGE = LanguageConfig(
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=704,
    num_layers=6,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    rms_norm_eps=1e-5,
    max_positions=1024,
    tie_embeddings=True,
)
POCKET = LlavaConfig(vision=POCKET_VISION, language=POCKET_LANGUAGE, tokens=SpecialTokens(bos=1, eos=2, pad=0, image=3))


def pocket_clip() -> TrainConfig:
    """The tower from nothing: pictures against captions, and patches against the words for what they show."""
    small = POCKET_LANGUAGE.model_copy(
        update={"hidden_size": 192, "intermediate_size": 512, "num_layers": 2, "num_heads": 3, "num_kv_heads": 1}
    )
    return TrainConfig(
        stage="clip",
        data=(pocket_data("captions"),),
        out="runs/pocket-clip",
        tokenizer=pocket_tokenizer("captions"),
        model=POCKET,
        clip=ClipConfig(vision=POCKET_VISION, text=small),
        steps=2800,
        batch_size=96,
        max_length=96,
        optimizer="muon",
        learning_rate=1e-3,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        patch_weight=4.0,
        save_every=100,
    )


def pocket_language() -> TrainConfig:
    """The language model from nothing: next token on text."""
    return TrainConfig(
        stage="language",
        data=(pocket_data("language"),),
        out="runs/pocket-language",
        tokenizer=pocket_tokenizer("language"),
        model=POCKET,
        steps=400,
        batch_size=64,
        micro_batch=8,  # on two cores the quickest: what a layer makes stays in the cache
        max_length=320,
        optimizer="muon",
        learning_rate=1.5e-3,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        save_every=100,
    )


def pocket_align() -> TrainConfig:
    """Stage 1: the projector alone, on captions."""
    return TrainConfig(
        stage="align",
        data=(pocket_data("captions"),),
        out="runs/pocket-align",
        tokenizer=pocket_tokenizer("language"),
        model=POCKET,
        parts={"vision": "runs/pocket-clip", "language": "runs/pocket-language"},
        steps=150,
        batch_size=64,
        micro_batch=8,
        max_length=320,
        learning_rate=2e-3,
        save_every=100,
    )


def pocket_instruct() -> TrainConfig:
    """Stage 2: projector and language model on conversations about pictures, and on captions.

    Nearly every word of a caption has to be read off the picture, few words of an answer do: without captions, a
    small language model learns to answer long before it learns to look. Conversations stand twice in the list, so
    that they are two thirds.
    """
    return TrainConfig(
        stage="instruct",
        data=(pocket_data("captions"), pocket_data("mixed"), pocket_data("mixed")),
        out="runs/pocket-instruct",
        start="runs/pocket-align/model",
        steps=2500,
        batch_size=64,
        micro_batch=8,
        max_length=512,
        optimizer="muon",
        learning_rate=1.5e-3,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        save_every=100,
    )


def pocket_tower() -> TrainConfig:
    """Stage 2 once more with the tower learning along, at a low rate of its own, as LLaVA-NeXT does."""
    return pocket_instruct().model_copy(
        update={
            "out": "runs/pocket-tower",
            "start": "runs/pocket-instruct/model",
            "seed": 1,  # another order of the samples
            "steps": 2400,
            "learning_rate": 1e-3,
            "vision_rate": 2e-4,
        }
    )


def align(start: str, data: str) -> TrainConfig:
    """Stage 1 on captions of one's own, some hundreds to thousands: the projector of `start` goes on learning."""
    return TrainConfig(
        stage="align",
        start=start,
        data=(data,),
        out="runs/align",
        epochs=1,
        batch_size=32,
        learning_rate=1e-3,
    )


def finetune(start: str, data: str) -> TrainConfig:
    """Stage 2 on conversations of one's own, some dozens to thousands: the paper's rate, smaller batches, more passes.

    The rate is that of a model of billions; one of millions, such as pocket, takes ten times as much.
    """
    return TrainConfig(
        stage="instruct",
        start=start,
        data=(data,),
        out="runs/finetune",
        epochs=3,
        batch_size=16,
        learning_rate=2e-5,
    )


def llava_1_5_align(start: str, data: str) -> TrainConfig:
    """Stage 1 of LLaVA-1.5 (scripts/v1_5/pretrain.sh upstream): a new projector, on LCS-558K with images= its folder.

    `start` gives the tower and the language model; with parts.vision= and parts.language= others take their place.
    """
    return TrainConfig(
        stage="align",
        start=start,
        fresh=("projector",),
        data=(data,),
        out="runs/llava-1.5-align",
        resize_mode="square",
        seed=42,
        epochs=1,
        batch_size=256,
        micro_batch=32,
        max_length=2048,
        learning_rate=1e-3,
        clip_norm=None,  # upstream's DeepSpeed configuration names no clipping
    )


def llava_1_5_instruct(start: str, data: str) -> TrainConfig:
    """Stage 2 of LLaVA-1.5 (scripts/v1_5/finetune.sh upstream): from stage 1, on mix665K with images= its folder."""
    return TrainConfig(
        stage="instruct",
        start=start,
        data=(data,),
        out="runs/llava-1.5-instruct",
        resize_mode="pad",
        seed=42,
        epochs=1,
        batch_size=128,
        micro_batch=16,
        max_length=2048,
        learning_rate=2e-5,
        clip_norm=None,
    )


RECIPES: dict[str, Callable[..., TrainConfig]] = {
    "pocket-clip": pocket_clip,
    "pocket-language": pocket_language,
    "pocket-align": pocket_align,
    "pocket-instruct": pocket_instruct,
    "pocket-tower": pocket_tower,
    "align": align,
    "finetune": finetune,
    "llava-1.5-align": llava_1_5_align,
    "llava-1.5-instruct": llava_1_5_instruct,
}
SEQUENCES: dict[str, tuple[str, ...]] = {
    "pocket": ("pocket-clip", "pocket-language", "pocket-align", "pocket-instruct", "pocket-tower"),
}
