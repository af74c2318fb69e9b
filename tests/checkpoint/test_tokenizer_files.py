"""The tokenizer of a folder: the ids of the original, from the files that lie on its users' disks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from PIL import Image

from llavakit.anyres import num_image_tokens
from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save
from llavakit.checkpoint.tokenizer_files import read_tokenizer
from llavakit.config import LlavaConfig, SpecialTokens
from llavakit.model import Llava
from llavakit.processing import Conversation, Processor, Tokenizer, assistant, render, user

TOKENS = SpecialTokens()
PICTURE = -200
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
CHATML = SPECIAL | {"<|im_start|>": 544, "<|im_end|>": 545}


def tokenize(tokenizer: Tokenizer, prompt: str, special: dict[str, int], *, bos: bool = True) -> list[int]:
    """A prompt with markers in it, cut into typed segments as the original means it."""
    ids, after = [1] if bos else [], "start"
    for part in re.split("(" + "|".join(map(re.escape, [*special, "<image>"])) + ")", prompt):
        if part == "<image>":
            ids, after = [*ids, PICTURE], "start"
        elif part in special:
            ids, after = [*ids, special[part]], "special"
        elif part:
            ids, after = ids + tokenizer.tokenize(part, after=after), "text"  # type: ignore[arg-type]
    return ids


# Which folder has the tokenizer that a checkpoint was run with.
CHECKPOINTS = {
    name: name for name in ("v1-linear", "v15-mlp", "v16-anyres-vicuna", "v16-anyres-mistral", "v0-delta")
} | {"lora": "vicuna-tiny", "projector-only": "vicuna-tiny"}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_prompts_have_the_ids_of_the_original(name: str, fixtures: Path, compared: Any) -> None:
    about = {"subject": f"original, {name}", "oracle": "haotian-liu/LLaVA c121f04"}
    tokenizer = read_tokenizer(fixtures / "checkpoints" / CHECKPOINTS[name], TOKENS)
    special = SPECIAL | ({"<im_patch>": 544, "<im_start>": 545, "<im_end>": 546} if name == "v0-delta" else {})
    cases = json.loads((fixtures / "cases" / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        ids = tokenize(tokenizer, case["prompt"], special)
        compared.equal(ids, case["input_ids"], stage="ids of the prompt", **about)
        # Where bytes are no character, the original's two tokenizers disagree on the number of U+FFFD.
        if "\ufffd" not in case["text"]:
            text = tokenizer.detokenize(case["generated_ids"]).strip()
            compared.equal(text, case["text"], stage="text of the answer", **about)


def rounds(before: str, user: str, assistant: str, end: str) -> Callable[[list[str]], str]:
    """How a template writes turns; an empty answer is left open, as if it were still to come."""

    def write(turns: list[str]) -> str:
        pairs = zip(turns[::2], turns[1::2], strict=True)
        return before + "".join(user + said + assistant + (answer and f" {answer}{end}") for said, answer in pairs)

    return write


def headers(turns: list[str]) -> str:
    """The template of v0, in which the header of a turn ends the one before."""
    named = zip(["Human", "Assistant"] * len(turns), turns, strict=False)
    return VICUNA.format("human") + "\n\n### " + "".join(f"{name}: {turn}\n### " for name, turn in named)


def chatml(turns: list[str]) -> str:
    named = zip(["user", "assistant"] * len(turns), turns, strict=False)
    said = [f"<|im_start|>{name}\n" + (turn and f"{turn}<|im_end|>") for name, turn in named]
    return "<|im_start|>system\nAnswer the questions.<|im_end|>" + "".join(said)


def llama_2(turns: list[str]) -> str:
    """Without the begin token that the tokenizer puts first."""
    write = rounds("", "<s>[INST] ", " [/INST]", " </s>")
    return write([LLAMA_2 + turns[0], *turns[1:]]).removeprefix("<s>")


VICUNA = (
    "A chat between a curious {0} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)
LLAMA_2 = (
    "<<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language.\n<</SYS>>\n\n"
)
V1 = rounds(VICUNA.format("user") + " ", "USER: ", " ASSISTANT:", "</s>")
LABELS: dict[str, tuple[Callable[[list[str]], str], dict[str, int]]] = {
    "v1": (V1, SPECIAL),
    "v1_legacy_tokenizer": (V1, SPECIAL),
    "plain": (lambda turns: "<image>" + turns[1] + "\n", SPECIAL),
    "llava_v0": (headers, SPECIAL),
    "llava_v0_nonlegacy_tokenizer": (headers, SPECIAL),
    "llama_2": (llama_2, SPECIAL),
    "llama_2_nonlegacy_tokenizer": (llama_2, SPECIAL),
    "mistral_instruct": (rounds("", "[INST] ", " [/INST]", " </s>"), SPECIAL),
    "chatml_direct": (chatml, CHATML),
    "chatml_direct_legacy_tokenizer": (chatml, CHATML),
    "chatml_direct_no_bos": (chatml, CHATML),
}


@pytest.mark.parametrize("name", LABELS)
def test_samples_have_the_ids_of_the_original(name: str, fixtures: Path, compared: Any) -> None:
    labels = json.loads((fixtures / "labels" / f"{name}.json").read_text(encoding="utf-8"))
    folder = fixtures / labels["tokenizer"]
    bos = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["add_bos_token"]
    write, special = LABELS[name]
    tokenizer = read_tokenizer(folder, TOKENS)
    for sample in samples(labels):
        prompt = write(sample["turns_after_multimodal"])
        ids, subject = tokenize(tokenizer, prompt, special, bos=bos), f"tokenizer {folder.name}, labels/{name}"
        compared.equal(
            ids, sample["input_ids"], subject=subject, stage="ids of the sample", oracle="haotian-liu/LLaVA c121f04"
        )


def samples(labels: dict[str, Any]) -> list[dict[str, Any]]:
    """Those the original could read; what comes before any question, each template treats in its own way."""
    readable = [sample for sample in labels["items"] if "error" not in sample]
    return [sample for sample in readable if len(sample["turns_after_multimodal"]) % 2 == 0]


def test_vicuna_and_plain_render_to_the_ids_of_the_original(fixtures: Path, model: Llava) -> None:
    """The whole way from a conversation, with nothing cut by hand."""
    config = with_vocabulary(model.config, 544).model_copy(update={"tokens": TOKENS})
    placeholders = [TOKENS.image] * num_image_tokens(14, 14, config)
    for name, template in (("v1", "vicuna_v1"), ("v1_legacy_tokenizer", "vicuna_v1"), ("plain", "plain")):
        labels = json.loads((fixtures / "labels" / f"{name}.json").read_text(encoding="utf-8"))
        tokenizer = read_tokenizer(fixtures / labels["tokenizer"], TOKENS)
        processor = Processor(config, tokenizer)
        for sample in samples(labels):
            turns = sample["turns_after_multimodal"]
            # An original prompt leaves an empty answer open, and takes </s> and <unk> in a text for the tokens.
            if "" in turns or sample["name"] in ("eos_in_text", "unk_in_text"):
                continue
            inputs = processor.tokenize_segments(render(conversation(turns), template), [(14, 14)])
            expected = [[id] if id != PICTURE else placeholders for id in sample["input_ids"]]
            assert inputs.tokens == [id for ids in expected for id in ids], sample["name"]


def conversation(turns: list[str]) -> Conversation:
    """As the original's data has it; its one newline after a picture is the template's."""
    picture = Image.new("RGB", (14, 14))
    messages = []
    for said, answer in zip(turns[::2], turns[1::2], strict=True):
        pictured = said.startswith("<image>\n")
        messages += [user(*([picture] if pictured else []), said.removeprefix("<image>\n")), assistant(answer)]
    return Conversation(tuple(messages))


def with_vocabulary(config: LlavaConfig, size: int) -> LlavaConfig:
    return config.model_copy(update={"language": config.language.model_copy(update={"vocab_size": size})})


@pytest.fixture
def bare(sentencepiece_file: Callable[..., bytes], llama_pieces: list[Any], tmp_path: Path) -> Path:
    """A folder with a tokenizer.model and nothing else."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "tokenizer.model").write_bytes(sentencepiece_file(llama_pieces))
    return tmp_path / "bare"


