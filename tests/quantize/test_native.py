"""Native graphs say what the quantised modules say, and each sequence the same alone, in chunks and beside others."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter

import pytest
import torch
from torch import Tensor

from llavakit.anyres import PartlyKept
from llavakit.config import LanguageConfig, VisionConfig
from llavakit.kernels import native
from llavakit.kernels.graph import BLOCK, PARTS, Dropping, KeysValues, NativeDecoder
from llavakit.model import LanguageModel, VisionTower
from llavakit.model import language as model_language
from llavakit.model.cache import KVCache
from llavakit.model.drop import Drop, staying
from llavakit.quantize.linear import QuantizedEmbedding, QuantizedLinear
from llavakit.quantize.native import native_decoder, native_tower
from llavakit.quantize.schemes import SCHEMES, Grid
from llavakit.quantize.search import quantize_matrix

pytestmark = pytest.mark.skipif(native is None, reason="the native kernels are not built")

NUM_BLOCKS = 40


def quantised(model: torch.nn.Module, grid: Grid) -> torch.nn.Module:
    """All matrices of a part by one grid."""
    for name, part in list(model.named_modules()):
        if isinstance(part, torch.nn.Linear):
            place = QuantizedLinear(*part.weight.shape, grid, bias=part.bias)
        elif name == "embed_tokens":
            place = QuantizedEmbedding(*part.weight.shape, grid)
        else:
            continue
        place.packed = quantize_matrix(part.weight.detach(), grid).data
        model.set_submodule(name, place)
    return model


@pytest.fixture(scope="module", params=[("int8", 4, 4, False), ("int4-g32", 6, 2, True), ("int4-g128", 4, 1, False)])
def language(request: pytest.FixtureRequest) -> LanguageModel:
    scheme, heads, kv_heads, qkv_bias = request.param
    torch.manual_seed(0)
    config = LanguageConfig(
        vocab_size=90,
        hidden_size=96,
        intermediate_size=176,
        num_layers=3,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=32,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_positions=NUM_BLOCKS * BLOCK,
        tie_embeddings=False,
        qkv_bias=qkv_bias,
    )
    return quantised(LanguageModel(config).eval(), SCHEMES[scheme].language)


@pytest.fixture(scope="module")
def decoder(language: LanguageModel) -> NativeDecoder:
    return native_decoder(language)


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def a_table(seed: int = 0) -> Tensor:
    """A sequence's blocks, in no order."""
    return torch.randperm(NUM_BLOCKS, generator=torch.Generator().manual_seed(seed)).int()


def logits_of(decoder: NativeDecoder, tokens: Tensor, chunks: list[int], kept_as: KeysValues = "float16") -> Tensor:
    """All logits of one sequence that comes in chunks of these lengths."""
    cache, table, found, start = decoder.new_cache(NUM_BLOCKS, kept_as), a_table()[None], [], 0
    for length in chunks:
        here = torch.arange(length).int()
        found.append(
            decoder.step(tokens[start : start + length], start + here, ints(0, length), ints(start), table, cache, here)
        )
        start += length
    return torch.cat(found)


@torch.inference_mode()
def test_a_decoder_is_its_modules(language: LanguageModel, decoder: NativeDecoder) -> None:
    """As near as a change in the last bit of the activations before they become int8 leaves it."""
    tokens = torch.randint(0, 90, (70,), generator=torch.Generator().manual_seed(1)).int()
    hidden = language(language.embed(tokens[None].long()), torch.arange(70)[None])
    wanted = language.lm_head(hidden[0])
    found = logits_of(decoder, tokens, [70])
    assert (found - wanted).norm() < 0.02 * wanted.norm()


