"""The peers by turns, round after round: each job is done by all that fit into memory together, one by one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import sleep
from typing import Any

import torch

from llavakit.bench.cost import decode_work
from llavakit.bench.figures import figure
from llavakit.bench.peers.jobs import Job, Prompt, check_length, jobs, warming
from llavakit.bench.peers.process import PeerError, Process
from llavakit.bench.peers.table import OURS, Peer, by_memory
from llavakit.bench.peers.targets import Round
from llavakit.bench.probe import Ceilings, probe
from llavakit.config import LlavaConfig
from llavakit.kernels.graph import KeysValues

Say = Callable[[str], None]
SETTLE_SECONDS = 0.1  # the threads of whoever came before may still be waiting for work, with all their might
SPEAKING = "decode"  # what memory's speed is the limit of: it is probed once more on either side
LAST = "together"  # its eight conversations take memory that one does not: memory is read before it


@dataclass(frozen=True)
class Plan:
    """What is to be run. `room` is the memory in bytes that the peers may have together, `cache` a folder for files."""

    shapes: LlavaConfig
    scheme: str
    threads: int
    rounds: int
    cache: Path
    room: float
    prompt: Prompt = field(default_factory=Prompt)
    device: str = "cpu"
    kv_cache: KeysValues | None = None


@dataclass
class Found:
    """What came of it: everything that was measured, round by round, and what each peer said of itself."""

    rounds: list[Round] = field(default_factory=list)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    loads: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def decode_bytes(self, plan: Plan) -> float:
        """What a token of ours reads, at the length that conversations have while they are measured."""
        return decode_work(
            plan.shapes.language, context=plan.prompt.first, weight_bytes=self.weight_bytes, kv_cache=plan.kv_cache
        ).bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of our weights that a token reads."""
        return self.about[OURS]["decode_bytes"]

    def figures(self) -> dict[str, Any]:
        """Medians, ranges and rounds of each job of each peer, in seconds."""
        names = [name for name in self.about if any(name in one.seconds for one in self.rounds)]
        return {name: self._of(name) for name in names}

    def _of(self, name: str) -> dict[str, Any]:
        measured = [one.seconds[name] for one in self.rounds if name in one.seconds]
        seconds = {job: figure([one[job] for one in measured]) for job in measured[0]}
        return {"seconds": seconds, "load_s": figure(self.loads[name]), "memory": self.memory.get(name, {})}


def run(peers: list[Peer], plan: Plan, *, say: Say) -> Found:
    """All rounds. A peer that fails is left out from then on, and said to be; raises `PeerError` if we ourselves do."""
    check_length(plan.shapes, plan.prompt)
    plan.cache.mkdir(parents=True, exist_ok=True)
    found, length = Found(), plan.prompt.first + plan.prompt.spoken + plan.prompt.second
    tokens = length * (1 + plan.prompt.conversations)
    groups = by_memory(peers, lambda peer: peer.memory(plan.shapes, cached_tokens=tokens), plan.room)
    for peer in peers:
        _prepare(peer, plan, say)
    with ExitStack() as alive:
        running: dict[str, Process] = {}
        for index in range(plan.rounds):
            found.rounds.append(Round(probe(plan.threads, plan.device), defaultdict(dict)))
            say(f"round {index + 1} of {plan.rounds}: {_spoken(found.rounds[-1].ceilings)}")
            for group in groups:
                usable = [peer for peer in group if peer.name not in found.failed]
                if len(groups) > 1:
                    running.clear()
                    alive.close()
                for peer in usable:
                    if peer.name not in running:
                        _start(peer, plan, found, running, alive, say)
                _one_round([peer for peer in usable if peer.name in running], plan, index, found, running, say)
            _drop_broken(found)
    return found


def _spoken(ceilings: Ceilings) -> str:
    rates = ("int8", ceilings.int8_gops), ("bfloat16", ceilings.bfloat16_gflops)
    told = "".join(f", {rate:,.0f} GOP/s of {kind}" for kind, rate in rates if rate is not None)
    return f"memory is read at {ceilings.read_gbps:.1f} GB/s{told}"