def put(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "legacy"),
    [(None, True), ({}, True), ({"legacy": None}, True), ({"legacy": True}, True), ({"legacy": False}, False)],
)
def test_legacy_is_what_the_folder_says(bare: Path, settings: dict[str, Any] | None, legacy: bool) -> None:
    if settings is not None:
        put(bare, "tokenizer_config.json", settings | {"padding_side": "left", "model_max_length": 1e30})
    tokenizer = read_tokenizer(bare, TOKENS)
    opened, plain = tokenizer.tokenize("the"), tokenizer.tokenize("the", after="text")
    assert tokenizer.tokenize("the", after="special") == (opened if legacy else plain) != (plain if legacy else opened)


@pytest.mark.parametrize(
    ("settings", "begin"),
    [
        ({}, [1]),
        ({"add_bos_token": True, "bos_token": {"__type": "AddedToken", "content": "</s>"}}, [2]),
        ({"add_bos_token": False, "bos_token": "<s>"}, []),
    ],
)
def test_the_begin_token_is_what_the_folder_says(bare: Path, settings: dict[str, Any], begin: list[int]) -> None:
    put(bare, "tokenizer_config.json", settings)
    tokenizer = read_tokenizer(bare, TOKENS)
    tokenizer.save(bare / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(bare / "tokenizer.json"))
    assert library.encode("the").ids == begin + tokenizer.tokenize("the")


