"""`llava scenes` writes what was asked for, and says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_samples_are_written(llava: Callable, tmp_path: Path) -> None:
    run = llava("scenes", "--out", tmp_path / "drawn", "--count", 3, "--seed", 5, "--start", 10)
    assert run.code == 0
    listed = Path(run.out.strip())
    samples = json.loads(listed.read_text())
    assert len(samples) == 3
    assert all((listed.parent / sample["image"]).is_file() for sample in samples)


def test_an_unknown_kind_names_the_nearest(llava: Callable, tmp_path: Path) -> None:
    run = llava("scenes", "--out", tmp_path, "--count", 1, "--kind", "caption")
    assert run.code == 2 and "did you mean 'captions'?" in run.err
    assert llava("scenes", "--out", tmp_path, "--count", 1, "--split", "hold").code == 2
    assert llava("scenes", "--out", tmp_path, "--count", 0).code == 2
