"""llama.cpp itself, where llama-cpp-python is installed: the judge of what is written for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image


class LlamaCpp:
    """A model in llama.cpp: our own prompts go in as ids and pictures, and logits come out."""

    def __init__(self, library: SimpleNamespace, language: Path, mmproj: Path) -> None:
        llama, mtmd = library.llama, library.mtmd
        self._library = library
        self._model = llama.llama_model_load_from_file(str(language).encode(), llama.llama_model_default_params())
        assert self._model, f"llama.cpp does not open {language}"
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = llama.llama_model_n_ctx_train(self._model)
        params.n_threads = params.n_threads_batch = 1
        self._context = llama.llama_init_from_model(self._model, params)
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self.num_tokens = llama.llama_vocab_n_tokens(self._vocabulary)
        self.dim = llama.llama_model_n_embd(self._model)
        eyes = mtmd.mtmd_context_params_default()
        eyes.use_gpu, eyes.print_timings, eyes.n_threads = False, False, 1
        self._eyes = mtmd.mtmd_init_from_file(str(mmproj).encode(), self._model, eyes)
        assert self._eyes, f"llama.cpp does not open {mmproj}"

    def close(self) -> None:
        self._library.mtmd.mtmd_free(self._eyes)
        self._library.llama.llama_free(self._context)
        self._library.llama.llama_model_free(self._model)

    def tokenize(self, text: str, *, specials: bool = False) -> list[int]:
        """Ids of a text; with `specials` their names in it are tokens, and the model's first one is put in front."""
        said = text.encode()
        room = (ctypes.c_int32 * (len(said) + 8))()
        count = self._library.llama.llama_tokenize(
            self._vocabulary, said, len(said), room, len(room), specials, specials
        )
        assert count >= 0
        return list(room[:count])

    def encode(self, picture: Image.Image) -> np.ndarray:
        """What stands for a picture in the prompt, prepared and computed by llama.cpp: [tokens, dim]."""
        mtmd = self._library.mtmd
        pixels = np.ascontiguousarray(picture.convert("RGB"), np.uint8)
        bitmap = mtmd.mtmd_bitmap_init(*picture.size, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        marker = mtmd.mtmd_default_marker()
        prompt = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
        chunks = mtmd.mtmd_input_chunks_init()
        bitmaps = (ctypes.c_void_p * 1)(bitmap)
        assert mtmd.mtmd_tokenize(self._eyes, chunks, ctypes.byref(prompt), bitmaps, 1) == 0
        found = [
            self._embeds(mtmd.mtmd_input_chunks_get(chunks, i)) for i in range(mtmd.mtmd_input_chunks_size(chunks))
        ]
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_bitmap_free(bitmap)
        return np.concatenate(found)

    def _embeds(self, chunk: Any) -> np.ndarray:
        mtmd = self._library.mtmd
        assert mtmd.mtmd_encode_chunk(self._eyes, chunk) == 0
        count = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        return np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._eyes), (count, self.dim)).copy()

    def begin(self, *pieces: list[int] | np.ndarray) -> np.ndarray:
        """Logits behind a prompt of ids and of what `encode` gave."""
        llama = self._library.llama
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        self._length = 0
        return [self.go_on(piece) for piece in pieces if len(piece)][-1]

    def go_on(self, piece: list[int] | np.ndarray) -> np.ndarray:
        """Logits behind one more piece."""
        llama = self._library.llama
        is_ids = isinstance(piece, list)
        batch = llama.llama_batch_init(len(piece), 0 if is_ids else self.dim, 1)
        batch.n_tokens = len(piece)
        for i in range(len(piece)):
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = self._length + i, 1, 0
            batch.logits[i] = i == len(piece) - 1
            if is_ids:
                batch.token[i] = piece[i]
        if not is_ids:
            ctypes.memmove(batch.embd, np.ascontiguousarray(piece, np.float32).ctypes.data, 4 * piece.size)
        assert llama.llama_decode(self._context, batch) == 0
        llama.llama_batch_free(batch)
        self._length += len(piece)
        return np.ctypeslib.as_array(llama.llama_get_logits_ith(self._context, -1), (self.num_tokens,)).copy()


@pytest.fixture(scope="session")
def llama_cpp() -> SimpleNamespace:
    """The two low-level libraries of llama-cpp-python; without it the test is skipped."""
    llama = pytest.importorskip("llama_cpp.llama_cpp", reason="llama-cpp-python is not here; pip install '.[llamacpp]'")
    mtmd = pytest.importorskip("llama_cpp.mtmd_cpp", reason="this llama-cpp-python has no pictures")
    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, None)
    mtmd.mtmd_log_set(quiet, None)
    llama.llama_backend_init()
    return SimpleNamespace(llama=llama, mtmd=mtmd, quiet=quiet)


@pytest.fixture(scope="session")
def open_llama_cpp(llama_cpp: SimpleNamespace) -> Iterator[Callable[[Path, Path], LlamaCpp]]:
    """Opens a pair of files in llama.cpp."""
    opened: list[LlamaCpp] = []

    def start(language: Path, mmproj: Path) -> LlamaCpp:
        opened.append(LlamaCpp(llama_cpp, language, mmproj))
        return opened[-1]

    yield start
    for model in opened:
        model.close()