def test_a_model_without_a_begin_token_begins_with_none(bare: Path, sentencepiece_file: Callable[..., bytes]) -> None:
    letters = [("<unk>", 0.0, 2), ("\u2581", -1.0, 1), ("a", -2.0, 1)]
    (bare / "tokenizer.model").write_bytes(sentencepiece_file(letters, trainer={35: 0}))
    tokenizer = read_tokenizer(bare, TOKENS)
    tokenizer.save(bare / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(bare / "tokenizer.json"))
    assert library.encode("a").ids == tokenizer.tokenize("a") == [1, 2]


def test_added_tokens_of_older_and_newer_folders(bare: Path, llama_pieces: list[Any]) -> None:
    size = len(llama_pieces)
    put(bare, "added_tokens.json", {"stone": size + 1, "<im_start>": size})
    put(bare, "special_tokens_map.json", {"additional_special_tokens": ["<im_start>"], "pad_token": "<unk>"})
    older = read_tokenizer(bare, TOKENS)
    decoder = {
        "2": {"content": "</s>", "special": True},
        str(size): {"content": "<im_start>", "special": True},
        str(size + 1): {"content": "stone", "special": False},
    }
    put(bare, "tokenizer_config.json", {"added_tokens_decoder": decoder})
    newer = read_tokenizer(bare, TOKENS)
    for tokenizer in (older, newer):
        assert tokenizer.size == size + 2
        assert tokenizer.detokenize([size, size + 1, 2]) == "stone"
        assert not {size, size + 1} & set(tokenizer.tokenize("<im_start> stone"))


def test_names_without_an_id_add_nothing(bare: Path, llama_pieces: list[Any]) -> None:
    put(bare, "special_tokens_map.json", {"pad_token": "[PAD]", "mask_token": None})
    assert read_tokenizer(bare, TOKENS).size == len(llama_pieces)


def test_a_model_loads_with_either_file(bare: Path, llama_pieces: list[Any], model: Llava) -> None:
    put(bare, "tokenizer_config.json", {"legacy": False})
    converted = read_tokenizer(bare, TOKENS)
    native = bare.parent / "native"
    save(Llava(with_vocabulary(model.config, len(llama_pieces))), converted, native)
    from_json = load(native).tokenizer
    (native / "tokenizer.json").unlink()
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(bare / name, native)
    from_model = load(native).tokenizer
    for text in (" the a", "</s> <0x0A>\n", "é 😀"):
        for after in ("start", "special", "text"):
            ids = converted.tokenize(text, after=after)
            assert ids == from_json.tokenize(text, after=after) == from_model.tokenize(text, after=after)


def test_a_tokenizer_json_goes_first(bare: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(bare / "tokenizer.json")
    assert read_tokenizer(bare, TOKENS).size == tokenizer.size


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer_config.json", [], "holds a JSON list"),
        ("tokenizer_config.json", {"added_tokens_decoder": 3}, "added_tokens_decoder in .* is 3"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": "a"}}, "'x' stands beside .* the id of a token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"4": {}}}, "{} stands beside .* where a token"),
        ("tokenizer_config.json", {"bos_token": 1}, "1 stands beside .* where a token should be"),
        ("tokenizer_config.json", {"bos_token": "<bos>"}, "begin token '<bos>' is neither"),
        ("special_tokens_map.json", {"additional_special_tokens": [7]}, "7 stands beside .* where a token"),
        ("added_tokens.json", {"": 32000}, "'' stands beside .* where a token should be"),
        ("added_tokens.json", {"\ud800": 300}, "cannot be used"),
        ("added_tokens.json", {"<pad>": 32000}, "'<pad>' has id 32000, and should have"),
        ("added_tokens.json", {"<pad>": float("inf")}, "inf stands beside .* the id of a token"),
    ],
)
def test_damaged_settings_are_told(bare: Path, name: str, content: Any, sentence: str) -> None:
    put(bare, name, content)
    with pytest.raises(CheckpointError, match=sentence):
        read_tokenizer(bare, TOKENS)


def test_a_damaged_model_is_told(bare: Path) -> None:
    file = bare / "tokenizer.model"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"tokenizer.model cannot be used: .* announced and \d+ left"):
        read_tokenizer(bare, TOKENS)
    with file.open("r+b") as sparse:
        sparse.truncate(2**34)
    with pytest.raises(CheckpointError, match="has 17,179,869,184 bytes, and at most 16,777,216 of such a file"):
        read_tokenizer(bare, TOKENS)
    file.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer.json and no tokenizer.model"):
        read_tokenizer(bare, TOKENS)
