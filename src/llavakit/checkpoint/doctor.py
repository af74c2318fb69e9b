"""What a checkpoint folder is, how it is taken, and what is wrong or unusual with it.

It asks the code that loads, step by step, and puts down what that says. Headers are read and no weights, unless asked
for; pickles never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.aligned import PACKED
from llavakit.checkpoint.contents import NO_PARTS, Contents, Parts, read_contents
from llavakit.checkpoint.dequantizing import dequantized
from llavakit.checkpoint.describe import foretold, treated_as, what_it_is
from llavakit.checkpoint.findings import Finding, Seen
from llavakit.checkpoint.formats import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, read_json
from llavakit.checkpoint.known_configs import recognised
from llavakit.checkpoint.load import tokenizer_of
from llavakit.checkpoint.lora import ADAPTER
from llavakit.checkpoint.needs import foreseen, way_in
from llavakit.checkpoint.original import PROJECTOR
from llavakit.checkpoint.reader import PICKLES, Reader, Tensors
from llavakit.checkpoint.regular import check_regular, is_there
from llavakit.checkpoint.weights import empty_model, misfits
from llavakit.config import LlavaConfig

T = TypeVar("T")
_LFS_POINTER = b"version https://git-lfs"
_SAFETENSORS = ".safetensors"


@dataclass
class Diagnosis:
    """What came out. `treated_as` has only what config.json tells where no tensors can be read, or nothing."""

    folder: Path
    what: str
    treated_as: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not any(finding.severity == "wrong" for finding in self.findings)


def examine(folder: Path, parts: Parts = NO_PARTS, *, with_weights: bool = False) -> Diagnosis:
    """Look a folder over, whatever is in it; raises nothing for what it finds.

    `with_weights` reads every tensor once as well, for numbers that are none.
    """
    findings: list[Finding] = []

    def tell(told: Iterable[Finding]) -> None:
        findings.extend(_attempt(findings, lambda: list(told)) or [])

    config = _attempt(findings, lambda: _config(folder))
    contents = None if config is None else _attempt(findings, lambda: read_contents(folder, parts))
    stored = _attempt([], lambda: _own_tensors(folder)) or {}  # why not, `contents` tells
    seen = Seen(folder, parts, config or {}, contents, stored)
    what = _attempt(findings, lambda: what_it_is(seen)) or "a folder that cannot be read"
    diagnosis = Diagnosis(folder, what, findings=findings)
    if contents is None:
        tell(_damaged(folder))
        tell(way_in(seen))
        if seen.is_original:
            diagnosis.treated_as = _attempt([], lambda: foretold(foreseen(seen))) or {}
    else:
        tell(_fit(contents))
        tokenizer = _attempt(findings, lambda: tokenizer_of(folder, parts, contents.config))
        if tokenizer is not None:
            tell(_vocabulary(contents.config, tokenizer.size))
        tell(_numbers(contents))
        tell(_dropped(seen))
        if with_weights:
            tell(_weights(dequantized(contents).tensors))
        diagnosis.treated_as = _attempt(findings, lambda: treated_as(seen)) or {}
    tell(recognised(seen))
    tell(_strays(seen))
    diagnosis.findings = _once(findings)
    return diagnosis


def _once(findings: list[Finding]) -> list[Finding]:
    """Each sentence once, and of two that are alike the one that knows what to do."""
    best: dict[str, Finding] = {}
    for finding in findings:
        if finding.says not in best or not best[finding.says].do:
            best[finding.says] = finding
    return list(best.values())


def _config(folder: Path) -> dict[str, Any]:
    """config.json as it is; empty where there is none, which is for others to judge."""
    return read_json(folder / CONFIG_FILE) if is_there(folder / CONFIG_FILE) else {}


def _attempt(findings: list[Finding], step: Callable[[], T]) -> T | None:
    """What a step gives, or None and what it said. Whatever a folder holds, there is one sentence about it."""
    try:
        return step()
    except (ValueError, OSError) as error:
        findings.append(Finding("wrong", " ".join(str(error).split())))
    except Exception as error:  # a file so strange that nobody thought of it
        findings.append(Finding("wrong", f"reading it failed with {type(error).__name__}: {str(error)[:200]}"))
    return None


def _own_tensors(folder: Path) -> Tensors:
    """The folder's own tensors by the names in its files."""
    reader = Reader()
    if reader.has_weights(folder):
        return reader.weights(folder)
    files = [reader.file(folder, stem) for stem in (ADAPTER, PROJECTOR)]
    return {name: tensor for tensors in files if tensors for name, tensor in tensors.items()}


