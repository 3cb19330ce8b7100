from __future__ import annotations

import http.server
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import IMGSZ, ROOT, Trained

from pipeline import files
from pipeline.errors import WeightsError
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    environment.prepare()


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder on a machine without network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "DOWNLOAD_HOST", "127.0.0.1")  # nothing listens on its port 443
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


class Hostile:
    """Unpickling this touches a file: the mildest payload a checkpoint could carry."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_checkpoint_is_refused_and_not_executed(tmp_path: Path) -> None:
    import torch

    for number, payload in enumerate(({"model": Hostile(tmp_path / "ran0")}, Hostile(tmp_path / "ran1"))):
        path = tmp_path / f"hostile{number}.pt"
        torch.save(payload, path)
        with pytest.raises(WeightsError, match=rf"hostile{number}\.pt: .*get it again from a source that you trust"):
            checkpoints.load(path)
        assert not (tmp_path / f"ran{number}").exists()
    # A plain load does execute it, so the payload is not harmless.
    torch.load(tmp_path / "hostile0.pt", weights_only=False)
    assert (tmp_path / "ran0").is_dir()


def test_a_bare_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    with pytest.raises(WeightsError):
        checkpoints.load(path)
    assert not (tmp_path / "ran").exists()


def test_code_in_the_yaml_of_a_checkpoint_is_not_evaluated(trained: Trained, tmp_path: Path) -> None:
    """Ultralytics builds models with `eval(activation)`, a string stored in the checkpoint."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    model, checkpoint = checkpoints.load(trained.run.model)
    model.yaml["activation"] = f"__import__('os').mkdir({str(tmp_path / 'ran')!r})"
    path = tmp_path / "eval.pt"
    torch.save({**checkpoint, "model": model.half()}, path)
    again, _ = checkpoints.load(path)
    with pytest.raises(TypeError, match="unsupported activation"):
        DetectionModel(again.yaml, nc=2, verbose=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.pt: not an Ultralytics checkpoint, or damaged") as error:
        checkpoints.load(path)
    assert "\n" not in str(error.value)


def test_a_truncated_checkpoint_is_refused(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    path.write_bytes(trained.run.model.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"half\.pt: not an Ultralytics checkpoint, or damaged"):
        checkpoints.load(path)


def test_plain_tensors_are_not_a_checkpoint(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match=r"state\.pt: not an Ultralytics checkpoint"):
        checkpoints.load(tmp_path / "state.pt")
    assert zipfile.is_zipfile(tmp_path / "state.pt")


def test_weights_are_found_in_the_weights_folder_or_the_current_one(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints.HOME.mkdir(parents=True)
    shutil.copy(trained.run.model, checkpoints.HOME / "mine.pt")
    shutil.copy(trained.run.model, tmp_path / "here.pt")
    assert checkpoints.find("mine.pt") == checkpoints.HOME / "mine.pt"
    assert checkpoints.find("here.pt") == Path("here.pt")
    assert checkpoints.find("yolo26n.yaml") == Path("yolo26n.yaml")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("yolo26n.pt", r"yolo26n\.pt: not in data/weights, and 127\.0\.0\.1 cannot be reached to download it; download it from https://.*/assets/releases to data/weights/yolo26n\.pt, or"),
        ("yolo26m.pt", r"cannot be reached"),
        ("yolo62n.pt", r"yolo62n\.pt: not in data/weights and not a model that Ultralytics offers; did you mean 'yolo26n\.pt'\?"),
        ("folder/yolo26n.pt", r"folder/yolo26n\.pt: no such file"),
        ("model.onnx", r"model\.onnx: not weights"),
    ],
)  # fmt: skip
def test_missing_weights_without_network_are_reported(name: str, said: str, tmp_path: Path, no_network: None) -> None:
    with pytest.raises(WeightsError, match=said):
        checkpoints.find(name)
    assert not list(tmp_path.rglob("*.pt"))


NO_ANSWER = "127.0.0.1 cannot be reached to download it"


@pytest.fixture
def offline(trained: Trained, no_network: None) -> Path:
    """The `data/weights` of a project with only starter weights, on a machine without network."""
    checkpoints.HOME.mkdir(parents=True)
    shutil.copy(trained.run.model, checkpoints.HOME / checkpoints.STARTER)
    return checkpoints.HOME


def test_the_configured_fallback_is_used_and_reported(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checkpoints.find("yolo26n.pt", checkpoints.STARTER) == offline / checkpoints.STARTER
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"{NO_ANSWER}; training starts from train.fallback, data/weights/starter-yolo26n.pt" in said


def test_a_fallback_of_the_same_name_is_recognised(offline: Path) -> None:
    for name, replaced in ((f"elsewhere/{checkpoints.STARTER}", True), (checkpoints.STARTER, False)):
        assert checkpoints.is_fallback(checkpoints.find(name, checkpoints.STARTER), name) is replaced
    assert not checkpoints.is_fallback(checkpoints.find("yolo26n.yaml"), "yolo26n.yaml")


def test_no_other_weights_are_used_without_a_fallback(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        WeightsError, match=r"download it from https://.* to data/weights/yolo26n\.pt, or .*`train\.fallback: starter"
    ):
        checkpoints.find("yolo26n.pt")
    assert capsys.readouterr().out == ""


def test_weights_that_exist_take_precedence_over_the_fallback(
    offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(offline / checkpoints.STARTER, offline / checkpoints.COCO)
    assert checkpoints.find("yolo26n.pt", checkpoints.STARTER) == offline / checkpoints.COCO
    assert checkpoints.find(checkpoints.STARTER) == offline / checkpoints.STARTER  # asked for by name
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["yolo26n.pt", "yolo62n.pt", "other/yolo26n.pt", "model.onnx"])
def test_a_missing_fallback_is_reported(name: str, offline: Path) -> None:
    with pytest.raises(WeightsError, match=r"; train\.fallback: mine\.pt is not in data/weights either$") as error:
        checkpoints.find(name, "mine.pt")
    assert "\n" not in str(error.value)


def test_a_proxy_that_does_not_answer_is_reported(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the `discard` port, where nothing listens
    assert checkpoints.find("yolo26n.pt", checkpoints.STARTER) == offline / checkpoints.STARTER


def test_a_silent_host_times_out(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host accepts the connection and never answers."""
    assert checkpoints.PROBE_SECONDS <= 5
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(checkpoints, "DOWNLOAD_HOST", f"127.0.0.1:{server.getsockname()[1]}")
        assert checkpoints.find("yolo26n.pt", checkpoints.STARTER) == offline / checkpoints.STARTER


@pytest.fixture
def release_host(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file served to Ultralytics' own downloader by a local server in place of GitHub."""
    from ultralytics.utils import downloads

    served = tmp_path / "served" / "any.pt"
    served.parent.mkdir()
    shutil.copy(trained.run.model, served)
    monkeypatch.chdir(tmp_path)
    checkpoints.HOME.mkdir(parents=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = served.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        download = downloads.safe_download

        def from_here(url: str, **options: Any) -> Any:
            return download(url=f"{address}/{Path(url).name}", **options)

        # Two addresses: where the host is looked up, and where the downloader fetches from.
        monkeypatch.setattr(checkpoints, "_reachable", lambda: True)
        monkeypatch.setattr(downloads, "safe_download", from_here)
        yield served
        server.shutdown()


def test_a_download_with_the_known_digest_is_accepted(
    release_host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(checkpoints.KNOWN, "yolo26n.pt", files.sha256(release_host))
    assert checkpoints.find("yolo26n.pt") == checkpoints.HOME / "yolo26n.pt"
    assert "verified" not in capsys.readouterr().out


def test_a_download_with_another_digest_is_refused(release_host: Path) -> None:
    """The file loads, so only the digest tells it from the real one."""
    with pytest.raises(
        WeightsError, match=r"yolo26n\.pt: the download has sha256 [0-9a-f]{64}, not the known 9b09cc8b"
    ):
        checkpoints.find("yolo26n.pt")
    assert list(checkpoints.HOME.iterdir()) == []


def test_a_download_without_a_known_digest_is_reported(release_host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checkpoints.find("yolo26s.pt") == checkpoints.HOME / "yolo26s.pt"
    assert (
        f"downloaded but not verified, because its digest is unknown; its sha256 is {files.sha256(release_host)}"
        in (capsys.readouterr().out)
    )


def test_ultralytics_neither_installs_packages_nor_calls_home() -> None:
    from ultralytics.utils import AUTOINSTALL, ONLINE, SAFE_LOAD
    from ultralytics.utils.events import events

    assert (AUTOINSTALL, ONLINE, SAFE_LOAD, events.enabled) == (False, False, True, False)


def test_training_uses_the_threads_asked_for(trained: Trained, copy_of: Callable[[Run], Run], tmp_path: Path) -> None:
    """One more than there are cores: neither PyTorch nor Ultralytics takes as many by itself."""
    run, threads = copy_of(trained.run), (os.cpu_count() or 1) + 1
    training = {"weights": "yolo26n.yaml", "imgsz": IMGSZ, "phases": [{"epochs": 1}], "args": {"plots": False}}
    (tmp_path / "tiny.yaml").write_text(json.dumps({"convert": {"source": "x"}, "train": training}))
    script = """
import sys, torch
from pipeline.__main__ import main
code = main(["train", "--config", "tiny.yaml", "--device", "cpu"])
from ultralytics.utils import torch_utils
print(torch_utils.NUM_THREADS, torch.get_num_threads())
sys.exit(code)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{threads} {threads}"
    assert files.read_json(run.train_record)["threads"] == threads
