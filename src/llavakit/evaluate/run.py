"""From a model and a test to a report."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from llavakit.checkpoint.load import Loaded
from llavakit.circumstances import circumstances, digest
from llavakit.data.records import DataError
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.evaluate.report import summarize
from llavakit.evaluate.task import Answer, Question, Questions, Task
from llavakit.kernels.graph import KeysValues
from llavakit.processing.conversation import Conversation
from llavakit.processing.image import open_image
from llavakit.quantize.apply import num_weights, scheme_of

MAX_TOKENS = 256  # the longest description takes about half of them

Watch = Callable[[Iterator[Answer], int], Iterator[Answer]]


def run(
    task: Task,
    test: Questions,
    loaded: Loaded,
    *,
    folder: Path,
    limit: int | None,
    seed: int,
    watch: Watch,
    kv_cache: KeysValues | None = None,
) -> dict[str, Any]:
    """The report on a model, as plain data. What stands under `results` depends on model, test, limit and seed alone.

    `test` is what `task.read` gave and `folder` holds the weights. `watch` gets the answers as they come and their
    number, and passes them on: it may show somebody how far the run has come. `kv_cache` is as in `Engine`, and on a
    CUDA device that takes the model over.
    """
    questions = choose(test.questions, limit=limit, seed=seed)
    parameters, scheme = num_weights(loaded.model), scheme_of(loaded.model)  # before an engine may take it over
    engine = Engine(loaded, is_compiled=True, kv_cache=kv_cache)
    start = perf_counter()
    answers = list(watch(ask(engine, task, questions), len(questions)))
    seconds = perf_counter() - start
    weight = loaded.model.language.norm.weight
    return {
        "task": task.name,
        "model": {
            "name": loaded.name,
            "parameters": parameters,
            "scheme": scheme,
            "computed_in": str(weight.dtype).removeprefix("torch."),
            "kv_cache": kv_cache,
            "sha256": digest(*sorted(file for file in folder.glob("*.safetensors") if file.is_file())),
        },
        "data": {
            "file": test.file.name,
            "sha256": digest(test.file),
            "questions": len(test.questions),
            "pictures": len({question.picture for question in test.questions}),
            "unscored": test.unscored,
        },
        "asked": {"questions": len(answers), "limit": limit, "seed": seed, "max_tokens": MAX_TOKENS},
        "results": summarize(task, answers),
        "seconds": round(seconds, 1),
        **circumstances(weight.device),
    }


def choose(questions: Sequence[Question], *, limit: int | None, seed: int) -> list[Question]:
    """The questions to ask, those about one picture together.

    Without a limit all of them, in the order of the file. With one, the pictures are shuffled by `seed` and asked about
    until there are enough questions.
    """
    pictures: dict[Path, list[Question]] = {}
    for question in questions:
        pictures.setdefault(question.picture, []).append(question)
    order = list(pictures)
    if limit is not None:
        random.Random(seed).shuffle(order)
    return [question for picture in order for question in pictures[picture]][:limit]


def ask(engine: Engine, task: Task, questions: Sequence[Question]) -> Iterator[Answer]:
    """The graded answers, one by one. Each question is a conversation of its own, answered greedily.

    The engine computes what questions in a row share, the system prompt and the picture, only once. Raises `DataError`
    naming the question where its picture cannot be read or its prompt is too long.
    """
    params = SamplingParams(max_tokens=MAX_TOKENS)
    for picture, asked in groupby(questions, key=lambda question: question.picture):
        image = None
        for question in asked:
            try:
                image = image or open_image(picture)
                given = engine.generate(Conversation().ask(image, question.text), params).text
            except ValueError as error:
                raise DataError(f"question {question.id!r}: {error}") from None
            yield Answer(question, given, task.grade(question, given))
