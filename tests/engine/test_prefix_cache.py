"""Laws of what may be reused, over random prompts with pictures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llavakit.engine.blocks import BLOCK
from llavakit.engine.prefix_cache import Key, Match, PrefixCache, chain, prefix_keys, root

IMAGE, IMAGE_TOKENS = 3, 20
WORDS = st.lists(st.integers(4, 5), min_size=1, max_size=20)
PROMPTS = st.lists(WORDS | st.sampled_from([b"a" * 16, b"b" * 16]), max_size=4)


def prompt(parts: list[list[int] | bytes]) -> list[Key]:
    tokens, spans, digests = [1], [], []
    for part in parts:
        if isinstance(part, bytes):
            spans.append((len(tokens), len(tokens) + IMAGE_TOKENS))
            digests.append(part)
            tokens += [IMAGE] * IMAGE_TOKENS
        else:
            tokens += part
    return prefix_keys([*tokens, 9], spans, digests)


def names_of(keys: list[Key], tenant: str) -> list[bytes]:
    names = [root(tenant)]
    for start in range(0, len(keys) - BLOCK + 1, BLOCK):
        names.append(chain(names[-1], keys[start : start + BLOCK]))
    return names


def fill(cache: PrefixCache, keys: list[Key], tenant: str, first_block: int) -> None:
    names = names_of(keys, tenant)
    for index, start in enumerate(range(0, len(keys), BLOCK)):
        cache.put(first_block + index, names[index], keys[start : start + BLOCK])


def num_reused(match: Match) -> int:
    return len(match.blocks) * BLOCK + match.num_partial


@given(st.lists(PROMPTS, max_size=4), PROMPTS)
def test_the_reused_part_is_equal_and_as_long_as_possible(
    known: list[list[list[int] | bytes]], wanted: list[list[int] | bytes]
) -> None:
    cache, keys = PrefixCache(), prompt(wanted)
    old = [prompt(parts) for parts in known]
    for number, one in enumerate(old):
        fill(cache, one, "", 100 * number)
    common = [next((i for i, (a, b) in enumerate(zip(one, keys, strict=False)) if a != b), len(one)) for one in old]
    assert num_reused(cache.match(keys, names_of(keys, ""))) == min(max(common, default=0), len(keys) - 1)


@given(PROMPTS)
def test_the_same_prompt_again_costs_its_last_token_but_not_that_of_another_tenant(
    parts: list[list[int] | bytes],
) -> None:
    cache, keys = PrefixCache(), prompt(parts)
    fill(cache, keys, "a", 0)
    assert num_reused(cache.match(keys, names_of(keys, "a"))) == len(keys) - 1
    assert num_reused(cache.match(keys, names_of(keys, "b"))) == 0


@given(PROMPTS, PROMPTS)
def test_what_is_forgotten_is_not_found(one: list[list[int] | bytes], other: list[list[int] | bytes]) -> None:
    cache = PrefixCache()
    for number, parts in enumerate((one, other)):
        fill(cache, prompt(parts), "", 100 * number)
    for block in list(cache):
        cache.forget(block)
    for parts in (one, other):
        assert cache.match(prompt(parts), names_of(prompt(parts), "")) == Match([], None, 0)
    assert not list(cache)


def test_a_picture_is_no_token() -> None:
    """A digest whose bytes are those of a token's key is another key all the same."""
    keys: list[Key] = [7] * BLOCK
    assert chain(root(""), keys) != chain(root(""), [(7).to_bytes(16, "little")] * BLOCK)
