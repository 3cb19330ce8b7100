from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import parallel
from pipeline.device.runner import base, quota
from pipeline.errors import DataError

MANY = 40 * parallel.CHUNK


def square(number: int) -> int:
    return number * number


def unevenly(number: int) -> tuple[int, int]:
    sum(range(400_000 if number % 16 == 0 else 0))  # so that later chunks finish before earlier ones
    return number, os.getpid()


def picky(number: int) -> int:
    if number == 100:
        raise DataError("image100.jpg: damaged; replace it")
    return number


@pytest.mark.parametrize("workers", [0, 1, 2, 3, None])
def test_results_are_in_order_for_any_number_of_workers(workers: int | None) -> None:
    assert list(parallel.ordered(square, range(MANY), workers, "")) == [n * n for n in range(MANY)]
    assert list(parallel.ordered(square, [], workers, "")) == []


def test_processes_share_the_work() -> None:
    numbers, processes = zip(*parallel.ordered(unevenly, range(MANY), 2, ""), strict=True)
    assert numbers == tuple(range(MANY))
    assert len(set(processes)) == 2 and os.getpid() not in processes


def test_few_items_start_no_processes() -> None:
    [(_, process)] = parallel.ordered(unevenly, [1], 8, "")
    assert process == os.getpid()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_in_a_process_is_raised_here(workers: int) -> None:
    with pytest.raises(DataError, match=r"image100\.jpg: damaged; replace it"):
        list(parallel.ordered(picky, range(MANY), workers, ""))


class Counted(Sequence[int]):
    """A million numbers that count how many were requested."""

    asked = 0

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, place: Any) -> Any:
        indices = range(len(self))[place]
        self.asked += len(indices) if isinstance(place, slice) else 1
        return indices


def test_memory_does_not_grow_with_the_number_of_items() -> None:
    """Only a limited number of items is taken ahead of use."""
    items = Counted()
    results = parallel.ordered(square, items, 2, "")
    for _ in range(3 * parallel.CHUNK):
        next(results)
    assert items.asked <= (3 + 2 * parallel.AHEAD + 1) * parallel.CHUNK
    results.close()  # type: ignore[attr-defined]  # a generator


@pytest.mark.parametrize(
    ("groups", "files", "allowed"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {}, math.inf),
        # A group is limited by its ancestors, not by its siblings.
        ("0::/kube/pod/c\n", {"kube/pod/cpu.max": "250000 100000", "kube/pod/c/cpu.max": "max 100000"}, 2.5),
        ("0::/kube/pod/c\n", {"kube/other/cpu.max": "100000 100000"}, math.inf),
        # The host's path of the group, as seen from a container.
        ("0::/../../docker/1f\n", {"cpu.max": "150000 100000"}, 1.5),
        ("4:cpu,cpuacct:/\n0::/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2),
        ("1:cpu:/docker/1f\n", {"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 0.5),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("3:cpuset:/a\n", {"cpuset/a/cpu.max": "100000 100000"}, math.inf),
        ("4:cpuacct,cpu:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3),
    ],
)  # fmt: skip
def test_the_cpu_quota_of_a_container_is_respected(
    groups: str, files: dict[str, str], allowed: float, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert quota.quota(tmp_path) == allowed


def test_there_is_always_at_least_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = parallel.cores()
    for limit, cores in ((0.5, 1), (1.9, 1), (mine + 0.5, mine), (math.inf, mine)):
        monkeypatch.setattr(parallel, "quota", lambda limit=limit: limit)
        assert parallel.cores() == min(cores, mine)
        monkeypatch.setattr(base, "quota", lambda limit=limit: limit)
        assert len(base.cores()) == min(cores, mine)
