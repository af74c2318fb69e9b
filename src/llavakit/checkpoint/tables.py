"""Where foreign checkpoints keep their weights: key tables, first matching row wins, `*` is a hole for the rest."""

from __future__ import annotations

from dataclasses import dataclass

from llavakit.config import VisionConfig


@dataclass(frozen=True)
class Row:
    """One line of a key table. `ours` None: a weight that can never matter to us, so it is known and dropped."""

    theirs: str
    ours: str | None


Table = tuple[Row, ...]


def _llava_hf(*, language: str, head: str, tower: str, projector: str, newline: str) -> Table:
    return (
        # Positions and rotary frequencies are computed; old versions stored them.
        Row(f"{tower}.embeddings.position_ids", None),
        Row(f"{language}.layers.*.rotary_emb.inv_freq", None),
        # The tower's final norm and SigLIP's pooling come after the features are taken.
        Row(f"{tower}.post_layernorm.*", None),
        Row(f"{tower}.head.*", None),
        Row(f"{tower}.encoder.layers.*", "vision.layers.*"),
        Row(f"{tower}.*", "vision.*"),
        Row(f"{projector}.linear_1.*", "projector.fc1.*"),
        Row(f"{projector}.linear_2.*", "projector.fc2.*"),
        Row(newline, "image_newline"),
        Row(f"{head}.*", "language.lm_head.*"),
        Row(f"{language}.*", "language.*"),
    )


# One model, four sets of names: those of published files, of files by transformers 5 for a model that was not loaded
# from one, and those of a state dict saved straight from memory.
LLAVA_HF = _llava_hf(
    language="language_model.model",
    head="language_model.lm_head",
    tower="vision_tower.vision_model",
    projector="multi_modal_projector",
    newline="image_newline",
)
LLAVA_HF_FRESH_5 = _llava_hf(
    language="language_model.model",
    head="language_model.lm_head",
    tower="vision_tower",
    projector="multi_modal_projector",
    newline="image_newline",
)
LLAVA_HF_MEMORY_4_52 = _llava_hf(
    language="model.language_model",
    head="lm_head",
    tower="model.vision_tower.vision_model",
    projector="model.multi_modal_projector",
    newline="model.image_newline",
)
LLAVA_HF_MEMORY_5 = _llava_hf(
    language="model.language_model",
    head="lm_head",
    tower="model.vision_tower",
    projector="model.multi_modal_projector",
    newline="model.image_newline",
)
LLAVA_HF_LAYOUTS = (LLAVA_HF, LLAVA_HF_FRESH_5, LLAVA_HF_MEMORY_4_52, LLAVA_HF_MEMORY_5)


# The original's code, and every language model alone that it starts from.
ORIGINAL: Table = (
    Row("model.layers.*.rotary_emb.inv_freq", None),
    Row("model.vision_resampler.*", None),  # published ones have no weights that matter
    Row("model.vision_tower.vision_tower.vision_model.embeddings.position_ids", None),
    Row("model.vision_tower.vision_tower.vision_model.post_layernorm.*", None),
    Row("model.vision_tower.vision_tower.vision_model.head.*", None),
    Row("model.vision_tower.vision_tower.vision_model.encoder.layers.*", "vision.layers.*"),
    Row("model.vision_tower.vision_tower.vision_model.*", "vision.*"),
    Row("model.mm_projector.0.*", "projector.fc1.*"),
    Row("model.mm_projector.2.*", "projector.fc2.*"),
    Row("model.mm_projector.*", "projector.fc1.*"),
    Row("model.image_newline", "image_newline"),
    Row("lm_head.*", "language.lm_head.*"),
    Row("model.*", "language.*"),
)


def _tower(prefix: str) -> Table:
    return (
        Row("text_model.*", None),
        Row("text_projection.*", None),
        Row("visual_projection.*", None),
        Row("logit_scale", None),
        Row("logit_bias", None),
        Row(f"{prefix}embeddings.position_ids", None),
        Row(f"{prefix}post_layernorm.*", None),
        Row(f"{prefix}head.*", None),
        Row(f"{prefix}encoder.layers.*", "vision.layers.*"),
        Row(f"{prefix}*", "vision.*"),
    )


# A vision tower's own folder: the tower alone or with the text tower it was trained beside, and the tower alone as
# transformers 5 saves it.
TOWER_LAYOUTS = (_tower("vision_model."), _tower(""))


def unused_layers(vision: VisionConfig) -> Table:
    """Rows, in our own names, for the tower layers behind the one LLaVA reads."""
    return tuple(Row(f"vision.layers.{index}.*", None) for index in range(vision.num_used_layers, vision.num_layers))


def _both(theirs: str, ours: str) -> Table:
    """The weight and the bias of one layer."""
    return tuple(Row(f"{theirs}.{leaf}", f"{ours}.{leaf}") for leaf in ("weight", "bias"))


# llama.cpp's names, in its file of the language model.
GGUF_LANGUAGE: Table = (
    Row("token_embd.weight", "language.embed_tokens.weight"),
    Row("output_norm.weight", "language.norm.weight"),
    Row("output.weight", "language.lm_head.weight"),
    Row("blk.*.attn_norm.weight", "language.layers.*.input_layernorm.weight"),
    *_both("blk.*.attn_q", "language.layers.*.self_attn.q_proj"),
    *_both("blk.*.attn_k", "language.layers.*.self_attn.k_proj"),
    *_both("blk.*.attn_v", "language.layers.*.self_attn.v_proj"),
    Row("blk.*.attn_output.weight", "language.layers.*.self_attn.o_proj.weight"),
    Row("blk.*.ffn_norm.weight", "language.layers.*.post_attention_layernorm.weight"),
    Row("blk.*.ffn_gate.weight", "language.layers.*.mlp.gate_proj.weight"),
    Row("blk.*.ffn_up.weight", "language.layers.*.mlp.up_proj.weight"),
    Row("blk.*.ffn_down.weight", "language.layers.*.mlp.down_proj.weight"),
)

# And in that of the tower; it calls the projector's two layers mm.0 and mm.2.
GGUF_VISION: Table = (
    Row("v.class_embd", "vision.embeddings.class_embedding"),
    *_both("v.patch_embd", "vision.embeddings.patch_embedding"),
    Row("v.position_embd.weight", "vision.embeddings.position_embedding.weight"),
    *_both("v.pre_ln", "vision.pre_layrnorm"),
    *_both("v.blk.*.ln1", "vision.layers.*.layer_norm1"),
    *_both("v.blk.*.ln2", "vision.layers.*.layer_norm2"),
    *_both("v.blk.*.attn_q", "vision.layers.*.self_attn.q_proj"),
    *_both("v.blk.*.attn_k", "vision.layers.*.self_attn.k_proj"),
    *_both("v.blk.*.attn_v", "vision.layers.*.self_attn.v_proj"),
    *_both("v.blk.*.attn_out", "vision.layers.*.self_attn.out_proj"),
    # The wrong way round, as in every file for LLaVA since the first: llama.cpp turns them by their shapes.
    *_both("v.blk.*.ffn_down", "vision.layers.*.mlp.fc1"),
    *_both("v.blk.*.ffn_up", "vision.layers.*.mlp.fc2"),
    Row("model.image_newline", "image_newline"),
)
