"""The same seed gives the same training: batches loaded ahead, and when random numbers are drawn."""

from __future__ import annotations

import inspect
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Trained, train_tiny

from pipeline import files, parallel
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

MULTI_SCALE = {"plots": False, "multi_scale": 0.5}


@pytest.fixture
def loader_class() -> Any:
    environment.prepare()
    from pipeline.upstream.loader import InProcessLoader

    return InProcessLoader


@pytest.fixture
def fresh(trained: Trained, copy_of: Callable[[Run], Run]) -> Run:
    return copy_of(trained.run)


def digest_after(run: Run, start: Path, args: dict[str, Any], batch: int = 4) -> str:
    """The digest of all weights after a training of two epochs."""
    import hashlib

    train_tiny(run, start, {"epochs": 2}, args=args, batch=batch)
    state = checkpoints.load(run.model)[0].state_dict()
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state.values())).hexdigest()


def resumed(run: Run, start: Path, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch, batch: int = 4) -> str:
    """The same after a training that was stopped after its first epoch."""
    link = files.link

    def stop(source: Path, target: Path) -> None:
        link(source, target)
        if target.name == "resume.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "link", stop)
        with pytest.raises(KeyboardInterrupt):
            digest_after(run, start, args, batch)
    written = run.train / "phase1" / "weights"  # once: a checkpoint of yolo26x takes 0.7 GB
    assert [path.name for path in written.iterdir()] == ["last.pt"]
    assert all((run.train / "phase1" / name).samefile(written / "last.pt") for name in ("resume.pt", "resume_best.pt"))
    return digest_after(run, start, args, batch)


