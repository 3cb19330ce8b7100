"""Trials on a real Ray cluster of two nodes, one of which is killed: none is lost or counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.study import cluster, results
from pipeline.study.planning import Place
from pipeline.study.trials import Trial

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path, tmp_path / "runs" / "studies" / "tiny")
    made.study.mkdir(parents=True)
    return made


def trial(number: int) -> Trial:
    sections = {"convert": {"source": "raw"}}
    about: Any = {}
    return Trial(f"key{number}", f"row{number}", ("share", 1.0), 0, "tiny", sections, (), 0, about)


def test_without_ray_the_error_says_what_to_install(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PipelineError, match=r"Ray is not installed; run .* -e '\.\[dev,cluster\]'"):
        cluster.connect([trial(0)], place, cluster.SHARED, "cpu")


@pytest.mark.parametrize(
    ("needed", "sent"),
    [
        (["data/raw/mine"], ["mine/a.jpg", "mine/b/c.jpg"]),
        (["data/raw/group/mine", "data/raw/group/more"], ["group/mine/a.jpg", "group/more/a.jpg"]),
        (["data/raw/group", "data/raw/group/mine"], ["group/mine/a.jpg", "group/more/a.jpg", "group/other/a.jpg"]),
        ([], []),
    ],
)
def test_only_the_needed_images_are_sent(tmp_path: Path, needed: list[str], sent: list[str]) -> None:
    """Git reads the same patterns, and like Ray does not look into an ignored folder."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("\n".join(cluster.excluding(needed)) + "\n")
    every = ["mine/a.jpg", "mine/b/c.jpg", "group/mine/a.jpg", "group/more/a.jpg", "group/other/a.jpg", "x.zip"]
    for name in every:
        (tmp_path / "data/raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/raw" / name).touch()
    listed = ["git", "ls-files", "--others", "--exclude-standard", "data"]
    shown = subprocess.run(listed, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
    assert shown == sorted(f"data/raw/{name}" for name in sent)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores, and two nodes with one core each."""
    ray = pytest.importorskip("ray", reason="Ray is not installed; .[cluster] has it")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def stand_in(trial: dict[str, Any], where: tuple[str, str], name: str, device: str) -> dict[str, Any]:
    """Simulate a trial: the first attempt of the first two reports where it runs, and waits at the gate."""
    import ray

    folder = Path(where[1])
    tried = folder / f"{trial['key']}.tried"
    with tried.open("a") as file:
        file.write(".")
    if trial["key"] in ("key0", "key1") and tried.read_text() == ".":
        with (folder / "arrived").open("w") as arrived:
            arrived.write(f"{trial['key']} {ray.get_runtime_context().get_node_id()} {os.getpid()}\n")
        with (folder / "gate").open("rb", buffering=0) as gate:
            gate.read(1)
    return {"key": trial["key"], "map50_95": 0.5}


def test_a_lost_node_loses_no_trial(two_nodes: Any, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import cloudpickle

    for name in ("arrived", "gate"):
        os.mkfifo(place.study / name)
    lost: list[str] = []
    gate = os.open(place.study / "gate", os.O_RDWR)

    def kill() -> None:
        # Opened for reading and writing, a pipe neither waits for the other side nor ends with it.
        with os.fdopen(os.open(place.study / "arrived", os.O_RDWR)) as lines:
            arrived = {key: (node, int(pid)) for key, node, pid in (lines.readline().split() for _ in range(2))}
        lost_node, worker = arrived["key0"]
        [node] = [node for node in two_nodes.worker_nodes if node.node_id == lost_node]
        two_nodes.remove_node(node, allow_graceful=False)
        with suppress(ProcessLookupError):  # a worker may live a little longer than its node
            os.kill(worker, signal.SIGKILL)
        lost.append("key0")
        os.write(gate, b"." * 8)  # at least one for each waiting worker

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes cannot import the tests
    monkeypatch.setattr(cluster, "one", stand_in)
    waiting = [trial(number) for number in range(5)]
    assert cluster.connect(waiting, place, cluster.SHARED, "cpu") == 2
    killer = Thread(target=kill, daemon=True)
    killer.start()
    for done, line in cluster.run(waiting, place, cluster.SHARED, "cpu"):
        assert not isinstance(line, PipelineError), line
        assert line["key"] == done.key and results.append(place.results, line)
    killer.join()
    os.close(gate)
    assert sorted(results.read(place.results)) == [one.key for one in waiting]
    tried = {path.stem: len(path.read_text()) for path in place.study.glob("*.tried")}
    assert tried == {one.key: 2 if one.key in lost else 1 for one in waiting}
