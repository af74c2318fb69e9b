"""Laws of what may be reused, over random prompts with pictures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llavakit.engine.prefix_cache import Key, num_reusable, prefix_keys

IMAGE, IMAGE_TOKENS = 3, 4
WORDS = st.lists(st.integers(4, 6), min_size=1, max_size=3)
PROMPTS = st.lists(WORDS | st.sampled_from([b"a", b"b"]), max_size=6)


def prompt(parts: list[list[int] | bytes]) -> tuple[list[Key], list[tuple[int, int]]]:
    tokens, spans, digests = [1], [], []
    for part in parts:
        if isinstance(part, bytes):
            spans.append((len(tokens), len(tokens) + IMAGE_TOKENS))
            digests.append(part)
            tokens += [IMAGE] * IMAGE_TOKENS
        else:
            tokens += part
    tokens += [9]
    return prefix_keys(tokens, spans, digests), spans


@given(PROMPTS, PROMPTS, st.integers(0, 20))
def test_the_reused_part_is_equal_whole_and_as_long_as_possible(
    cached: list[list[int] | bytes], wanted: list[list[int] | bytes], num_lost: int
) -> None:
    old, _ = prompt(cached)
    old = old[: max(0, len(old) - num_lost)]
    new, spans = prompt(wanted)
    kept = num_reusable(old, new, spans)
    allowed = [n for n in range(len(new)) if n <= len(old) and not any(start < n < end for start, end in spans)]
    assert kept == max(n for n in allowed if old[:n] == new[:n])


@given(PROMPTS)
def test_the_same_prompt_again_costs_its_last_token(parts: list[list[int] | bytes]) -> None:
    keys, spans = prompt(parts)
    assert num_reusable(keys, keys, spans) == len(keys) - 1
