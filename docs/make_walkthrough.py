"""Writes docs/walkthrough.md: one picture followed through every file, printed by running it (`make docs`).

The page is what this script prints; its chapters are the functions below, in the order of the data.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import torch
from PIL import Image

from llavakit import catalog
from llavakit.anyres import num_image_tokens
from llavakit.checkpoint.formats import read_config
from llavakit.checkpoint.load import Loaded, load
from llavakit.checkpoint.reader import stored_tensors
from llavakit.checkpoint.rename import rename
from llavakit.checkpoint.tables import LLAVA_HF
from llavakit.data.collate import IGNORE, Sample, collate
from llavakit.engine import reference
from llavakit.engine.answer_text import AnswerText
from llavakit.engine.drafts import Lookup
from llavakit.engine.engine import Engine
from llavakit.engine.prefix_cache import prefix_keys
from llavakit.engine.sampling import SamplingParams, forbidden_tokens, probabilities, sample
from llavakit.engine.scheduler import Scheduler
from llavakit.engine.scheduler import Sequence as Scheduled
from llavakit.engine.stopping import StopStrings
from llavakit.model import Images, KVCache
from llavakit.model.llava import merge
from llavakit.processing import Conversation, Inputs, Processor, open_image, preprocess, render
from llavakit.train.loss import cross_entropy

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "examples" / "drawing.png"
FIRST, SECOND = "What color is the circle?", "Is there a cat in the picture?"
PARAMS = SamplingParams(max_tokens=24)


class Page:
    """Markdown in the making."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def chapter(self, title: str) -> None:
        self.lines += ["", f"## {title}"]

    def stop(self, files: str, words: str, *shown: str) -> None:
        """One file or a few: what happens there, and what it printed."""
        heading = ", ".join(f"[`{name}`](../src/llavakit/{name})" for name in files.split())
        self.lines += ["", f"### {heading}", "", words, "", "```", *shown, "```"]


def walkthrough(model: str | Path, picture: Path = PICTURE) -> str:
    """The whole page, for any model and picture."""
    page = Page()
    page.lines = [
        "# One picture, all the way through",
        "",
        f"`{picture.name}` and the question *{FIRST}*, followed through the code file by file. `make docs` prints this "
        "page anew by running each step.",
        "",
        f"![the picture](../examples/{picture.name})",
    ]
    loaded = _disk_to_model(page, model)
    image = open_image(picture)
    conversation, inputs = _to_tokens_and_pixels(page, loaded, image, picture)
    logits = _to_logits(page, loaded, inputs)
    answer = _to_text(page, loaded, conversation, inputs, logits)
    _second_question(page, loaded, conversation.answer(answer))
    _learning(page, loaded, conversation.answer(answer))
    return "\n".join(page.lines) + "\n"


