"""llama.cpp itself, where llama-cpp-python is installed: the judge of what is written for it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


class Clip:
    """Pictures in llama.cpp, as it was until May 2025."""

    def __init__(self, mmproj: Path, dim: int) -> None:
        self._library = importlib.import_module("llama_cpp.llava_cpp")
        self._dim = dim
        self._tower = self._library.clip_model_load(str(mmproj).encode(), 0)
        assert self._tower, f"llama.cpp does not open {mmproj}"

    def close(self) -> None:
        self._library.clip_free(self._tower)

    def encode(self, picture: Image.Image) -> np.ndarray:
        file = io.BytesIO()
        picture.convert("RGB").save(file, "PNG")
        said = (ctypes.c_uint8 * len(file.getvalue())).from_buffer_copy(file.getvalue())
        found = self._library.llava_image_embed_make_with_bytes(self._tower, 1, said, len(said))
        embeds = np.ctypeslib.as_array(found.contents.embed, (found.contents.n_image_pos, self._dim)).copy()
        self._library.llava_image_embed_free(found)
        return embeds


class Mtmd:
    """Pictures in llama.cpp, as it is since then."""

    def __init__(self, mmproj: Path, dim: int, model: int, silent: object) -> None:
        self._library = importlib.import_module("llama_cpp.mtmd_cpp")
        self._library.mtmd_log_set(silent, None)
        self._dim = dim
        params = self._library.mtmd_context_params_default()
        params.use_gpu, params.print_timings, params.n_threads = False, False, 1
        self._tower = self._library.mtmd_init_from_file(str(mmproj).encode(), model, params)
        assert self._tower, f"llama.cpp does not open {mmproj}"

    def close(self) -> None:
        self._library.mtmd_free(self._tower)

    def encode(self, picture: Image.Image) -> np.ndarray:
        mtmd = self._library
        pixels = np.ascontiguousarray(picture.convert("RGB"), np.uint8)
        bitmap = mtmd.mtmd_bitmap_init(*picture.size, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        marker = mtmd.mtmd_default_marker()
        prompt = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
        chunks = mtmd.mtmd_input_chunks_init()
        bitmaps = (ctypes.c_void_p * 1)(bitmap)
        assert mtmd.mtmd_tokenize(self._tower, chunks, ctypes.byref(prompt), bitmaps, 1) == 0
        found = [
            self._embeds(mtmd.mtmd_input_chunks_get(chunks, i)) for i in range(mtmd.mtmd_input_chunks_size(chunks))
        ]
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_bitmap_free(bitmap)
        return np.concatenate(found)

    def _embeds(self, chunk: int) -> np.ndarray:
        assert self._library.mtmd_encode_chunk(self._tower, chunk) == 0
        count = self._library.mtmd_input_chunk_get_n_tokens(chunk)
        return np.ctypeslib.as_array(self._library.mtmd_get_output_embd(self._tower), (count, self._dim)).copy()


class LlamaCpp:
    """A model in llama.cpp: our own prompts go in as ids and pictures, and logits come out."""

    def __init__(self, library: ModuleType, silent: object, language: Path, mmproj: Path) -> None:
        self.name = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"
        self._library = library
        self._model = library.llama_model_load_from_file(str(language).encode(), library.llama_model_default_params())
        assert self._model, f"llama.cpp does not open {language}"
        params = library.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = library.llama_model_n_ctx_train(self._model)
        params.n_threads = params.n_threads_batch = 1
        self._context = library.llama_init_from_model(self._model, params)
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self._num_tokens = library.llama_vocab_n_tokens(self._vocabulary)
        self._dim = library.llama_model_n_embd(self._model)
        is_old = not hasattr(library, "llama_get_memory")
        self._tower = Clip(mmproj, self._dim) if is_old else Mtmd(mmproj, self._dim, self._model, silent)
        self._length = 0

    def close(self) -> None:
        self._tower.close()
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def tokenize(self, text: str, *, specials: bool = False) -> list[int]:
        """Ids of a text; with `specials` what spells a token is one, and the begin token is put in front."""
        said = text.encode()
        room = (ctypes.c_int32 * (len(said) + 8))()
        count = self._library.llama_tokenize(self._vocabulary, said, len(said), room, len(room), specials, specials)
        assert count >= 0
        return list(room[:count])

    def encode(self, picture: Image.Image) -> np.ndarray:
        """What stands for a picture in the prompt, prepared and computed by llama.cpp: [tokens, dim]."""
        return self._tower.encode(picture)

    def begin(self, *pieces: list[int] | np.ndarray) -> np.ndarray:
        """Logits behind a prompt of ids and of what `encode` gave."""
        if hasattr(self._library, "llama_kv_cache_clear"):
            self._library.llama_kv_cache_clear(self._context)
        else:
            self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        self._length = 0
        return [self.go_on(piece) for piece in pieces if len(piece)][-1]

    def go_on(self, piece: list[int] | np.ndarray) -> np.ndarray:
        """Logits behind one more piece."""
        library, is_ids = self._library, isinstance(piece, list)
        batch = library.llama_batch_init(len(piece), 0 if is_ids else self._dim, 1)
        batch.n_tokens = len(piece)
        for i in range(len(piece)):
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = self._length + i, 1, 0
            batch.logits[i] = i == len(piece) - 1
            if is_ids:
                batch.token[i] = piece[i]
        if not is_ids:
            ctypes.memmove(batch.embd, np.ascontiguousarray(piece, np.float32).ctypes.data, 4 * piece.size)
        assert library.llama_decode(self._context, batch) == 0
        library.llama_batch_free(batch)
        self._length += len(piece)
        return np.ctypeslib.as_array(library.llama_get_logits_ith(self._context, -1), (self._num_tokens,)).copy()


@pytest.fixture(scope="session")
def open_llama_cpp() -> Iterator[Callable[[Path, Path], LlamaCpp]]:
    """Opens a pair of files in llama.cpp; without llama-cpp-python the test is skipped."""
    library = pytest.importorskip(
        "llama_cpp.llama_cpp", reason="llama-cpp-python is not installed: pip install -e '.[llamacpp]'"
    )
    silent = library.llama_log_callback(lambda level, text, data: None)
    library.llama_log_set(silent, None)
    library.llama_backend_init()
    opened: list[LlamaCpp] = []

    def start(language: Path, mmproj: Path) -> LlamaCpp:
        opened.append(LlamaCpp(library, silent, language, mmproj))
        return opened[-1]

    yield start
    for model in opened:
        model.close()
