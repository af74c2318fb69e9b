"""Every conversation template of the family, as data: how a conversation is written down for a model.

The names are those of the original code and of LLaVA-NeXT. Where a name of theirs is another one's template, it is an
alias here too. `v0_training` and `llava_hf` are ours, for what has no name there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llavakit.config import nearest


@dataclass(frozen=True)
class Template:
    """One way to write a conversation, as data.

    `system` is None where the template has no place for a system prompt; `system_in_turn` puts it into the first
    turn of the user. `examples` are exchanges that stand before every conversation. `answer_prefix` is what stands
    between `assistant` and the first word of an answer; it is learned with the answer, so generation starts before it.
    `answer_suffix` is learned too, `after_answer` is not, and `between` stands only where another question follows.
    In these strings, but never in what is said, `<s>` and `</s>` are the begin and the end token and `markers` are
    tokens of the tokenizer.
    `stop` are strings that end an answer beside the end token.
    """

    system: str | None
    system_prefix: str = ""
    system_suffix: str = ""
    system_in_turn: bool = False
    examples: tuple[tuple[str, str], ...] = ()
    user: str = ""
    user_text: bool = True
    picture_prefix: str = ""
    picture_suffix: str = ""
    assistant: str = ""
    answer_prefix: str = ""
    answer_suffix: str = ""
    answer_eos: bool = True
    after_answer: str = ""
    between: str = ""
    max_messages: int | None = None
    markers: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


_VICUNA = Template(
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    system_suffix=" ",
    user="USER: ",
    picture_suffix="\n",
    assistant=" ASSISTANT:",
    answer_prefix=" ",
)
_HUMAN_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_VISUAL_FORMAT = "The visual content will be provided with the following format: <Image>visual content</Image>."
_VISUAL_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
    "visual content that the user provides, and assist the user with a variety of tasks using natural language."
    f"{_VISUAL_FORMAT}"
)
_HASHES = Template(
    system=_HUMAN_SYSTEM,
    system_suffix="###",
    user="Human: ",
    picture_suffix="\n",
    assistant="###Assistant:",
    answer_prefix=" ",
    answer_suffix="###",
    answer_eos=False,
    stop=("###",),
)
_LLAMA_2 = Template(
    system="You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user provides, and assist the user with a variety of tasks using natural language.",
    system_prefix="<<SYS>>\n",
    system_suffix="\n<</SYS>>\n\n",
    system_in_turn=True,
    user="[INST] ",
    picture_suffix="\n",
    assistant=" [/INST]",
    answer_prefix=" ",
    answer_suffix=" ",
    between="<s>",
)
_CHATML = Template(
    system="Answer the questions.",
    system_prefix="<|im_start|>system\n",
    system_suffix="<|im_end|>",
    user="<|im_start|>user\n",
    picture_suffix="\n",
    assistant="<|im_end|><|im_start|>assistant\n",
    answer_suffix="<|im_end|>",
    answer_eos=False,
    markers=("<|im_start|>", "<|im_end|>"),
    stop=("<|im_end|>",),
)
# Qwen's ChatML has a line break after every turn.
_QWEN = replace(
    _CHATML,
    system="You are a helpful assistant.",
    system_suffix="<|im_end|>\n",
    assistant="<|im_end|>\n<|im_start|>assistant\n",
    after_answer="\n",
)
_RENEWABLE_ENERGY = (
    "What are the key differences between renewable and non-renewable energy sources?",
    """Renewable energy sources are those that can be replenished naturally in a relatively short amount of time, \
