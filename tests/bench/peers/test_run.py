"""Peers by turns, where both pretend; test_workers.py has the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavakit.bench.peers import run as module
from llavakit.bench.peers.jobs import Prompt, jobs, prompt_on, warming
from llavakit.bench.peers.process import PeerError
from llavakit.bench.peers.run import Plan, run
from llavakit.bench.peers.table import OURS, PEERS, SCRIPTS, Peer, by_memory, find_peers
from llavakit.bench.peers.targets import TARGETS, Facts, Round, reached, targets_on
from llavakit.bench.probe import Ceilings
from llavakit.bench.report import peers_table
from llavakit.bench.shapes import SHAPES

PRETENDS = (str(Path(__file__).with_name("worker_that_pretends.py")),)
OURSELVES, RIVAL = Peer(OURS, PRETENDS, 1.0), Peer("llama.cpp", PRETENDS, 1.0)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(module, "probe", lambda threads, device="cpu": Ceilings(50.0, 2000.0))
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def plan(folder: Path, *, room: float = 1e12) -> Plan:
    return Plan(SHAPES["tiny"], "float32", 1, 2, folder, room, Prompt(first=24, second=8, spoken=2, spoken_together=2))


def test_ours_beside_another(tmp_path: Path) -> None:
    said: list[str] = []
    here = plan(tmp_path)
    found = run([OURSELVES, RIVAL], here, say=said.append)
    assert not found.failed and [list(one.seconds) for one in found.rounds] == [[OURS, RIVAL.name], [RIVAL.name, OURS]]
    jobs = ["encode", "prefill", "decode", "second", "together"]
    assert all(list(seconds) == jobs for one in found.rounds for seconds in one.seconds.values())
    theirs = found.figures()[RIVAL.name]
    assert theirs["seconds"]["prefill"]["rounds"] == [0.24, 0.24] and theirs["seconds"]["together"]["median"] == 0.18
    assert len(found.loads[OURS]) == 1  # kept alive from round to round
    assert found.memory[OURS]["peak"] >= found.memory[OURS]["resident"] > 1e6
    assert "standard output" in (tmp_path / RIVAL.name / "log.txt").read_text()
    assert said[0] == "round 1 of 2: memory is read at 50.0 GB/s, 2,000 GOP/s of int8"
    targets = reached(TARGETS, found.rounds, Facts(here.prompt, found.decode_bytes(here)), found.memory)
    assert len(targets) == 9 and not targets[-1]["reached"]
    assert peers_table({"figures": found.figures(), "targets": targets}).count("\n") > 15


def test_peers_that_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    found = run([OURSELVES, RIVAL], plan(tmp_path, room=1), say=lambda line: None)
    assert all(len(one.seconds) == 2 for one in found.rounds)
    assert len(found.loads[OURS]) == len(found.loads[RIVAL.name]) == 2


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("no model", "llama.cpp could not do it: MemoryError: no room for it"),
        ("dies", "llama.cpp ended with exit code 3"),
        ("raises", "llama.cpp could not do it: RuntimeError: no room for so many"),
    ],
)
def test_a_peer_that_fails_is_left_out(how: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEND", f"{RIVAL.name} {how}")
    found = run([OURSELVES, RIVAL], plan(tmp_path), say=lambda line: None)
    assert why in found.failed[RIVAL.name] and list(found.figures()) == [OURS]
    assert all(list(one.seconds) == [OURS] for one in found.rounds)


def test_our_own_failure_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEND", f"{OURS} no model")
    with pytest.raises(PeerError, match="no room for it"):
        run([OURSELVES], plan(tmp_path), say=lambda line: None)


def test_a_prompt_too_long(tmp_path: Path) -> None:
    long = Plan(SHAPES["tiny"], "float32", 1, 1, tmp_path, 1e12, Prompt(first=2048))
    with pytest.raises(ValueError, match="take 2112 tokens, and the context of these shapes holds 2048"):
        run([RIVAL], long, say=lambda line: None)


def test_the_ratios_are_of_each_round() -> None:
    ours = {"encode": 1.0, "prefill": 3.0, "decode": 0.4, "second": 0.5, "together": 0.5}
    slow = {name: 2 * seconds for name, seconds in ours.items()}
    theirs = {name: 3 * seconds for name, seconds in ours.items()}
    rounds = [
        Round(Ceilings(100.0, None), {OURS: ours, "llama.cpp": theirs, "openvino": slow}),
        Round(Ceilings(50.0, None), {OURS: slow, "llama.cpp": theirs, "openvino": theirs}),
        Round(Ceilings(100.0, None), {OURS: ours, "llama.cpp": theirs, "openvino": slow}),
    ]
    facts = Facts(Prompt(spoken=16, spoken_together=8, conversations=8), decode_bytes=2e9)
    memory = {OURS: {"resident": 3}, "llama.cpp": {"resident": 4}}
    rows = {row["target"].split(",")[0]: row for row in reached(TARGETS, rounds, facts, memory)}
    assert rows["decode"]["rounds"] == [0.8, 0.8, 0.8]  # 16 tokens of 2 GB in 0.4 s: the later row of this name
    assert rows["first word about a picture"]["rounds"] == [3, 1.5, 3] and rows["first word about a picture"]["reached"]
    assert rows["prefill of a picture prompt"]["rounds"] == [2, 1.5, 2]
    assert rows["eight conversations together"]["median"] == 3.2 and not rows["eight conversations together"]["reached"]
    assert rows["second question about a picture"]["reached"] and rows["resident memory"]["reached"]


@pytest.mark.parametrize(("scheme", "share"), [("bfloat16", 0.85), ("int8", 0.85), ("int4-g32", 0.7)])
def test_what_is_aimed_at_on_a_gpu(scheme: str, share: float) -> None:
    ours = {"encode": 1.0, "prefill": 0.02, "decode": 0.08, "second": 0.5, "together": 0.5}
    theirs = {name: 3 * seconds for name, seconds in ours.items()}
    rounds = [Round(Ceilings(500.0, None, 700e3), {OURS: ours, "transformers": theirs})]
    facts = Facts(Prompt(spoken=16, conversations=64), decode_bytes=2e9, prefill_operations=8.4e12)
    rows = reached(targets_on("cuda", scheme), rounds, facts, {})
    assert [row["at_least"] for row in rows] == [share, 0.6, 1, 1, 1]
    # 16 x 2 GB in 0.08 s at 500 GB/s; 8.4 TFLOP in 0.02 s at 700 TFLOP/s
    assert [row["median"] for row in rows] == [0.8, 0.6, 3, 3, 3]
    assert rows[0]["reached"] == (share < 0.8)


def test_a_gpu_has_many_conversations_and_is_warmed_by_all_jobs() -> None:
    prompt = prompt_on("cuda")
    assert prompt.conversations == 64 and prompt_on("cpu") == Prompt()
    assert warming(prompt, "cuda") == [job.call for job in jobs(prompt)]


def test_who_is_measured_on_a_gpu() -> None:
    assert [peer.name for peer in find_peers([], device="cuda")] == [OURS, "transformers"]
    with pytest.raises(ValueError, match="llama.cpp is measured on cpu, not on cuda"):
        find_peers(["llama.cpp"], device="cuda")


def test_groups_by_memory() -> None:
    peers = [Peer(name, (), size) for name, size in (("a", 4), ("b", 7), ("c", 5), ("d", 20))]
    groups = by_memory(peers, lambda peer: peer.bytes_a_weight, room=10)
    assert [[peer.name for peer in group] for group in groups] == [["a", "c"], ["b"], ["d"]]


def test_every_peer_has_its_worker() -> None:
    assert all(Path(peer.worker[0]).is_file() for peer in PEERS.values() if peer.name != OURS)
    assert all(Path(peer.prepare).is_file() for peer in PEERS.values() if peer.prepare)
    assert SCRIPTS.is_dir()


def test_unknown_peer() -> None:
    with pytest.raises(ValueError, match="no peer called 'llamacpp': did you mean 'llama.cpp'"):
        find_peers(["llamacpp"])