class RoundedCache(KVCache):
    """Keys and values of 8 bits, in torch: each head's of a position with a scale of its own."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return super().extend(layer, _rounded(keys), _rounded(values))


def _rounded(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 127
    return (x / scale).round() * scale


@torch.inference_mode()
def test_keys_and_values_of_8_bits_are_their_twin_in_torch() -> None:
    """With weights that are floats, so that nothing else is rounded."""
    torch.manual_seed(3)
    config = LanguageConfig(
        vocab_size=90, hidden_size=96, intermediate_size=176, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=32,
        max_positions=NUM_BLOCKS * BLOCK,
    )  # fmt: skip
    model = LanguageModel(config).half().float().eval()
    decoder = native_decoder(model, "float16")
    tokens = torch.randint(0, 90, (70,), generator=torch.Generator().manual_seed(1)).int()
    cache = RoundedCache(config, capacity=70)
    wanted = model.lm_head(model(model.embed(tokens[None].long()), torch.arange(70)[None], cache)[0])
    found = logits_of(decoder, tokens, [33, 1, 36], "int8")
    assert (found - wanted).norm() < 1e-4 * wanted.norm() < (logits_of(decoder, tokens, [70]) - wanted).norm() / 5


@torch.inference_mode()
@pytest.mark.parametrize("kept_as", ["float16", "int8"])
def test_chunks_change_nothing(decoder: NativeDecoder, kept_as: KeysValues) -> None:
    tokens = torch.randint(0, 90, (70,), generator=torch.Generator().manual_seed(1)).int()
    whole = logits_of(decoder, tokens, [70], kept_as)
    for chunks in ([1] * 70, [16, 1, 20, 33], [69, 1]):
        assert torch.equal(logits_of(decoder, tokens, chunks, kept_as), whole)


@torch.inference_mode()
@pytest.mark.parametrize("kept_as", ["float16", "int8"])
def test_neighbours_change_nothing(decoder: NativeDecoder, kept_as: KeysValues) -> None:
    """Three sequences in one step: a prompt, a single token behind a prompt, and some drafts behind another."""
    random = torch.Generator().manual_seed(2)
    tokens = [torch.randint(0, 90, (length,), generator=random).int() for length in (40, 30, 25)]
    alone = [logits_of(decoder, each, [len(each)], kept_as) for each in tokens]
    width = 8
    tables, cache = a_table(3)[: 3 * width].view(3, width), decoder.new_cache(NUM_BLOCKS, kept_as)
    for sequence, known in ((1, 29), (2, 20)):
        here = torch.arange(known).int()
        decoder.step(tokens[sequence][:known], here, ints(0, known), ints(0), tables[sequence][None], cache, ints())
    found = decoder.step(
        torch.cat((tokens[0], tokens[1][29:], tokens[2][20:])),
        torch.cat((torch.arange(40), ints(29), torch.arange(20, 25))).int(),
        ints(0, 40, 41, 46),
        ints(0, 29, 20),
        tables.contiguous(),
        cache,
        ints(39, 40, 41, 42, 43, 44, 45),
    )
    assert torch.equal(found, torch.cat((alone[0][39:], alone[1][29:], alone[2][20:])))


@torch.inference_mode()
@pytest.mark.parametrize(("kept_as", "limit"), [("float16", 0.02), ("int8", 0.03)])
def test_a_bias_of_the_cache_is_added_to_the_attention(
    language: LanguageModel, decoder: NativeDecoder, kept_as: KeysValues, limit: float
) -> None:
    """As the modules do; in chunks and beside others the same to the last bit; and a bias of nothing is none."""
    tokens = torch.randint(0, 90, (70,), generator=torch.Generator().manual_seed(6)).int()
    here, table = torch.arange(70).int(), a_table()[None]
    bias = torch.zeros(70)
    bias[10:30] = torch.arange(20).mul(0.4)
    wanted = language.lm_head(language(language.embed(tokens[None].long()), here[None].long(), bias=bias[None])[0])
    known = torch.full((NUM_BLOCKS, BLOCK), 7.0)  # of others, and of what is yet to come
    known.view(-1)[(table[0, :5, None] * BLOCK + torch.arange(BLOCK)).flatten()[:70].long()] = bias

    def step(start: int, end: int, cache: Tensor, bias: Tensor | None) -> Tensor:
        rows, wants = ints(0, end - start), here[: end - start]
        return decoder.step(tokens[start:end], here[start:end], rows, ints(start), table, cache, wants, bias=bias)

    def room() -> Tensor:
        return decoder.new_cache(NUM_BLOCKS, kept_as)

    whole, plain = (step(0, 70, room(), bias) for bias in (known, None))
    assert (whole - wanted).norm() < limit * wanted.norm()
    assert (whole[30:] - plain[30:]).norm() > 0.04 * wanted[30:].norm()
    cache, cuts = room(), [0, 16, 17, 37, 69, 70]
    assert torch.equal(torch.cat([step(*cut, cache, known) for cut in pairwise(cuts)]), whole)
    assert torch.equal(step(0, 70, room(), torch.zeros(NUM_BLOCKS, BLOCK)), plain)


@torch.inference_mode()
@pytest.mark.parametrize("extreme", [float("nan"), float("inf"), 3e38, 1e-42, 0.0])
@pytest.mark.parametrize("kept_as", ["float16", "int8"])
def test_extreme_numbers_stay_with_their_sequence(
    language: LanguageModel, decoder: NativeDecoder, kept_as: KeysValues, extreme: float
) -> None:
    """Neither who is computed beside them nor who gets their blocks afterwards is changed by a bit."""
    tokens = torch.randint(0, 90, (40,), generator=torch.Generator().manual_seed(7)).int()
    alone = logits_of(decoder, tokens, [40], kept_as)
    cache, tables, here = decoder.new_cache(NUM_BLOCKS, kept_as), a_table()[:6].view(2, 3), torch.arange(40).int()
    both = decoder.step(
        torch.cat((torch.full((40,), -1).int(), tokens)),
        torch.cat((here, here)),
        ints(0, 40, 80),
        ints(0, 0),
        tables,
        cache,
        here + 40,
        torch.full((40, language.config.hidden_size), extreme),
    )
    assert torch.equal(both, alone)
    assert torch.equal(decoder.step(tokens, here, ints(0, 40), ints(0), tables[:1], cache, here), alone)


@torch.inference_mode()
def test_embeddings_in_place_of_tokens(language: LanguageModel, decoder: NativeDecoder) -> None:
    tokens = torch.randint(0, 90, (12,), generator=torch.Generator().manual_seed(4)).int()
    whole, cache = logits_of(decoder, tokens, [12]), decoder.new_cache(NUM_BLOCKS)
    embeds = language.embed(tokens[None, 3:9].long())[0]
    masked = tokens.clone()
    masked[3:9] = -1
    here = torch.arange(12).int()
    assert torch.equal(decoder.step(masked, here, ints(0, 12), ints(0), a_table()[None], cache, here, embeds), whole)


@torch.inference_mode()
def test_positions_may_leave_gaps(language: LanguageModel, decoder: NativeDecoder) -> None:
    tokens = torch.randint(0, 90, (20,), generator=torch.Generator().manual_seed(5)).int()
    positions = torch.arange(20).mul(3).add(1).int()
    wanted = language.lm_head(language(language.embed(tokens[None].long()), positions[None].long())[0])
    cache, here = decoder.new_cache(NUM_BLOCKS), torch.arange(20).int()
    found = decoder.step(tokens, positions, ints(0, 20), ints(0), a_table()[None], cache, here)
    assert (found - wanted).norm() < 0.02 * wanted.norm()


@pytest.fixture(scope="module", params=[(4, 4), (6, 2)])
def lively(request: pytest.FixtureRequest) -> LanguageModel:
    """Of bfloat16 numbers, and attending to little at a time: it matters what is dropped."""
    heads, kv_heads = request.param
    torch.manual_seed(0)
    shape = {"hidden_size": 96, "intermediate_size": 176, "num_layers": 3, "head_dim": 32}
    config = LanguageConfig(vocab_size=90, num_heads=heads, num_kv_heads=kv_heads, **shape)
    language = LanguageModel(config).eval().requires_grad_(False)
    for weight in language.parameters():
        if weight.dim() > 1:
            weight.copy_((torch.randn_like(weight) * (1.3 / weight.shape[1] ** 0.5)).bfloat16())
    language.embed_tokens.weight.copy_(torch.randn(90, 96).bfloat16())
    return language


def at_the_widest_gap(
    language: LanguageModel, tokens: Tensor, after: int, spans: list[tuple[int, int]]
) -> list[PartlyKept]:
    """The spans with how many are to stay, where it is clear which: roundings then change no choice."""
    seen: list[Tensor] = []

    def watched(attention: Tensor, pictures: list[PartlyKept]) -> Tensor:
        seen.append(attention)
        return staying(attention, pictures)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(model_language, "staying", watched)
        drop = Drop(after, [(*span, 1) for span in spans])
        language(language.embed(tokens[None].long()), torch.arange(len(tokens))[None], drop=drop)
    found = []
    for first, end in spans:
        ranked = seen[0][first:end].sort(descending=True).values[: (end - first) // 2]
        found.append((first, end, 1 + int((ranked[:-1] / ranked[1:]).argmax())))
    return found


def dropping(after: int, cached: Tensor, pictures: list[PartlyKept]) -> Dropping:
    return Dropping(after, cached, torch.tensor(pictures, dtype=torch.int32).reshape(len(pictures), 3))


@torch.inference_mode()
@pytest.mark.parametrize(("kept_as", "limit"), [("float16", 1e-3), ("int8", 0.02)])
@pytest.mark.parametrize("after", [1, 2])
def test_what_is_dropped_is_what_the_modules_drop(
    lively: LanguageModel, after: int, kept_as: KeysValues, limit: float
) -> None:
    """A prompt with two pictures, then an answer; how it comes and what stands beside it changes no bit."""
    number, decoder = 70, native_decoder(lively, "bfloat16")
    tokens = torch.randint(0, 90, (number + 3,), generator=torch.Generator().manual_seed(after)).int()
    pictures = at_the_widest_gap(lively, tokens[:number], after, [(9, 33), (40, 64)])
    gone = sum(end - first - count for first, end, count in pictures)

    def said(drop: Drop | None) -> Tensor:
        states = lively(lively.embed(tokens[None].long()), torch.arange(number + 3)[None], drop=drop)
        return lively.lm_head(states[0, -4:])

    def answer(before: int, beside: int) -> Tensor:
        """The scores behind the prompt and the answer; of the prompt `before` tokens come first.

        Some of `beside` tokens of another sequence stand in front in each step.
        """
        cache, tables = decoder.new_cache(NUM_BLOCKS, kept_as), a_table().view(2, -1)
        found, others = [], 0
        for start, end in pairwise([0, *([before] if before else []), number, number + 1, number + 3]):
            sequences = slice(0 if beside else 1, 2)
            new = torch.cat((torch.arange(others, others + beside) % 90, tokens[start:end]))
            places = torch.cat((torch.arange(others, others + beside), torch.arange(start, end)))
            held, gone_before = torch.tensor([others, start]), torch.tensor([0, gone if start >= number else 0])
            pictures_here = [
                (beside + first - start, beside + last - start, count)
                for first, last, count in pictures
                if start <= first < end
            ]
            logits = decoder.step(
                new.int(),
                places.int(),
                ints(0, beside, len(new)) if beside else ints(0, len(new)),
                held[sequences].int(),
                tables[sequences],
                cache,
                torch.arange(len(new) - (end - start if start >= number else 1), len(new)).int(),
                dropping=dropping(after, (held - gone_before)[sequences].int(), pictures_here),
            )
            found += [logits] if end >= number else []
            others += beside
        return torch.cat(found)

    alone, wanted = answer(0, 0), said(Drop(after, pictures, asker=number - 1))
    assert (alone - wanted).norm() < limit * wanted.norm()
    fewer = [(first, end, count + 1) for first, end, count in pictures]
    for other in (None, Drop(after, pictures, asker=number - 2), Drop(after, fewer, asker=number - 1)):
        assert (said(other) - wanted).norm() > 2 * limit * wanted.norm()
    for before, beside in ((5, 0), (0, 20), (9, 3)):
        assert torch.equal(answer(before, beside), alone)


@torch.inference_mode()
def test_to_keep_all_rows_is_to_drop_nothing(decoder: NativeDecoder) -> None:
    tokens, here = torch.arange(50).int(), torch.arange(50).int()
    whole, cache = logits_of(decoder, tokens, [50])[-1:], decoder.new_cache(NUM_BLOCKS)
    for pictures in ([], [(3, 20, 17), (30, 49, 19)]):
        found = decoder.step(
            tokens,
            here,
            ints(0, 50),
            ints(0),
            a_table()[None],
            cache,
            ints(49),
            dropping=dropping(1, ints(0), pictures),
        )
        assert torch.equal(found, whole)


def test_what_cannot_be_dropped_is_refused(decoder: NativeDecoder) -> None:
    given = (torch.arange(20).int(), torch.arange(20).int(), ints(0, 10, 20), ints(4, 0), a_table().view(2, -1))
    cache = decoder.new_cache(NUM_BLOCKS)
    decoder.step(*given, cache, ints(9, 19), dropping=dropping(1, ints(3, 0), [(2, 5, 1), (5, 9, 2), (12, 19, 7)]))
    for after, cached, pictures, wanted in (
        (0, (3, 0), [], 19),
        (3, (3, 0), [], 19),
        (1, (5, 0), [], 19),
        (1, (3, -1), [], 19),
        (1, (3,), [], 19),
        (1, (3, 0), [(2, 5, 4)], 19),
        (1, (3, 0), [(2, 5, 0)], 19),
        (1, (3, 0), [(2, 10, 1)], 19),
        (1, (3, 0), [(8, 12, 1)], 19),
        (1, (3, 0), [(5, 8, 1), (2, 4, 1)], 19),
        (1, (3, 0), [(2, 5, 1), (4, 8, 1)], 19),
        (1, (3, 0), [(12, 20, 1)], 19),
        (1, (3, 0), [(12, 16, 1)], 14),
        (1, (3, 0), [(-2, 5, 1)], 19),
        (1, (3, 0), [(22, 25, 1)], 19),
    ):
        with pytest.raises(ValueError):
            decoder.step(*given, cache, ints(wanted), dropping=dropping(after, ints(*cached), pictures))


def test_what_does_not_fit_is_refused(decoder: NativeDecoder) -> None:
    cache, table = decoder.new_cache(NUM_BLOCKS), a_table()[None]
    good = {
        "tokens": ints(1, 2),
        "positions": ints(0, 1),
        "starts": ints(0, 2),
        "cached": ints(0),
        "tables": table,
        "cache": cache,
        "wanted": ints(1),
    }
    decoder.step(**good)
    for bad in (
        {"tokens": ints(1, 90)},
        {"tokens": ints(1, -1)},
        {"positions": ints(-1, 0)},
        {"positions": ints(0, NUM_BLOCKS * BLOCK)},
        {"cached": ints(NUM_BLOCKS * BLOCK - 1)},
        {"starts": ints(0, 1)},
        {"tables": table + NUM_BLOCKS},
        {"wanted": ints(2)},
        {"wanted": ints(1, 1, 1)},
        {"cache": cache[:1]},
    ):
        with pytest.raises(ValueError):
            decoder.step(**{**good, **bad})
    given = (ints(1, 2), ints(0, 1), ints(0, 2), ints(0), table, None, cache, ints(1), torch.empty(1, 90))
    with pytest.raises(ValueError, match="bias"):
        decoder._native.step(*given, torch.zeros(2, BLOCK), None, -1, None, None)
    with pytest.raises(ValueError, match="seconds"):
        decoder._native.step(*given, None, torch.zeros(3, dtype=torch.float64), -1, None, None)


@torch.inference_mode()
def test_the_seconds_of_the_parts_are_those_of_the_step(decoder: NativeDecoder) -> None:
    tokens, here = torch.arange(64).int() % 90, torch.arange(64).int()
    seconds, cache = torch.zeros(len(PARTS), dtype=torch.float64), decoder.new_cache(NUM_BLOCKS)
    start = perf_counter()
    found = decoder.step(tokens, here, ints(0, 64), ints(0), a_table()[None], cache, here, seconds=seconds)
    passed = perf_counter() - start
    assert (seconds > 0).all() and 0 < seconds.sum() <= passed
    assert torch.equal(found, logits_of(decoder, tokens, [64]))


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh"])
def test_a_tower_is_its_modules(activation: str) -> None:
    torch.manual_seed(0)
    config = VisionConfig(
        image_size=56,
        patch_size=14,
        hidden_size=64,
        intermediate_size=160,
        num_layers=4,
        num_heads=2,
        activation=activation,
        layer_norm_eps=1e-5,
        feature_layer=-2,
        feature_select="patch",
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    )
    tower = quantised(VisionTower(config).eval(), SCHEMES["int8"].tower)
    states = tower.hidden_states(torch.randn(3, 3, 56, 56))
    graph = native_tower(tower)
    found = graph.run(states[0])
    assert (found - states[-1]).norm() < 0.02 * states[-1].norm()
    assert torch.equal(torch.cat([graph.run(view[None]) for view in states[0]]), found)
    again, looks = graph.run_looking(states[0])
    assert torch.equal(again, found)
    by_class = torch.stack(
        [
            layer.self_attn.looked_at(layer.layer_norm1(entered), slice(1))
            for layer, entered in zip(tower.layers, states, strict=False)
        ]
    )
    torch.testing.assert_close(looks.mean(2), by_class, atol=2e-3, rtol=0)
    assert by_class.std() > 5e-3
