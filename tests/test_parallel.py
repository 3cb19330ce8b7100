from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline import parallel
from pipeline.errors import DataError

MANY = 40 * parallel.CHUNK


def square(number: int) -> int:
    return number * number


def unevenly(number: int) -> tuple[int, int]:
    sum(range(400_000 if number % 16 == 0 else 0))  # so that later chunks are done before earlier ones
    return number, os.getpid()


def picky(number: int) -> int:
    if number == 100:
        raise DataError("image100.jpg: damaged; replace it")
    return number


@pytest.mark.parametrize("workers", [0, 1, 2, 3, None])
def test_results_come_in_order_whatever_the_workers(workers: int | None) -> None:
    assert list(parallel.ordered(square, range(MANY), workers, "")) == [n * n for n in range(MANY)]
    assert list(parallel.ordered(square, [], workers, "")) == []


def test_processes_share_the_work() -> None:
    numbers, processes = zip(*parallel.ordered(unevenly, range(MANY), 2, ""), strict=True)
    assert numbers == tuple(range(MANY))
    assert len(set(processes)) == 2 and os.getpid() not in processes


def test_few_items_start_no_process() -> None:
    [(_, process)] = parallel.ordered(unevenly, [1], 8, "")
    assert process == os.getpid()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_process_raises_is_raised_here(workers: int) -> None:
    with pytest.raises(DataError, match=r"image100\.jpg: damaged; replace it"):
        list(parallel.ordered(picky, range(MANY), workers, ""))


class Counted(Sequence[int]):
    """A million numbers that know how many were asked for."""

    asked = 0

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, place: Any) -> Any:
        indices = range(len(self))[place]
        self.asked += len(indices) if isinstance(place, slice) else 1
        return indices


def test_memory_does_not_grow_with_the_items() -> None:
    """Only so many are taken ahead of what has been used."""
    items = Counted()
    results = parallel.ordered(square, items, 2, "")
    for _ in range(3 * parallel.CHUNK):
        next(results)
    assert items.asked <= (3 + 2 * parallel.AHEAD + 1) * parallel.CHUNK
    results.close()  # type: ignore[attr-defined]  # a generator
