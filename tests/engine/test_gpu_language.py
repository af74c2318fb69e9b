"""The kernels of a GPU against the same model in torch; interpreted where there is no card, and then slow and tiny."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="kernels of a GPU are written in triton, which is not installed")

from tests.kernels.gpu.fibers import OnFibers

from llavakit.anyres import PartlyKept
from llavakit.bench.shapes import random_model
from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.engine import gpu_language
from llavakit.engine.block_storage import OneSequence
from llavakit.engine.fixed_storage import FixedStorage
from llavakit.engine.gpu_language import GpuLanguage, can_take
from llavakit.engine.torch_language import TorchLanguage
from llavakit.kernels.gpu import decoder, persistent
from llavakit.kernels.packed import dequantize
from llavakit.model import LanguageModel
from llavakit.model.drop import Drop
from llavakit.quantize.apply import quantize_model
from llavakit.quantize.linear import QuantizedEmbedding, QuantizedLinear, TiedHead
from llavakit.quantize.schemes import SCHEMES

IS_CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if IS_CUDA else "cpu")
BLOCKS, PADDING, VOCAB = 12, 12, 77

# hidden, inner, query heads, key heads, channels of a head, bias of the heads, tied embeddings
SHAPES = {
    "plain": (64, 96, 2, 2, 32, False, False),
    "grouped": (96, 64, 6, 2, 32, True, True),
    "odd": (288, 272, 2, 1, 96, False, False),  # columns that fill no chunk, and heads that are no power of two
    "wide": (288, 1328, 2, 2, 128, False, False),  # rows in several pieces
    "shared": (320, 1104, 4, 1, 64, True, True),
}


def language_of(shapes: str, scheme: str | None) -> LanguageModel:
    hidden, inner, heads, kv_heads, head_dim, has_bias, is_tied = SHAPES[shapes]
    config = LlavaConfig(
        vision=VisionConfig(
            image_size=28, hidden_size=64, intermediate_size=64, num_layers=2, num_heads=2, feature_layer=-2
        ),
        language=LanguageConfig(
            vocab_size=VOCAB, hidden_size=hidden, intermediate_size=inner, num_layers=2, num_heads=heads,
            num_kv_heads=kv_heads, head_dim=head_dim, qkv_bias=has_bias, tie_embeddings=is_tied, max_positions=256,
        ),
        tokens=SpecialTokens(image=VOCAB),
    )  # fmt: skip
    model = random_model(config, dtype=torch.float32)
    torch.manual_seed(len(shapes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.06)
    if scheme is not None:
        quantize_model(model, SCHEMES[scheme])
    return model.language


def written_out(language: LanguageModel) -> LanguageModel:
    """The same numbers as plain matrices."""
    plain = deepcopy(language)
    for name, part in language.named_modules():
        if isinstance(part, QuantizedLinear):
            linear = torch.nn.Linear(part.cols, part.rows, bias=part.bias is not None)
            linear.weight, linear.bias = torch.nn.Parameter(dequantize(part.matrix)), deepcopy(part.bias)
            plain.set_submodule(name, linear)
        if isinstance(part, QuantizedEmbedding):
            plain.set_submodule(name, torch.nn.Embedding.from_pretrained(dequantize(part.matrix)))
    if isinstance(language.lm_head, TiedHead):
        plain.lm_head = None
    return plain


class Pair:
    """A language model in the kernels, and in torch; whatever stands in their storages is the same.

    The kernels keep the scales of nf4 over 127, in float16.
    """

    def __init__(
        self,
        shapes: str,
        scheme: str | None,
        *,
        dtype: torch.dtype,
        has_bias: bool = False,
        drop_after: int | None = None,
    ) -> None:
        language = language_of(shapes, scheme).to(DEVICE)
        assert can_take(language)
        config, self.dtype = language.config, dtype
        self.drop_after = drop_after
        self.tolerance = 0.02 if dtype != torch.float32 else 1e-3 if scheme == "nf4" else 2e-6
        self.storages = [
            FixedStorage(config, BLOCKS, dtype=each, device=DEVICE, has_bias=has_bias)
            for each in (torch.float32, dtype)
        ]
        plain, ours = self.storages
        for one, other in zip(plain.keys + plain.values, ours.keys + ours.values, strict=True):
            other.copy_(one.normal_())
        if has_bias:
            ours.bias.copy_(plain.bias.normal_())
        self.languages = [
            TorchLanguage(written_out(language), plain, drop_after=drop_after),
            GpuLanguage(language, ours, dtype=dtype, most_rows=64, drop_after=drop_after),
        ]

    def check(self, wanted: torch.Tensor, found: torch.Tensor) -> None:
        assert found.shape == wanted.shape and found.dtype == self.dtype
        assert (found.float() - wanted).norm() < self.tolerance * wanted.norm()
        plain, ours = self.storages
        for one, other in zip(plain.keys + plain.values, ours.keys + ours.values, strict=True):
            kept, wanted = other[:, : BLOCKS * 16].float(), one[:, : BLOCKS * 16]
            assert (kept - wanted).norm() < self.tolerance * wanted.norm()

    @torch.inference_mode()
    def rows(self, *rows: tuple[int, list[int]], position: int = 0, dropped: int = 0) -> None:
        """Rows by their place and the blocks of their sequence; padded to the ladder as a plan is."""
        filled = [
            [(5 + 7 * i) % VOCAB, place + position * i, place, place - dropped, *(blocks + [PADDING] * 16)[:16]]
            for i, (place, blocks) in enumerate(rows)
        ]
        missing = (1 << (len(rows) - 1).bit_length()) - len(rows)
        filled += [[0] * 4 + [PADDING] * 16] * missing
        plan = torch.tensor(filled, device=DEVICE)
        wanted, found = (language.rows(plan)[: len(rows)].clone() for language in self.languages)
        self.check(wanted, found)

    @torch.inference_mode()
    def prompt(
        self,
        start: int,
        number: int,
        *,
        has_bias: bool = False,
        pictures: Sequence[PartlyKept] = (),
        dropped: int = 0,
    ) -> None:
        """In a model that drops tokens: of those before `start` so many, and of the new ones what is of `pictures`."""
        hidden = self.languages[0]._language.config.hidden_size
        embeds = torch.randn(1, number, hidden, device=DEVICE)
        positions = (start + 2 + torch.arange(number, device=DEVICE))[None]
        bias = torch.rand(1, number, device=DEVICE) if has_bias else None
        found = []
        for language, storage in zip(self.languages, self.storages, strict=True):
            cache, drop = OneSequence(storage, [3, 1, 7], start, number), None
            if self.drop_after is not None:
                staying = number - sum(end - first - kept for first, end, kept in pictures)
                later = OneSequence(storage, [3, 1, 7], start - dropped, staying)
                drop = Drop(self.drop_after, pictures, cache=later)
            found.append(language.prompt(embeds.to(storage.keys[0].dtype), positions, cache, bias, drop, 2))
        self.check(*found)


def cases() -> list[tuple[str, str | None, torch.dtype]]:
    plain = [(shapes, None, torch.float32) for shapes in ("plain", "grouped", "odd")]
    coded = [("plain", "int8"), ("odd", "int8"), ("odd", "int4-g32"), ("odd", "int4-g128"), ("grouped", "int4-g128"),
             ("plain", "nf4")]  # fmt: skip
    if not IS_CUDA:
        return plain + [(shapes, scheme, torch.float32) for shapes, scheme in coded]
    halves = [(shapes, None, torch.bfloat16) for shapes in ("plain", "grouped", "odd")]
    return plain + halves + [(shapes, scheme, torch.bfloat16) for shapes, scheme in coded]


@pytest.mark.parametrize(("shapes", "scheme", "dtype"), cases())
def test_rows_are_what_torch_makes_of_them(shapes: str, scheme: str | None, dtype: torch.dtype) -> None:
    pair = Pair(shapes, scheme, dtype=dtype)
    pair.rows((180, [4, 2, 9, 0, 1, 3, 5, 6, 7, 8, 10, 11]))
    pair.rows((3, [6]), (16, [7, 8]), (17, [7, 8]), position=3)  # the last two of one sequence


@pytest.mark.parametrize(("shapes", "scheme", "dtype"), cases()[1:])
def test_prompts_are_what_torch_makes_of_them(shapes: str, scheme: str | None, dtype: torch.dtype) -> None:
    pair = Pair(shapes, scheme, dtype=dtype)
    pair.prompt(0, 19)
    pair.prompt(19, 7)


def test_what_is_added_to_the_attention() -> None:
    pair = Pair("plain", None, dtype=torch.float32, has_bias=True)
    pair.rows((40, [4, 2, 9]), (3, [6]))
    pair.prompt(0, 19, has_bias=True)
    pair.rows((19, [3, 1, 7]))


def test_later_layers_without_some_of_the_tokens() -> None:
    pair = Pair("grouped", None, dtype=torch.float32, drop_after=1)
    pair.prompt(0, 9)
    pair.prompt(9, 25, pictures=[(2, 12, 3), (13, 20, 1)])
    pair.prompt(34, 4, dropped=13)
    pair.rows((38, [3, 1, 7]), (39, [3, 1, 7]), dropped=13)
    pair.rows((30, [4, 2, 9]))


@pytest.mark.parametrize("shapes", ["plain", "grouped"])
def test_one_program_takes_all_tokens_where_there_are_many_rows(shapes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "AT_ONCE", 1)
    Pair(shapes, None, dtype=torch.float32).rows((180, [4, 2, 9, 0, 1, 3, 5, 6, 7, 8, 10, 11]))


def test_float16_bears_what_it_bears_in_torch() -> None:
    pair = Pair("plain", None, dtype=torch.float16)
    for language in pair.languages:
        table = (
            language._language.embed_tokens.weight if hasattr(language, "_language") else language._many._model.table
        )
        table.data *= 2e5  # hidden states of tens of thousands, as some models have them
    pair.rows((3, [6]))


def test_what_is_joined_is_not_kept_twice() -> None:
    language = language_of("plain", None).to(DEVICE)
    kept = [weakref.ref(weight) for weight in language.layers.parameters() if weight.dim() == 2]
    storage = FixedStorage(language.config, BLOCKS, dtype=torch.float32, device=DEVICE)
    GpuLanguage(language, storage, dtype=torch.float32, most_rows=1)
    gc.collect()
    assert kept and all(weight() is None for weight in kept)


def test_many_rows_are_multiplied_in_larger_tiles() -> None:
    pair = Pair("plain", None, dtype=torch.float32)
    pair.rows(*((place, [4, 2, 9]) for place in range(3, 36)))


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    ("shapes", "scheme", "dtype"),
    [("wide", None, torch.bfloat16), ("wide", "int4-g32", torch.bfloat16), ("wide", "int8", torch.float16),
     ("shared", None, torch.float16), ("shared", "int4-g128", torch.bfloat16), ("shared", "nf4", torch.bfloat16)],
)  # fmt: skip
def test_a_token_in_one_launch(
    shapes: str, scheme: str | None, dtype: torch.dtype, is_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a card, and elsewhere on fibers."""
    if not IS_CUDA:
        if shutil.which("c++") is None:
            pytest.skip("no C++ compiler")
        launcher = OnFibers(tmp_path, programs=2, shared_memory=40_000, is_late=is_late)
        monkeypatch.setattr(persistent, "WARPS", 2)
        monkeypatch.setattr(
            gpu_language, "persistent_decoder", partial(persistent.PersistentDecoder, launcher=launcher)
        )
    pair = Pair(shapes, scheme, dtype=dtype, has_bias=True, drop_after=1)
    if pair.languages[1]._one is None:
        pytest.skip("this card is older than the kernel of whole tokens")
    pair.rows((180, [4, 2, 9, 0, 1, 3, 5, 6, 7, 8, 10, 11]), position=2, dropped=21)
    pair.rows((0, [6]))
    pair.rows((32, [7, 8, 3]), dropped=1)
