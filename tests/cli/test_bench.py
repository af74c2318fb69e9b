"""`llava bench` as it is typed: a table, and then one JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit.bench import kernels, latency, runner_subject, throughput
from llavakit.bench.peers import run
from llavakit.bench.probe import Ceilings
from llavakit.engine.engine import runner_for


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for module in (latency, throughput, kernels, run):
        monkeypatch.setattr(module, "probe", lambda threads, device="cpu": Ceilings(50.0, 2000.0))
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))


def test_latency_of_a_model(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    done = llava("bench", "latency", model_folder, "--rounds", 2, "--threads", 1, "--max-tokens", 3,
                 "--out", tmp_path / "out.json")  # fmt: skip
    told = json.loads(done.out.splitlines()[-1])
    assert told == json.loads((tmp_path / "out.json").read_text())
    assert len(told["figures"]["encode_ms"]["rounds"]) == 2 and told["memory"]["resident"] > 1e7
    assert told["machine"]["threads"] == 1 and told["machine"]["isa"] and told["versions"]["torch"]
    assert told["figures"]["second_question_ms"]["median"] > 0


def test_latency_of_shapes(llava: Callable) -> None:
    done = llava("bench", "latency", "--shapes", "tiny", "--scheme", "float32", "--rounds", 1, "--threads", 1)
    told = json.loads(done.out.splitlines()[-1])
    assert told["figures"]["decode_tokens_per_s"]["median"] > 0 and told["work"]["decode"]["gigabytes"] > 0
    assert "first token ms" in done.out


def test_throughput(llava: Callable) -> None:
    done = llava("bench", "throughput", "--shapes", "tiny", "--scheme", "float32", "--conversations", "1,3",
                 "--context", 16, "--steps", 2, "--rounds", 1, "--threads", 1)  # fmt: skip
    told = json.loads(done.out.splitlines()[-1])
    assert list(told["tokens_per_s"]) == ["1", "3"] and told["times_1"]["1"]["median"] == 1


@pytest.mark.parametrize("is_quantised", [False, True])
def test_throughput_of_a_model_is_that_of_the_engines_runner(
    llava: Callable, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_quantised: bool
) -> None:
    folder, made = model_folder, []
    if is_quantised:
        folder = tmp_path / "small"
        llava("quantize", model_folder, "--scheme", "int8", "--out", folder, "--calibrate", 0)
    monkeypatch.setattr(runner_subject, "runner_for", lambda *a, **k: made.append(runner_for(*a, **k)) or made[-1])
    done = llava("bench", "throughput", folder, "--conversations", "1,3", "--context", 16, "--steps", 2, "--rounds", 1,
                 "--threads", 1)  # fmt: skip
    told = json.loads(done.out.splitlines()[-1])
    assert list(told["tokens_per_s"]) == ["1", "3"] and len(made) == 1


def test_peers_by_name(llava: Callable, tmp_path: Path) -> None:
    done = llava("bench", "peers", "llavakit", "--shapes", "tiny", "--scheme", "float32", "--rounds", 1, "--threads", 1,
                 "--cache", tmp_path)  # fmt: skip
    told = json.loads(done.out.splitlines()[-1])
    assert list(told["figures"]) == ["llavakit"] and "second question about a picture" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["latency", "--shapes", "tini"], "there are no shapes called 'tini': did you mean 'tiny'?"),
        (["latency", "--shapes", "tiny", "--scheme", "int5"], "there is no scheme called 'int5'"),
        (["throughput", "--shapes", "tiny", "--conversations", "1,many"], "--conversations is '1,many'"),
        (["latency", "other", "--shapes", "tiny"], "other and --shapes tiny: give a model or shapes"),
        (["throughput", "--shapes", "tiny", "--kv-cache", "int8"], "are kept as int8 by the native kernels alone"),
        (["latency", "--scheme", "int8"], "--scheme int8 is the number format of random weights, and needs --shapes"),
        (["throughput", "--scheme", "int8"], "--scheme int8 is the number format of random weights, and needs"),
        (["throughput", "--shapes", "tiny", "--conversations", "0"], "--conversations is '0'"),
        (["latency", "--device", "cuda"], "PyTorch finds no cuda device on this machine; usable here: cpu"),
        (["throughput", "--device", "cuda", "--shapes", "tiny"], "PyTorch finds no cuda device on this machine"),
        (["peers", "--device", "cuda"], "PyTorch finds no cuda device on this machine; usable here: cpu"),
        (["kernels", "--threads", "4096"], "4096 threads are asked for, and this process may use"),
        (["peers", "llamacpp"], "there is no peer called 'llamacpp': did you mean 'llama.cpp'?"),
    ],
)
def test_mistakes_are_told(llava: Callable, arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = llava("bench", *arguments)
    assert done.code == 1 and done.err.startswith("llava: ") and told in done.err