such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the other hand, are finite and \
will eventually be depleted, such as coal, oil, and natural gas. Here are some key differences between renewable and \
non-renewable energy sources:
1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable energy sources are finite \
and will eventually run out.
2. Environmental impact: Renewable energy sources have a much lower environmental impact than non-renewable sources, \
which can lead to air and water pollution, greenhouse gas emissions, and other negative effects.
3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically have lower \
operational costs than non-renewable sources.
4. Reliability: Renewable energy sources are often more reliable and can be used in more remote locations than \
non-renewable sources.
5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different situations and \
needs, while non-renewable sources are more rigid and inflexible.
6. Sustainability: Renewable energy sources are more sustainable over the long term, while non-renewable sources are \
not, and their depletion can lead to economic and social instability.
""",
)

TEMPLATES: dict[str, Template] = {
    # What LLaVA-1.5 and 1.6 (Vicuna) were trained and scored with.
    "vicuna_v1": _VICUNA,
    "llava_v1": replace(_VICUNA, system=_HUMAN_SYSTEM),
    "v1_mmtag": replace(_VICUNA, system=_VISUAL_SYSTEM, picture_prefix="<Image>", picture_suffix="</Image>\n"),
    "llava_v0": _HASHES,
    "v0": replace(_HASHES, examples=(_RENEWABLE_ENERGY,)),
    # As the original's training code writes v0, with headers that its prompts do not have.
    "v0_training": replace(
        _HASHES,
        system_suffix="\n\n### ",
        assistant="\n### Assistant:",
        answer_suffix="\n###",
        after_answer=" ",
        stop=("\n###", "###"),
    ),
    "v0_mmtag": replace(_HASHES, system=_VISUAL_SYSTEM, picture_prefix="<Image>", picture_suffix="</Image>\n"),
    "llava_llama_2": _LLAMA_2,
    "llama_2": replace(
        _LLAMA_2,
        system="You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
        "being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or "
        "illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\n"
        "If a question does not make any sense, or is not factually coherent, explain why instead of answering "
        "something not correct. If you don't know the answer to a question, please don't share false information.",
    ),
    "llava_llama_2_simple": replace(
        _LLAMA_2, system="Answer the questions about the visual content that the user provides."
    ),
    "llava_llama_2_mmtag": replace(
        _LLAMA_2,
        system=f"Answer the questions about the visual content that the user provides.{_VISUAL_FORMAT}",
        picture_prefix="<Image>",
        picture_suffix="</Image>\n",
    ),
    "mistral_instruct": replace(_LLAMA_2, system="", between=""),
    "chatml_direct": _CHATML,
    "mpt": replace(
        _CHATML,
        system="A conversation between a user and an LLM-based AI assistant. "
        "The assistant gives helpful and honest answers.",
    ),
    "qwen_1_5": _QWEN,
    "qwen_2_5": replace(_QWEN, system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "mistral_orca": replace(
        _CHATML,
        system="You are MistralOrca, a large language model trained by Alignment Lab AI. "
        "Write out your reasoning step-by-step to be sure you get the right answers!",
    ),
    "mistral_zephyr": Template(
        system="You are a helpful AI assistant.",
        system_prefix="<|system|>\n",
        system_suffix="</s>",
        user="<|user|>\n",
        picture_suffix="\n",
        assistant="</s><|assistant|>\n",
    ),
    "llava_llama_3": Template(
        system=_LLAMA_2.system,
        system_prefix="<|start_header_id|>system<|end_header_id|>\n\n",
        system_suffix="<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n",
        picture_suffix="\n",
        assistant="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        answer_suffix="<|eot_id|>",
        answer_eos=False,
        markers=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        stop=("<|eot_id|>",),
    ),
    "gemma_instruct": Template(
        system=None,
        user="<start_of_turn>user\n",
        picture_suffix="\n",
        assistant="<end_of_turn>\n<start_of_turn>model\n",
        answer_suffix="<end_of_turn>",
        answer_eos=False,
        after_answer="\n",
        markers=("<start_of_turn>", "<end_of_turn>"),
        stop=("<end_of_turn>",),
    ),
    # As llava-hf's own 1.5 and 1.6 (Vicuna) checkpoints write: no system prompt, and no end token between rounds.
    "llava_hf": replace(_VICUNA, system="", answer_eos=False, after_answer=" "),
    # Upstream conv_llava_plain as preprocess_plain uses it in stage 1: the picture, then its caption.
    # What the user says is left out, and a newline ends the caption in place of the end token.
    "plain": Template(system=None, user_text=False, answer_suffix="\n", answer_eos=False, max_messages=2, stop=("\n",)),
}
# Other names that upstream has for the same template.
TEMPLATES |= {
    "v1": TEMPLATES["vicuna_v1"],
    "default": TEMPLATES["v0"],
    "llava_v0_mmtag": TEMPLATES["v0_mmtag"],
    "llava_v1_mmtag": TEMPLATES["v1_mmtag"],
    "llava_mistral_instruct": TEMPLATES["mistral_instruct"],
    "mistral_direct": TEMPLATES["chatml_direct"],
    "qwen_2": TEMPLATES["qwen_1_5"],
    "v0_plain": TEMPLATES["plain"],
}
_LISTED = "llava list --templates shows them all"


def find_template(name: str) -> Template:
    """The template of that name; raises ValueError that names the nearest known one."""
    if name not in TEMPLATES:
        raise ValueError(f"There is no template {name!r}: {nearest(name, list(TEMPLATES), otherwise=_LISTED)}.")
    return TEMPLATES[name]