def _prepare(peer: Peer, plan: Plan, say: Say) -> None:
    """Write the files that the peer reads its model from, unless they are there for these very shapes."""
    if peer.prepare is None:
        return
    folder, shapes = plan.cache / peer.name, plan.shapes.model_dump_json()
    stamp = folder / "shapes.json"
    if stamp.is_file() and stamp.read_text() == shapes and all((folder / file).is_file() for file in peer.files):
        return
    say(f"writing a model for {peer.name}")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, peer.prepare, shapes, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise PeerError(f"the model for {peer.name} could not be written: {done.stderr.strip().splitlines()[-1]}")
    stamp.write_text(shapes)


def _start(peer: Peer, plan: Plan, found: Found, running: dict[str, Process], alive: ExitStack, say: Say) -> None:
    folder = plan.cache / peer.name
    folder.mkdir(parents=True, exist_ok=True)
    shapes = json.loads(plan.shapes.model_dump_json())
    asked = {
        "shapes": shapes,
        "threads": plan.threads,
        "cache": str(folder),
        "scheme": plan.scheme,
        "kv_cache": plan.kv_cache,
        "device": plan.device,
        "conversations": plan.prompt.conversations,
        "length": plan.prompt.length,
    }
    try:
        process = alive.enter_context(Process(peer.name, peer.command, asked, log=folder / "log.txt"))
        for call in warming(plan.prompt, plan.device):
            process.ask(*call)
    except PeerError as error:
        _fails(peer, error, found, say)
        return
    running[peer.name] = process
    found.about.setdefault(peer.name, process.made["about"])
    found.loads[peer.name].append(process.made["load_s"])


def _one_round(group: list[Peer], plan: Plan, index: int, found: Found, running: dict[str, Process], say: Say) -> None:
    """Every job by everybody; who begins changes from round to round."""
    turn = index % max(len(group), 1)
    order = group[turn:] + group[:turn]
    for job in jobs(plan.prompt):
        for peer in order:
            if peer.name not in found.failed:
                is_bound = job.name == SPEAKING and peer.name == OURS
                with _probed(plan, found.rounds[-1]) if is_bound else nullcontext():
                    _do(job, peer, found, running[peer.name], say)


@contextmanager
def _probed(plan: Plan, one: Round) -> Iterator[None]:
    """The bandwidth of a round is what was read on either side of this."""
    before = probe(plan.threads, plan.device).read_gbps
    yield
    after = probe(plan.threads, plan.device).read_gbps
    one.ceilings = replace(one.ceilings, read_gbps=(before + after) / 2)


def _do(job: Job, peer: Peer, found: Found, process: Process, say: Say) -> None:
    sleep(SETTLE_SECONDS)
    try:
        if job.name == LAST and peer.name not in found.memory:
            found.memory[peer.name] = process.ask("memory")
        seconds = process.ask(*job.call)["seconds"]
    except PeerError as error:
        _fails(peer, error, found, say)
        return
    found.rounds[-1].seconds[peer.name][job.name] = seconds
    say(f"  {job.name:9} {peer.name:13} {seconds:9.4g} s" + (f" {job.tokens / seconds:9.4g}/s" if job.tokens else ""))


def _fails(peer: Peer, error: PeerError, found: Found, say: Say) -> None:
    if peer.name == OURS:
        raise error
    found.failed[peer.name] = str(error)
    say(f"  {error}")


def _drop_broken(found: Found) -> None:
    """Half a round of a peer that broke off is nothing to compare with."""
    for name in found.failed:
        found.rounds[-1].seconds.pop(name, None)


def described(prompt: Prompt) -> dict[str, int]:
    return asdict(prompt)


def free_memory(device: str = "cpu") -> float:
    """Bytes of a device that may be taken now, a tenth of them left for everybody else."""
    if device != "cpu":
        return 0.9 * torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return float("inf")
    kilobytes = next(line.split()[1] for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    return 0.9 * 1024 * int(kilobytes)
