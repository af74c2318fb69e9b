"""Every worker at tiny shapes, where its packages are: it does all the jobs, again and again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavakit.bench.peers.jobs import Prompt, jobs, warming
from llavakit.bench.peers.process import Process
from llavakit.bench.peers.run import Plan, _prepare
from llavakit.bench.peers.table import OURS, PEERS
from llavakit.bench.shapes import SHAPES

SHORT = Prompt(first=24, second=8, spoken=2, conversations=3, spoken_together=2)


@pytest.mark.parametrize("name", PEERS)
def test_every_job_is_done(name: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = PEERS[name]
    if missing := peer.missing():
        pytest.skip(f"{missing} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _prepare(peer, Plan(SHAPES["tiny"], "float32", 1, 1, tmp_path, 1e12, SHORT), lambda line: None)
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    shapes = json.loads(SHAPES["tiny"].model_dump_json())
    asked = {"shapes": shapes, "threads": 1, "cache": str(folder), "scheme": "float32", "device": "cpu",
             "conversations": SHORT.conversations, "length": SHORT.length}  # fmt: skip
    with Process(name, peer.command, asked, log=folder / "log.txt") as process:
        assert process.made["load_s"] > 0 and process.made["about"]["version"]
        calls = [*warming(SHORT), *(job.call for job in jobs(SHORT)), *(job.call for job in jobs(SHORT))]
        assert all(process.ask(*call)["seconds"] > 0 for call in calls)
        assert process.ask("memory")["resident"] > 1e7
    assert name != OURS or process.made["about"]["decode_bytes"] > 4 * 8 * 256 * 512 * 3
