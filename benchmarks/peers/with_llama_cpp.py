"""llama.cpp as a peer, through the bindings of llama-cpp-python: Q4_0 with flash attention, its tower in F16."""

from __future__ import annotations

import ctypes
from time import perf_counter
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as api
from llama_cpp import mtmd_cpp as mtmd

from llavakit.bench.peers.worker import Asked, serve

IMAGE_CHUNK = 1
FLASH_ATTENTION = 1
ROOM = 64  # tokens behind those of the longest job


class LlamaCpp:
    def __init__(self, asked: Asked) -> None:
        self._vocab, self._threads = asked.shapes["language"]["vocab_size"], asked.threads
        api.llama_backend_init()
        self._log = _quiet()
        params = api.llama_model_default_params()
        self._model = api.llama_model_load_from_file(bytes(asked.cache / "language.gguf"), params)
        assert self._model, "llama.cpp did not take the model"
        self._context = self._new_context(length=1024, sequences=1)
        self._together: Any = None  # made when it is asked for: several conversations take memory that one does not
        self._tower, self._picture = self._open_tower(asked)
        self.about: dict[str, Any] = {
            "version": llama_cpp.__version__,
            "weights": "Q4_0, output head Q6_K, tower F16",
            "features": api.llama_print_system_info().decode(),
            "notes": ["a prompt in one batch of up to 640 tokens, flash attention on"],
        }

    def _new_context(self, *, length: int, sequences: int) -> Any:
        params = api.llama_context_default_params()
        params.n_ctx, params.n_seq_max = length * sequences, sequences
        params.n_batch = params.n_ubatch = 640
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn_type, params.kv_unified = FLASH_ATTENTION, False
        context = api.llama_init_from_model(self._model, params)
        assert context, "llama.cpp gave no context"
        return context

    def _open_tower(self, asked: Asked) -> tuple[Any, Any]:
        params = mtmd.mtmd_context_params_default()
        params.use_gpu, params.n_threads, params.print_timings = False, asked.threads, False
        tower = mtmd.mtmd_init_from_file(bytes(asked.cache / "mmproj.gguf"), self._model, params)
        assert tower, "llama.cpp did not take the tower"
        side = asked.shapes["vision"]["image_size"]
        pixels = (ctypes.c_uint8 * (3 * side * side))(*(index * 7 % 251 for index in range(3 * side * side)))
        bitmap = mtmd.mtmd_bitmap_init(side, side, pixels)
        chunks = mtmd.mtmd_input_chunks_init()
        marker = mtmd.mtmd_get_marker(tower)
        text = mtmd.mtmd_input_text(marker, len(marker), False, True)
        failed = mtmd.mtmd_tokenize(tower, chunks, ctypes.byref(text), (ctypes.c_void_p * 1)(bitmap), 1)
        assert not failed, f"mtmd_tokenize: {failed}"
        found = [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(mtmd.mtmd_input_chunks_size(chunks))]
        return tower, next(chunk for chunk in found if mtmd.mtmd_input_chunk_get_type(chunk) == IMAGE_CHUNK)

    def encode(self) -> None:
        failed = mtmd.mtmd_encode_chunk(self._tower, self._picture)
        assert not failed, f"mtmd_encode_chunk: {failed}"

    def prefill(self, tokens: int, start: int) -> None:
        self._forget(self._context, 1, start)
        self._step(self._context, [(0, start + index) for index in range(tokens)], logits_at={tokens - 1})

    def decode(self, steps: int, start: int, batch: int) -> float | None:
        if batch == 1:
            self._forget(self._context, 1, start)
            return self._speak(self._context, steps, start, 1)
        if self._together is None:
            self._together = self._read_by_all(
                self._new_context(length=start + steps + ROOM, sequences=batch), start, batch
            )
        self._forget(self._together, batch, start)
        return self._speak(self._together, steps, start, batch)

    def _read_by_all(self, context: Any, start: int, batch: int) -> Any:
        """The prompt read once, and copied into each of the others' own room."""
        self._step(context, [(0, index) for index in range(start)], logits_at={start - 1})
        for sequence in range(1, batch):
            api.llama_memory_seq_cp(api.llama_get_memory(context), 0, sequence, -1, -1)
        self._speak(context, 1, start, batch)
        return context

    def _speak(self, context: Any, steps: int, start: int, batch: int) -> float:
        begun = perf_counter()
        for step in range(steps):
            rows = [(sequence, start + step) for sequence in range(batch)]
            self._step(context, rows, logits_at=set(range(batch)))
        return perf_counter() - begun

    def _step(self, context: Any, rows: list[tuple[int, int]], logits_at: set[int]) -> None:
        batch = api.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for index, (sequence, position) in enumerate(rows):
            batch.token[index] = 259 + (position * 31 + sequence) % (self._vocab - 259)
            batch.pos[index], batch.n_seq_id[index], batch.seq_id[index][0] = position, 1, sequence
            batch.logits[index] = index in logits_at
        failed = api.llama_decode(context, batch)
        api.llama_synchronize(context)
        api.llama_batch_free(batch)
        assert not failed, f"llama_decode: {failed}"

    def _forget(self, context: Any, sequences: int, start: int) -> None:
        memory = api.llama_get_memory(context)
        for sequence in range(sequences):
            api.llama_memory_seq_rm(memory, sequence, start, -1)


def _quiet() -> Any:
    """llama.cpp says much while it works; the callback has to live as long as it may be called."""

    @api.llama_log_callback
    def ignore(level: int, text: bytes, data: Any) -> None:
        pass

    api.llama_log_set(ignore, ctypes.c_void_p())
    mtmd.mtmd_helper_log_set(ignore, ctypes.c_void_p())
    return ignore


if __name__ == "__main__":
    serve(LlamaCpp)
