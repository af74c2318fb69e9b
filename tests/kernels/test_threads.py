"""The number of cores in control groups as Linux shows them: version 2, version 1, and a container's view of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit.kernels import threads as module
from llavakit.kernels.threads import check_threads, cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """A root folder with the groups of this process, and files below /sys/fs/cgroup."""

    def make(groups: str, **files: str) -> Path:
        below = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in {"proc/self/cgroup": groups, **below}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "5000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "9900000 100000"}, 8),
        ("0::/", {}, 8),
        ("0::/a.slice/b", {"a.slice/b/cpu.max": "max 100000", "a.slice/cpu.max": "300000 100000"}, 3),
        ("0::/a.slice/b", {"a.slice/b/cpu.max": "100000 50000", "a.slice/cpu.max": "300000 100000"}, 2),
        ("0::/../b", {"cpu.max": "100000 100000"}, 1),
        ("9:memory:/\n4:cpu,cpuacct:/docker/f00\n0::/",
         {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 4),
        ("1:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "10000"}, 5),
        ("1:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 8),
        ("2:cpuacct:/", {"cpuacct/cpu.cfs_quota_us": "100000", "cpuacct/cpu.cfs_period_us": "100000"}, 8),
        ("0::/", {"cpu.max": "what is this"}, 8),
        ("0::/", {"cpu.max": "100000 0"}, 8),
    ],
)  # fmt: skip
def test_cores_of_a_control_group(machine: Callable[..., Path], groups: str, files: dict, expected: int) -> None:
    assert cores(machine(groups, **files)) == expected


def test_a_system_without_any_of_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(tmp_path) == 1


@pytest.mark.parametrize("count", [0, -1, 3, 99])
def test_what_is_no_number_of_threads_is_told(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 2)
    check_threads(1)
    check_threads(2)
    with pytest.raises(ValueError, match=f"^{count} threads are asked for, and .* 2 cores: give a number from 1 to 2"):
        check_threads(count)
