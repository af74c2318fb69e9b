"""Writing samples out as ordinary LLaVA JSON and image files, several processes at a time."""

import json
import os
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from .draw import draw
from .records import SampleKind, sample_record
from .scene import Scene
from .split import Split


def write_scenes(
    out: Path, *, count: int, seed: int, split: Split, kind: SampleKind, workers: int, start: int = 0
) -> Path:
    """Write samples `start` to `start + count` under `out`, and return the path of the JSON file.

    Pictures that are there already are kept, so that an interrupted run goes on where it was;
    the JSON file appears whole or not at all.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{kind}-{split}.json"
    unfinished = path.with_suffix(".json.part")
    one = partial(_write_one, out, seed, split, kind)
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            separator = "[\n"
            for record in _map(one, range(start, start + count), workers):
                file.write(separator + record)
                separator = ",\n"
            file.write("\n]\n" if count else "[]\n")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _map(one: partial[str], indices: range, workers: int) -> Iterator[str]:
    if workers <= 1:
        yield from map(one, indices)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(one, indices, chunksize=64)


def _write_one(out: Path, seed: int, split: Split, kind: SampleKind, index: int) -> str:
    """Draw a picture, where there is one and it is not there yet, and give the record as a line of JSON."""
    record, scene = sample_record(kind, seed, index, split)
    if scene is not None:
        _save(scene, out / record["image"])
    return json.dumps(record, ensure_ascii=False)


def _save(scene: Scene, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if scene.file_format == "png":
            draw(scene).save(unfinished, "PNG", compress_level=3)
        else:
            draw(scene).save(unfinished, "JPEG", quality=scene.quality)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
