"""The launcher of persistent.cu where there is no card: compiled for this processor, each thread a fiber."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from pathlib import Path

from llavakit.kernels.gpu.persistent import Constants, Launch

HERE = Path(__file__).parent


class OnFibers:
    """`is_late`: whether copies are made when they are waited for, and not at once."""

    def __init__(self, folder: Path, programs: int, shared_memory: int, *, is_late: bool) -> None:
        self._folder, self.programs, self.shared_memory, self._is_late = folder, programs, shared_memory, is_late

    def __call__(self, source: str, constants: Constants, shared_memory: int) -> Launch:
        given = {**constants, "IS_LATE": int(self._is_late)}
        text = "".join(f"#define {name} {value}\n" for name, value in given.items())
        text += f'#include "{HERE / "fibers.hpp"}"\n{source}'
        text += "static void begin(const void* model, const i64* plan) { decode_token(*(const Model*)model, plan); }\n"
        stem = self._folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        stem.with_suffix(".cpp").write_text(text)
        command = ["c++", "-std=c++17", "-O2", "-g", "-fno-strict-aliasing", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
        subprocess.run([*command, "-o", f"{stem}.so", f"{stem}.cpp"], check=True)
        entry = ctypes.CDLL(f"{stem}.so").launch
        entry.restype, entry.argtypes = ctypes.c_char_p, [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]

        def launch(model: bytes, plan: int) -> None:
            fault = entry(model, plan, self.programs, shared_memory)
            assert fault is None, fault.decode()

        return launch
