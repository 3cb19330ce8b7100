"""`rank` end to end: the order of sources, the depth, and inputs that cannot be ranked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import IMGSZ, pipeline_process
from pydantic import ValidationError

from pipeline import convert, rank
from pipeline.config.data import Convert
from pipeline.config.rank import Rank
from pipeline.config.training import Train
from pipeline.errors import WeightsError
from pipeline.records import base, ranking
from pipeline.run import Run
from pipeline.upstream import environment


@pytest.fixture
def converted(source: Path, run: Run) -> Run:
    convert.main(Convert(source=source), run, 0)
    return run


def of(run: Run, *weights: str, **more: Any) -> ranking.Ranking:
    rank.main(Rank(weights=weights, **more), Train(imgsz=IMGSZ, weights="yolo26n.yaml"), run, 0, "cpu")
    return ranking.read(run)


def test_two_sources_are_ranked(converted: Run, start: Path) -> None:
    record = of(converted, "yolo26n.yaml", str(start))
    assert {source["weights"]["name"] for source in record["sources"]} == {"yolo26n.yaml", str(start)}
    assert [source["place"] for source in record["sources"]] == sorted(source["place"] for source in record["sources"])
    for source in record["sources"]:
        assert source["layers"] == [4, 6, 10] and source["depth"] is not None
        assert list(map(int, source["depth"]["accuracy"])) == [10, 13, 16, 19, 2, 22, 4, 6]  # JSON's order of keys
        assert 0 < source["depth"]["freeze"] <= 11
        assert list(source["per_class"])  # each class and background
    assert sum(record["boxes"].values()) > 0
    base.adapter(ranking.Ranking).validate_python(record)
    before = json.loads(converted.ranking.read_text())
    of(converted, "yolo26n.yaml", str(start))
    again = json.loads(converted.ranking.read_text())
    for kept in (before, again):
        for source in kept["sources"]:
            del source["seconds"]
    assert again == before


def test_without_a_list_the_configs_own_weights_are_ranked(converted: Run) -> None:
    (source,) = of(converted, layers=False)["sources"]
    assert (source["weights"]["name"], source["weights"]["sha256"], source["depth"]) == ("yolo26n.yaml", None, None)
    assert source["place"] == 1


def broken(folder: Path, start: Path) -> dict[str, Path]:
    environment.prepare()
    (folder / "text.pt").write_text("no weights")
    checkpoint = torch.load(start, map_location="cpu", weights_only=False)
    model = checkpoint.get("ema") or checkpoint["model"]
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    torch.save({**checkpoint, "model": model, "ema": None}, folder / "nan.pt")
    return {"text": folder / "text.pt", "nan": folder / "nan.pt"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", "text.pt: not an Ultralytics checkpoint, or damaged"),
        ("nan", "nan.pt: its layers output NaN or infinity; remove it from rank.weights"),
        ("absent/x.pt", "rank.weights: absent/x.pt: no such file; put the file there, or remove it from the list"),
        ("notes.txt", "rank.weights: notes.txt: not weights; put"),
    ],
)
def test_unusable_weights_are_reported(name: str, said: str, converted: Run, start: Path, tmp_path: Path) -> None:
    path = broken(tmp_path, start)[name] if name in ("text", "nan") else name
    with pytest.raises(WeightsError, match=re.escape(said)) as error:
        of(converted, str(path))
    assert "\n" not in str(error.value) and not converted.ranking.exists()


@pytest.mark.parametrize("weights", [["a.pt", "a.pt"], [""], "a.pt"])
def test_an_invalid_list_is_refused(weights: Any) -> None:
    with pytest.raises(ValidationError):
        Rank(weights=weights)


def test_the_command_line_reports_the_result(converted: Run, tmp_path: Path) -> None:
    (tmp_path / f"{converted.name}.yaml").write_text(
        f"convert: {{source: x}}\ntrain: {{imgsz: {IMGSZ}}}\nrank: {{weights: [yolo26n.yaml]}}\n"
    )
    done = pipeline_process("rank", "--config", f"{converted.name}.yaml", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  yolo26n.yaml  2: 0\.\d{3}  4: .*  freeze: \d+$", done.stdout, re.M)
    assert done.stdout.splitlines()[-1].startswith("rank: yolo26n.yaml first of 1, freeze at most ")