def _disk_to_model(page: Page, model: str | Path) -> Loaded:
    page.chapter("Disk to model")
    folder = catalog.resolve(model)
    page.stop(
        "catalog.py", "A name becomes a folder; so does a path.", f"{Path(model).name!r} -> a folder with:",
        *(f"  {path.name}" for path in sorted(folder.iterdir()) if path.is_file()),
    )  # fmt: skip
    config, file_format = read_config(folder)
    page.stop(
        "config.py checkpoint/formats.py",
        "`config.json` is read into frozen, checked data, once `checkpoint/regular.py` has seen that it is a file. "
        "Which format it is in, its content says. (A foreign configuration would pass through "
        "`checkpoint/translate.py` or `checkpoint/translate_original.py` here, which share `checkpoint/sections.py`, "
        "the kinds of its values through `checkpoint/kinds.py`, its list of canvases through "
        "`checkpoint/pinpoints.py`, its rotary positions through `checkpoint/rope.py`, how to speak to it through "
        "`checkpoint/spoken.py`, and what an export of ours says beside through `checkpoint/remarks.py`.)",
        f"format {file_format}",
        *(f"{name}: {value}" for name, value in config),
    )
    stored = stored_tensors(folder)
    names = list(stored)[:: max(1, len(stored) // 6)]
    page.stop(
        "checkpoint/reader.py",
        "`checkpoint/contents.py` opens the safetensors file, and only its header is read. (A folder of the original "
        "code may be put together from several: `checkpoint/original.py`, with `checkpoint/towers.py`, "
        "`checkpoint/lora.py` and `checkpoint/picture_words.py`. `checkpoint/importing.py` writes any of them as a "
        "native folder, and lets `checkpoint/pickles.py` open what is pickled.)",
        f"{len(stored)} tensors, among them",
        *(f"  {name}  {list(stored[name].shape)}  {stored[name].dtype}" for name in names),
    )
    theirs = "language_model.model.layers.0.self_attn.q_proj.weight"
    row = rename(theirs, LLAVA_HF)
    assert row is not None
    page.stop(
        "checkpoint/tables.py checkpoint/rename.py",
        "A native file has our names already. One from Hugging Face has its own, and a table of ten rows says which is "
        "which.",
        f"{theirs}\n  -> {row.ours}",
    )
    loaded = load(folder)
    parts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in loaded.model.named_children()}
    page.stop(
        "checkpoint/weights.py checkpoint/load.py",
        "The model is built without memory and then given the stored tensors. A key missing or left over is an error.",
        *(f"{name}: {count:,} parameters" for name, count in parts.items()),
    )
    page.stop(
        "checkpoint/tokenizer_files.py",
        "Beside the weights lies the tokenizer. (Older folders have a `tokenizer.model` instead, which would be read "
        "by `processing/sentencepiece.py` with `processing/protobuf.py` and converted here.)",
        f"{loaded.tokenizer.size} tokens",
    )
    return loaded


def _to_tokens_and_pixels(page: Page, loaded: Loaded, image: Image.Image, picture: Path) -> tuple[Conversation, Inputs]:
    page.chapter("Image and text to tokens and pixels")
    config, tokenizer = loaded.config, loaded.tokenizer
    view = preprocess(image, config.vision, config.resize_mode)
    page.stop(
        "processing/image.py",
        "Any picture becomes upright RGB, and then the square of normalised numbers that the tower was trained on. (A "
        "model for any resolution would cut it into several such squares in `processing/tiles.py`.)",
        f"{picture.name}: {image.mode}, {image.width} x {image.height}",
        f"resize mode {config.resize_mode} -> {list(view.shape)} {view.dtype}, "
        f"from {view.min():.2f} to {view.max():.2f}",
    )
    conversation = Conversation().ask(image, FIRST)
    page.stop(
        "processing/conversation.py",
        "What is said is data before it is a prompt.",
        *(f"{message.role}: {[type(part).__name__ for part in message.parts]}" for message in conversation.messages),
    )
    segments = render(conversation, config.template)
    page.stop(
        "processing/templates.py processing/rendering.py processing/segments.py",
        f"The template `{config.template}` writes it down as typed segments. There is no marker in any text, so text "
        "that spells one stays text. (With `--template jinja` the checkpoint's own program would write it: "
        "`processing/jinja.py` has it run in `processing/sandbox.py`, and `processing/stand_ins.py` keeps from it what "
        "is said.)",
        *map(str, segments),
    )
    page.stop(
        "anyres.py",
        "How many tokens the picture will be, from its size alone; processor, model and engine all ask here.",
        f"num_image_tokens{image.size} = {num_image_tokens(*image.size, config)}",
    )
    ids = tokenizer.tokenize(FIRST)
    page.stop(
        "processing/tokenizer.py",
        "Text becomes ids, piece by piece, and special tokens cannot be spelt.",
        f"{FIRST!r} -> {ids}",
        " | ".join(tokenizer.detokenize([token]) for token in ids),
        f"{'<image>'!r} -> {tokenizer.tokenize('<image>')}, and the placeholder's id is {config.tokens.image}",
    )
    inputs = Processor(config, tokenizer)(conversation)
    assert inputs.pixels is not None
    (start, end) = inputs.spans[0]
    page.stop(
        "processing/processor.py",
        "All of it together: ids, with one placeholder for each image feature to come, and pixels.",
        f"{len(inputs.tokens)} tokens: {_short(inputs.tokens, start, end)}",
        f"the picture's placeholders: [{start}, {end})",
        f"pixels: {list(inputs.pixels.shape)}",
    )
    return conversation, inputs


@torch.inference_mode()
def _to_logits(page: Page, loaded: Loaded, inputs: Inputs) -> torch.Tensor:
    page.chapter("Tokens and pixels to hidden states to logits")
    model, config = loaded.model, loaded.config
    assert inputs.pixels is not None
    states = model.vision.hidden_states(inputs.pixels)
    features = model.vision.select(states)
    page.stop(
        "model/vision.py",
        "The tower cuts the picture into patches, adds one class vector, and lets all of them look at one another.",
        f"{len(states)} states of {list(states[0].shape)}: the embeddings, then one for each of "
        f"{len(states) - 1} layers",
        f"layer {config.vision.feature_layer} of {config.vision.num_layers}, without the class vector: "
        f"{list(features.shape)}",
    )
    projected = model.projector(features)
    page.stop(
        "model/projector.py",
        "The projector takes each feature into the space of word embeddings.",
        f"{config.projector.kind}: {list(features.shape)} -> {list(projected.shape)}",
    )
    tokens = torch.tensor([inputs.tokens])
    at = tokens == config.tokens.image
    embeds = merge(model.language.embed(tokens), at=at, features=model.encode_images(Images(inputs.pixels)))
    page.stop(
        "model/llava.py",
        "Words are looked up, and the projected features written over their placeholders: one masked write. From here "
        "on a picture is a row of tokens like any other. (The features of several tiles would be put in order in "
        "`model/arrange.py` first. Where fewer visual tokens are to be read at all, `model/reduce.py` makes them.)",
        f"embeds {list(embeds.shape)}, of which {int(at.sum())} come from the picture",
    )
    cache = KVCache(config.language, capacity=config.language.max_positions)
    hidden = model.language(embeds, torch.arange(len(inputs.tokens))[None], cache)
    page.stop(
        "model/language.py model/layers.py model/cache.py",
        "The decoder: each token looks back at those before it. Keys and values are kept for the tokens to come. "
        "(Where later layers are to read fewer visual tokens, `model/drop.py` chooses those that the prompt's end "
        "looks at.)",
        f"hidden states {list(hidden.shape)} after {config.language.num_layers} layers",
        f"cache: {cache.length} of {cache.capacity} tokens, keys and values {list(cache.keys.shape)}",
    )
    logits = model.language.logits(hidden[0, -1])
    page.lines += ["", f"Only the last position is asked for its scores: logits `{list(logits.shape)}`."]
    return logits


def _to_text(page: Page, loaded: Loaded, conversation: Conversation, inputs: Inputs, logits: torch.Tensor) -> str:
    page.chapter("Logits to tokens to text")
    tokenizer, tokens = loaded.tokenizer, inputs.tokens
    forbidden = forbidden_tokens(loaded.config, tokenizer.size)
    scores = logits.masked_fill(forbidden, -torch.inf)
    likely = probabilities(scores, SamplingParams(temperature=1), tokens).topk(5)
    page.stop(
        "engine/sampling.py",
        "The next token. Ids that no text can hold are out, such as the placeholder; a temperature of 0 takes the best "
        "of the others.",
        f"never said: {forbidden.nonzero().flatten().tolist()}",
        *(
            f"{tokenizer.detokenize([i], skip_special=False)!r:>12} {p:.3f}"
            for p, i in zip(*_lists(likely), strict=True)
        ),
        f"chosen: {sample(scores, PARAMS, PARAMS.generator(), tokens)}",
    )
    plain = reference.generate(loaded.model, inputs, PARAMS, tokenizer_size=tokenizer.size)
    page.stop(
        "engine/reference.py",
        "The naive loop computes everything anew for each token. It is the oracle for what follows.",
        f"{len(plain)} tokens: {plain}",
    )
    events = list(Engine(loaded).stream(conversation, PARAMS))
    completion = events[-1].completion
    assert completion is not None and list(completion.tokens) == plain
    page.stop(
        "engine/engine.py engine/answering.py engine/request.py",
        "The engine makes the same tokens, each from the last one and the cache, and hands out text as it comes.",
        " | ".join(event.text for event in events if event.text),
        f"finish_reason {completion.finish_reason}, prompt_tokens {len(completion.prompt_tokens)}, "
        f"image_tokens {completion.image_tokens}",
    )
    sequence = Scheduled(list(tokens), len(tokens) + PARAMS.max_tokens)
    scheduler = Scheduler(num_blocks=64, max_sequences=1, token_budget=64)
    scheduler.add(sequence)
    works = scheduler.schedule()
    page.stop(
        "engine/scheduler.py engine/blocks.py engine/runner.py engine/native_runner.py engine/block_storage.py "
        "engine/graph_runner.py engine/gpu_language.py engine/torch_language.py engine/recorded.py "
        "engine/fixed_storage.py",
        "Behind it, one step after the other: the scheduler says which tokens to compute and in which blocks of memory "
        "they go, the runner computes: with torch, or a whole step in one native call, or, where it is asked to on a "
        "CUDA device, in kernels of its own, recorded as a graph of fixed shapes. Computed tokens catch up with "
        "tokens, whether they are a prompt or an answer.",
        f"with 64 tokens a step the prompt of {len(tokens)} begins with [{works[0].start}, {works[0].end})",
        f"blocks of 16 for it and for {PARAMS.max_tokens} tokens of an answer: {sequence.num_blocks}",
    )
    lookup = Lookup(never=loaded.config.tokens.image)
    lookup.extend([*tokens, *plain])
    page.stop(
        "engine/drafts.py",
        "Where the last tokens stood before, what followed then can be guessed and verified in one step.",
        f"after the answer: {lookup.guess(4)}",
    )
    text, stops = AnswerText(tokenizer, inputs.answer, ()), StopStrings(["###"])
    page.stop(
        "engine/answer_text.py engine/stopping.py",
        "Half a character is held back until it is whole, and what may become a stop string until it is clear.",
        f"pieces: {[text.put(token) for token in plain[:8]]}",
        f"with the stop string '###': {[stops.put(piece) for piece in ('so ', '#', '# no', ' ##', '# never')]}",
    )
    page.lines += ["", f"> **{FIRST}** {completion.text}"]
    return completion.text


def _second_question(page: Page, loaded: Loaded, answered: Conversation) -> None:
    page.chapter("A second question")
    processor, engine = loaded.processor, Engine(loaded)
    first, second = Conversation(answered.messages[:1]), answered.ask(SECOND)
    before = engine.generate(first, PARAMS)
    after = engine.generate(second, PARAMS)
    inputs = processor(second)
    kept = [*before.prompt_tokens, *before.tokens]
    digests = [b"the picture"]
    keys = (prefix_keys(tokens, inputs.spans, digests) for tokens in (kept, inputs.tokens))
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*keys, strict=False))))
    page.stop(
        "engine/prefix_cache.py engine/image_cache.py",
        "The longest common beginning is not computed again, pictures compared by the digest of their pixels; and the "
        "tower does not look twice.",
        f"{len(inputs.tokens)} tokens in the prompt, {shared} of them shared with what the engine has seen",
        f"the engine itself: cached_tokens {after.timings.cached_tokens}",
    )
    page.lines += ["", f"> **{SECOND}** {after.text}"]