def _fit(contents: Contents) -> Iterator[Finding]:
    """Where the tensors are not the model's."""
    for fault, names in misfits(empty_model(contents), contents.tensors).items():
        yield Finding("wrong", f"{_tensors(names)} {fault}", names=tuple(names))


def _vocabulary(config: LlavaConfig, num_words: int) -> Iterator[Finding]:
    if beyond := config.language.vocab_size - num_words:
        yield Finding("note", f"{beyond} rows of the vocabulary have no word, and no answer may hold them")


def _numbers(contents: Contents) -> Iterator[Finding]:
    types = Counter(tensor.dtype for tensor in contents.tensors.values() if tensor.dtype != PACKED)
    if len(types) > 1:
        listed = ", ".join(f"{number} {dtype}" for dtype, number in types.most_common())
        yield Finding("note", f"the weights are of several number formats: {listed}; one is made of them when loading")


def _dropped(seen: Seen) -> Iterator[Finding]:
    """What the folder holds and the model has no use for."""
    assert seen.contents is not None
    used = {tensor.name for tensor in seen.contents.tensors.values()}
    unused = tuple(name for name in seen.stored if name not in used and ".lora_" not in name)
    if unused and not seen.parts.base:
        place = " of the vision tower" if all("vision" in name for name in unused) else ""
        yield Finding("note", f"{_tensors(unused)}{place} left aside, which can never matter", names=unused)


def _weights(tensors: Tensors) -> Iterator[Finding]:
    """Every tensor, one after the other: numbers that are none, and matrices of nothing but zeros."""
    broken, empty = [], []
    for tensor in tensors.values():
        values = tensor.read()
        bad = int((~values.isfinite()).sum())
        if bad:
            broken.append(f"{tensor.name} ({bad:,} of {values.numel():,})")
        elif values.dim() > 1 and not values.any():
            empty.append(tensor.name)
    if broken:
        do = "get the files again, or the training that made them has diverged"
        yield Finding("wrong", f"infinite numbers or none at all in {_tensors(broken)}", do, names=tuple(broken))
    if empty:
        yield Finding("unusual", "nothing but zeros, as if never filled, in " + _tensors(empty), names=tuple(empty))


def _tensors(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) != 1)}"


def _damaged(folder: Path) -> Iterator[Finding]:
    """Every safetensors file that does not open, and why; the reader stops at the first."""
    for path in sorted(folder.glob(f"*{_SAFETENSORS}")) if folder.is_dir() else ():
        try:
            check_regular(path)
            Reader().file(folder, path.name.removesuffix(_SAFETENSORS))
        except CheckpointError as error:
            is_pointer = path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(_LFS_POINTER)
            do = "it is a Git LFS pointer: run git lfs pull" if is_pointer else "get this file again"
            yield Finding("wrong", str(error), do, names=(path.name,))


def _strays(seen: Seen) -> Iterator[Finding]:
    """Weight files that nobody opens, or that will not be opened here."""
    files = sorted(seen.folder.iterdir()) if seen.folder.is_dir() else []
    pickles = tuple(path.name for path in files if path.suffix in PICKLES)
    if pickles and seen.contents is not None:
        yield Finding("note", "the pickles beside the safetensors are not opened", names=pickles)
    index = seen.beside(INDEX_FILE).get("weight_map")
    named = {str(name) for name in index.values()} if isinstance(index, dict) else set()
    tensors = {path.name for path in files if path.suffix == _SAFETENSORS}
    if named and (extra := tensors - named - {WEIGHTS_FILE}):
        yield Finding("unusual", "weight files that the index does not name are not read", names=tuple(sorted(extra)))