def test_images_kept_in_memory_give_one_training_with_a_seed(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosaic then draws from all images, not from the last ones. The second training is also stopped and resumed."""
    args = {"plots": False, "cache": "ram", "close_mosaic": 0}
    assert digest_after(fresh, start, args) == resumed(fresh, start, args, monkeypatch)


def test_images_that_memory_cannot_hold_are_reported(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import psutil

    args, said = {"plots": False, "cache": "ram"}, "train: too little room for train.args.cache, so every epoch reads"
    train_tiny(fresh, start, args=args)
    assert said not in capsys.readouterr().out
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0, total=1))
    train_tiny(fresh, start, args=args)
    assert capsys.readouterr().out.count(said) == 1


def test_one_seed_gives_one_training_with_multi_scale(fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics draws each batch size in the main thread. The second training is also stopped and resumed."""
    assert digest_after(fresh, start, MULTI_SCALE) == resumed(fresh, start, MULTI_SCALE, monkeypatch)


def test_an_optimizer_whose_momentum_ultralytics_rounds_resumes_exactly_too(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {"plots": False, "optimizer": "SGD"}
    assert digest_after(fresh, start, args) == resumed(fresh, start, args, monkeypatch)


@pytest.mark.parametrize("warmup", [0, 2])
def test_a_step_of_several_batches_resumes_exactly_too(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch, warmup: int
) -> None:
    """Eight batches an epoch and five a step: the second step takes three batches before the stop and two after it."""
    args = {"plots": False, "nbs": 10, "warmup_epochs": warmup}
    assert digest_after(fresh, start, args, batch=2) == resumed(fresh, start, args, monkeypatch, batch=2)


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("3,2", 3), ("", 8), ("0", 8), ("many", 8)])
def test_threads_are_those_asked_for_or_one_per_core_up_to_eight(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(parallel, "cores", lambda: 64)
    assert environment.threads() == expected


def test_pytorch_uses_the_threads_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        environment.prepare()
        environment.torch_device("cpu")
        assert torch.get_num_threads() == 1
    finally:
        monkeypatch.undo()
        environment.prepare()
        environment.torch_device("cpu")


def test_nothing_else_draws_random_numbers_between_batches(
    fresh: Run, start: Path, loader_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise loading ahead would have to be disabled for it, as for `multi_scale`."""
    import numpy as np
    import torch

    def state() -> tuple[Any, str, bytes]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()

    drawn: list[bool] = []
    iterate = loader_class.__iter__

    def watched(self: Any) -> Iterator[Any]:
        self.ahead = False  # only the main thread works
        for batch in iterate(self):
            before = state()
            yield batch
            drawn.append(state() != before)

    monkeypatch.setattr(loader_class, "__iter__", watched)
    train_tiny(fresh, start, {"epochs": 1}, args={})
    assert len(drawn) > 4 and not any(drawn)
    drawn.clear()
    train_tiny(fresh, start, {"epochs": 1}, args=MULTI_SCALE)
    assert any(drawn)


def test_loading_ahead_changes_no_batch(loader_class: Any) -> None:
    import torch
    from ultralytics.data.build import InfiniteDataLoader

    def epochs(kind: Any, ahead: bool) -> list[list[list[int]]]:
        loader = kind(list(range(10)), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))
        loader.ahead = ahead
        found = []
        for _ in range(3):
            loader.reset()  # as our loader does by itself
            found.append([batch.tolist() for batch in loader])
        return found

    assert epochs(loader_class, True) == epochs(loader_class, False) == epochs(InfiniteDataLoader, False)


def test_an_epoch_depends_only_on_saved_random_states(loader_class: Any) -> None:
    """Albumentations has its own generators, which Ultralytics seeds from PyTorch's once per process."""
    import albumentations
    import numpy as np
    import torch
    from ultralytics.data.augment import Albumentations

    class Noisy(list[int]):
        def __init__(self) -> None:
            super().__init__(range(6))
            self.transform = Albumentations(p=1.0, transforms=[albumentations.GaussNoise(p=1.0)])

        def __getitem__(self, index: Any) -> Any:
            return self.transform({"img": np.full((4, 4, 3), 100, np.uint8)})["img"]

    def epoch(loader: Any) -> list[list[Any]]:
        return [batch.tolist() for batch in loader]

    whole, resumed = (
        loader_class(Noisy(), batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    first = epoch(whole)
    numbers = random.getstate(), whole.generator.get_state()
    second = epoch(whole)
    random.setstate(numbers[0])
    resumed.generator.set_state(numbers[1])
    assert epoch(resumed) == second != first


def test_loading_ahead_takes_no_core_from_training(loader_class: Any) -> None:
    import torch

    class Asking(list[int]):
        def __getitem__(self, index: Any) -> Any:
            return torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert [batch.tolist() for batch in loader_class(Asking(range(4)), batch_size=2)] == [[1, 1], [1, 1]]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_closed_loader_draws_nothing_more(loader_class: Any) -> None:
    """When out of memory, Ultralytics closes the loader in mid-epoch and builds another."""

    class Drawing(list[int]):
        def __getitem__(self, index: Any) -> Any:
            for _ in range(200_000):
                random.random()
            return index

    loader = loader_class(Drawing(range(4)), batch_size=1)
    epoch = iter(loader)
    next(epoch)  # the second batch is being loaded
    loader.close()
    state = random.getstate()
    epoch.close()  # waits for the thread
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("weights", "there", "offered"),
    [
        ("own.pt", ["own.pt", "data/weights/yolo26n.pt"], "data/weights/yolo26n.pt"),
        ("own.pt", ["own.pt", "data/weights/starter-yolo26n.pt"], "own.pt"),
        ("yolo26n.yaml", ["data/weights/starter-yolo26n.pt"], "data/weights/starter-yolo26n.pt"),
        ("yolo26n.yaml", [], None),
    ],
)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_check_of_mixed_precision_on_a_gpu_downloads_nothing(
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    there: list[str],
    offered: str,
    device: str,
) -> None:
    """Stopped before the check, which needs a GPU. A resumed training finds the file of the first one."""
    environment.prepare()
    import torch
    from ultralytics import YOLO, utils
    from ultralytics.utils import checks

    from pipeline.train.cpu import CpuTrainer

    class Stopped(CpuTrainer):
        def setup_model(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(utils, "WEIGHTS_DIR", tmp_path / "downloads")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "weights").mkdir(parents=True)
    (tmp_path / "phase").mkdir()
    for name in there:
        shutil.copy(start, name)
    trainer = Stopped.__new__(Stopped)
    trainer.device, trainer.args, trainer.wdir = (
        torch.device(device),
        SimpleNamespace(model=weights),
        tmp_path / "phase",
    )
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trainer._setup_train()

    assert 'WEIGHTS_DIR / "yolo26n.pt"' in inspect.getsource(checks.check_amp)
    from ultralytics.utils import WEIGHTS_DIR  # as `check_amp` does

    if offered and device == "cuda":
        assert (WEIGHTS_DIR / "yolo26n.pt").samefile(offered)
        assert list(YOLO(WEIGHTS_DIR / "yolo26n.pt").names) == list(YOLO(offered).names)
    else:
        assert tmp_path / "downloads" == WEIGHTS_DIR and not list((tmp_path / "phase").iterdir())
