"""A checkpoint of any format written small: matrix by matrix, so that the model need not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.aligned import NAMES
from llavakit.checkpoint.contents import NO_PARTS, Contents, Parts, read_contents
from llavakit.checkpoint.load import companions, locate, tokenizer_of
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.save import WEIGHTS_FILE, check_replaceable, converted, plain_card, write_folder
from llavakit.checkpoint.weights import check_fit, empty_model, stored_dtype
from llavakit.quantize.apply import make_room
from llavakit.quantize.calibrate import Inputs
from llavakit.quantize.linear import PackedMatrix
from llavakit.quantize.schemes import describe, find_scheme
from llavakit.quantize.search import product_error, quantize_matrix

Watch = Callable[[float], None]  # is told what share of the weights is done


@dataclass
class Quantized:
    """What was done: sizes in bytes, and by how much the products of each matrix are off, relative to their size."""

    scheme: str
    before: int
    after: int = 0
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def language_error(self) -> float:
        """The mean over the matrices of the language model's layers."""
        errors = [error for name, error in self.errors.items() if name.startswith("language.layers.")]
        return sum(errors) / len(errors)


def quantize_checkpoint(
    source: str | Path,
    out: Path,
    *,
    scheme: str,
    inputs: Inputs | None = None,
    parts: Parts = NO_PARTS,
    watch: Watch = lambda share: None,
) -> Quantized:
    """Write the native folder `out`, quantised, from a folder or name of any format.

    `inputs` are what `quantize.calibrate` recorded of that model. Raises `CheckpointError` as `load` does, for a model
    that is quantised already, and for a matrix that cannot be; nothing is written then.
    """
    grids = find_scheme(scheme)
    folder, parts = locate(source), companions(source, parts)
    check_target(out, folder)
    contents = read_contents(folder, parts)
    check_quantizable(contents, folder)
    check_fit(empty_model(contents), contents.tensors, folder)
    done = Quantized(scheme, before=_bytes(contents))
    dtype = stored_dtype(contents.tensors)
    room = make_room(empty_model(contents), grids)
    work = _Work(inputs or {}, done, watch, sum(place.rows * place.cols for place in room.values()))
    stored = [
        work.packed(matrix, tensor, room[matrix])
        if (matrix := name.removesuffix(".weight")) in room
        else converted(name, tensor, dtype)
        for name, tensor in contents.tensors.items()
    ]
    origin = f"Quantised from a model of {done.before / 1e6:,.1f} MB by the scheme {scheme}: {describe(grids)}."
    tokenizer = tokenizer_of(folder, parts, contents.config)
    write_folder(
        out, contents.config, stored, tokenizer, card=plain_card(out.name, contents.config, origin), scheme=scheme
    )
    done.after = (out / WEIGHTS_FILE).stat().st_size
    return done


def check_target(out: Path, folder: Path) -> None:
    """Raise `CheckpointError` where the model in `folder` cannot be written to `out`: something else is there."""
    check_replaceable(out)
    if out.resolve() == folder.resolve():
        raise CheckpointError(f"{out} is the model itself, and quantising would replace it: choose a new folder")


def check_quantizable(contents: Contents, folder: Path) -> None:
    """Raise `CheckpointError` for a model of few bits already: its errors would only add up."""
    if contents.scheme:
        raise CheckpointError(f"{folder} is quantised already ({contents.scheme}): give the model it was made from")


@dataclass
class _Work:
    """The matrices, quantised one by one while they are written."""

    inputs: Inputs
    quantized: Quantized
    watch: Watch
    num_weights: int
    num_done: int = 0

    def packed(self, name: str, tensor: StoredTensor, place: PackedMatrix) -> StoredTensor:
        """The matrix as it will be stored."""

        def read() -> Tensor:
            weight, inputs = tensor.read(), self.inputs.get(name)
            try:
                packed = quantize_matrix(weight, place.grid, inputs)
            except ValueError as error:
                raise CheckpointError(f"{tensor.name} cannot be quantised: {error}") from None
            self.quantized.errors[name] = product_error(weight, packed, inputs)
            self.num_done += weight.numel()
            self.watch(self.num_done / self.num_weights)
            return packed.data

        return StoredTensor(f"{name}.packed", tuple(place.packed.shape), NAMES[place.packed.dtype], read)


def _bytes(contents: Contents) -> int:
    sizes = {"F64": 8, "F32": 4}
    return sum(math.prod(tensor.shape) * sizes.get(tensor.dtype, 2) for tensor in contents.tensors.values())