@torch.inference_mode()
def _learning(page: Page, loaded: Loaded, answered: Conversation) -> None:
    page.chapter("The same conversation as a lesson")
    inputs = loaded.processor(answered)
    learned = [token for token, target in zip(inputs.tokens, inputs.targets, strict=True) if target]
    page.lines += [
        "",
        "In training ([`data/datasets.py`](../src/llavakit/data/datasets.py)) the answer is there already, and the "
        f"same segments say what is to be learned: {len(learned)} of {len(inputs.tokens)} tokens, namely "
        f"`{loaded.tokenizer.detokenize(learned, skip_special=False)}`.",
    ]
    batch = collate([Sample(inputs.tokens, inputs.targets, inputs.pixels)], pad=loaded.config.tokens.pad)
    page.stop(
        "data/collate.py",
        f"A batch holds for each token the one that follows it, or {IGNORE} where that is not learned.",
        f"tokens {list(batch.tokens.shape)}, labels {list(batch.labels.shape)}, {batch.num_targets} of them learned",
    )
    hidden = loaded.model(batch.tokens, batch.images, batch.positions)
    loss = cross_entropy(hidden, batch.labels, loaded.model.language.output_weight) / batch.num_targets
    page.stop(
        "train/loss.py",
        "The loss is the mean surprise at those tokens. It is the model's own answer, so there is little to learn.",
        f"{loss.item():.3f}",
    )


def _short(tokens: Sequence[int], start: int, end: int) -> str:
    """The ids, with a picture's placeholders counted instead of shown."""
    before, after = (" ".join(map(str, part)) for part in (tokens[:start], tokens[end:]))
    return f"{before} [{end - start} times {tokens[start]}] {after}"


def _lists(top: torch.return_types.topk) -> tuple[list[float], list[int]]:
    return top.values.tolist(), top.indices.tolist()


if __name__ == "__main__":
    goal = ROOT / "docs" / "walkthrough.md"
    goal.write_text(walkthrough(sys.argv[1] if len(sys.argv) > 1 else "pocket"), encoding="utf-8")
    print(goal.relative_to(ROOT), file=sys.stderr)
