from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from conftest import Trained
from detections import Predictions, Truth, scene, seen
from PIL import Image
from test_convert_truth import plant

from pipeline import convert, history, report
from pipeline.boxes import write_data_yaml
from pipeline.config.data import Convert
from pipeline.config.judging import Report
from pipeline.errors import DataError
from pipeline.files import read_json, sha256, write_json
from pipeline.records.label_rounds import OnPool, Round
from pipeline.report import plots, words
from pipeline.run import Run
from pipeline.validate import compare, error_types

Copy = Callable[[Run], Run]
BOX = {"id": 99, "image_id": 1, "category_id": 0, "bbox": [9, 9, 9, 9], "score": 0.5, "type": "background", "annotation_id": None, "iou": 0}  # fmt: skip
HOSTILE = "</text><script>alert(1)</script> $x_ 缺口 \"'&amp;"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.html = (run.report / "index.html").read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def alts(self) -> list[str]:
        return [attributes["alt"] or "" for attributes in self.of("img")]


def judged(run: Run, split: str, boxes: list[dict[str, Any]], predictions: list[dict[str, Any]]) -> None:
    """Replace validate's records of single predictions by those of a test."""
    errors = read_json(run.errors(split))
    errors["objects"] = [
        {"annotation_id": box["id"], "image_id": box["image_id"], "type": box.pop("type"), "prediction_id": None}
        for box in boxes
    ]
    errors["predictions"] = [
        {"id": i, "category_id": 0, "score": 0.5, "annotation_id": None, "iou": 0.0, **p}
        for i, p in enumerate(predictions)
    ]
    write_json(run.errors(split), errors)
    truth = read_json(run.ground_truth(split))
    truth["annotations"] = [{"category_id": 0, "area": 1600, "iscrowd": 0, **box} for box in boxes]
    write_json(run.ground_truth(split), truth)


def test_the_page_needs_no_network(trained: Trained) -> None:
    page = Page(trained.run)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "base", "object", "embed", "form")]
    targets = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster")
    ]
    assert targets and all(target.startswith(("data:", "#")) for target in targets)
    assert not re.search(r"@import|url\((?!#)", page.html)
    assert [path.name for path in trained.run.report.iterdir()] == ["index.html"]


def test_ids_are_unique(trained: Trained) -> None:
    """Plots share the page: a clip path must not be confused with another plot's of the same name."""
    page = Page(trained.run)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    shapes: dict[str, set[str]] = {}
    for name in ids:
        for found in re.findall(rf'id="{re.escape(name or "")}"[^>]*>[^<]*<[^>]*>', page.html):
            shapes.setdefault(name or "", set()).add(" ".join(found.split()))
    assert ids and set(shapes) == set(ids) and all(len(found) == 1 for found in shapes.values()), shapes


def test_the_page_shows_the_figures_of_the_run(trained: Trained) -> None:
    text = Page(trained.run).text
    metrics = read_json(trained.run.metrics)
    figures = metrics["splits"]["test"]
    for key in ("map50_95", "map50", "map75", "ar100"):
        assert f"{figures[key]:.3f}" in text
    for name, row in figures["per_class"].items():
        point = figures["operating_point"]["per_class"][name]
        assert f"{point['threshold']:.3f}" in text
        assert re.search(rf"{re.escape(name)}\s*{row['objects']}", text)
    assert "proven" in text and "No image is in two splits" in text
    assert f"{metrics['cost']['parameters']:,} parameters" in text
    # All three parts are timed, as `pipeline.validate.cost` documents; the file is read before.
    assert "batch 1: letterbox, network and non-maximum suppression, without reading the file." in text
    assert "make all CONFIG=configs/tiny.yaml" in text
    assert Path(trained.config.train.weights).name in text
    assert read_json(trained.run.train_record)["versions"]["torch"] in text


def test_intervals_stand_beside_their_figures(trained: Trained, copy_of: Copy) -> None:
    """Three images have none, five would. The page shows what is in the file."""
    run = copy_of(trained.run)
    metrics = read_json(run.metrics)
    metrics["splits"]["test"] |= {"map50_95": 0.5}
    metrics["splits"]["test"]["intervals"]["map50_95"] = [0.4321, 0.5678]
    write_json(run.metrics, metrics)
    report.main(Report(), run)
    assert re.search(r"0\.500\s*mAP50-95\s*0\.432 to 0\.568", Page(run).text)


def test_every_image_has_alternative_text(trained: Trained) -> None:
    page = Page(trained.run)
    assert page.alts and all(re.search(r"\d+ of \d+ objects? found, \d+ wrong prediction", alt) for alt in page.alts)
    for attributes in page.of("svg"):
        assert attributes.get("aria-hidden") == "true"  # described by the image's alt text or the figure's label
    labelled = [attributes for attributes in page.of("div") if attributes.get("role") == "img"]
    assert len(labelled) == 5 and all(attributes["aria-label"] for attributes in labelled)


def test_worst_images_come_first_and_are_counted_right(trained: Trained, copy_of: Copy) -> None:
    """By hand: one correct image, one with a missed object, one with two wrong predictions.

    The second wrong prediction localises an object badly: one error, though the object is not found.
    """
    run = copy_of(trained.run)
    names = [image["file_name"] for image in read_json(run.ground_truth("test"))["images"]]
    box = {"bbox": [50, 50, 40, 40]}
    objects = [
        {"id": 1, "image_id": 1, "type": "tp", **box},
        {"id": 2, "image_id": 2, "type": "missed", **box},
        {"id": 3, "image_id": 3, "type": "localisation", **box},
    ]
    predictions = [
        {"image_id": 1, "type": "tp", **box},
        {"image_id": 3, "type": "background", **box},
        {"image_id": 3, "type": "localisation", **box},
    ]
    judged(run, "test", objects, predictions)
    report.main(Report(), run)
    assert Page(run).alts == [
        f"{names[2]}: 0 of 1 object found, 2 wrong predictions (1 localisation, 1 background)",
        f"{names[1]}: 0 of 1 object found, 0 wrong predictions",
    ]
    kinds = [attributes.get("class") or "" for attributes in Page(run).of("rect")]
    assert [kind for kind in kinds if kind.startswith("box")] == ["box missed", "box wrong", "box wrong", "box missed"]
    report.main(Report(worst=1), run)
    assert len(Page(run).alts) == 1


def test_crowded_images_show_their_classes_only_when_looked_at(trained: Trained, copy_of: Copy) -> None:
    run = copy_of(trained.run)
    box = {"bbox": [50, 50, 40, 40]}
    wrong = [{"image_id": 1, "type": "background", **box}] * 9 + [{"image_id": 2, "type": "background", **box}]
    judged(run, "test", [], wrong)
    report.main(Report(), run)
    shown = [attributes for attributes in Page(run).of("div") if "--ratio" in (attributes.get("style") or "")]
    assert [attributes["class"] for attributes in shown] == ["image crowded", "image"]
    assert all(attributes["tabindex"] == "0" for attributes in shown)  # a click enlarges what can have the focus


def test_boxes_are_drawn_where_the_objects_are(trained: Trained, copy_of: Copy) -> None:
    """In shares of the image, so that its scale does not matter; 0.1 px of rounding in 100 or more."""
    run = copy_of(trained.run)
    image = read_json(run.ground_truth("test"))["images"][0]
    judged(run, "test", [{"id": 1, "image_id": 1, "type": "missed", "bbox": [50, 30, 40, 20]}], [])
    report.main(Report(), run)
    [width] = [float(attributes["width"] or 0) for attributes in Page(run).of("img")]
    [shown] = [attributes for attributes in Page(run).of("rect") if attributes.get("class") == "box missed"]
    for name, pixels in (("x", 50), ("y", 30), ("width", 40), ("height", 20)):
        assert float(shown[name] or 0) / width == pytest.approx(pixels / image["width"], abs=1e-3)


def test_names_are_text_not_html(trained: Trained, copy_of: Copy) -> None:
    """A class and a file named like markup, in every file of the run that names them."""
    run = copy_of(trained.run)
    old = read_json(run.receipt)["classes"][0]
    image = read_json(run.ground_truth("test"))["images"][0]["file_name"]
    evil = "<img src=x onerror=alert(1)> ü " + image
    (run.dataset / "images" / "test" / image).rename(run.dataset / "images" / "test" / evil)
    quoted = json.dumps(HOSTILE)
    for path in (run.metrics, run.receipt, *run.predictions_folder.glob("test_*.json")):
        text = path.read_text(encoding="utf-8").replace(json.dumps(old), quoted)
        path.write_text(text.replace(json.dumps(image), json.dumps(evil)), encoding="utf-8")
    data = yaml.safe_load((run.dataset / "data.yaml").read_text())
    names = [HOSTILE if name == old else name for name in data["names"].values()]
    write_data_yaml(run.dataset / "data.yaml", {split: data[split] for split in ("train", "val", "test")}, names)
    receipt = read_json(run.receipt)
    receipt["problems"] = [{"file": evil, "id": "1", "class": "<b>", "action": "dropped", "reason": "&"}]
    write_json(run.receipt, receipt)
    write_json(run.params("convert"), {"convert": {"source": HOSTILE}})
    report.main(Report(), run)
    page = Page(run)
    assert not page.of("script") and not [tag for tag in page.of("img") if "onerror" in tag]
    assert page.text.count(HOSTILE) >= 5  # per class, confusion twice, thresholds, splits, legend
    assert evil in page.text


def test_the_page_shows_drops_leaks_and_moves_from_the_receipt(trained: Trained, copy_of: Copy, source: Path) -> None:
    run = copy_of(trained.run)
    receipt = read_json(run.receipt)
    receipt["images"] |= {"dropped": {"a.png": "black"}, "in_no_split": {"b.png": "unlisted"}, "left_out": {}}
    receipt["leaks"] = {"exact": [], "near": [["train/a.png", "val/b.png"]], "group": [], "moved": {}}
    receipt["splits_by"] = "fixes.yaml"
    receipt["background_by_setting"] = ["a.png"]
    receipt["boxes"]["read"] = 1
    write_json(run.receipt, receipt)
    report.main(Report(), run)
    text = Page(run).text
    assert "so the metrics may be too high: 1 group of near-duplicates." in text and "train/a.png, val/b.png" in text
    assert "ignored. 1 image without a label counts as background only by convert.unlabelled." in text
    assert "1 dropped, 1 in no split" in text and "splits by fixes.yaml" in text
    assert "Of 1 box read" in text and "Of 61 boxes read" in Page(trained.run).text
    with Image.open(source / "images" / "train_0000.jpg") as image:
        plant(source, "val", "half.jpg", image.resize((160, 160)), 0)
    moving = Run(source.parent / "runs" / "moving")
    convert.main(Convert(source=source, leaks="move"), moving, 0)
    receipt["leaks"] = read_json(moving.receipt)["leaks"]
    write_json(run.receipt, receipt)
    report.main(Report(), run)
    assert "near-duplicates included; no groups are set (convert.group_by). 1 image was moved" in Page(run).text
    params = json.loads(run.params("convert").read_text())
    params["convert"]["group_by"] = "."
    write_json(run.params("convert"), params)
    report.main(Report(), run)
    assert "near-duplicates included, and no group of convert.group_by either. 1 image" in Page(run).text
    params["convert"]["near_duplicates"] = False
    write_json(run.params("convert"), params)
    report.main(Report(), run)
    said = "No image is in two splits, and no group of convert.group_by either; near-duplicates were not searched"
    assert said in Page(run).text


def test_twenty_four_large_images_stay_below_10_mb(trained: Trained, copy_of: Copy) -> None:
    """Noise, which JPEG compresses worst."""
    run = copy_of(trained.run)
    truth = read_json(run.ground_truth("test"))
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    for path in (run.dataset / "images" / "test").iterdir():
        path.unlink()
    truth["images"] = [{"id": i, "file_name": f"{i}.jpg", "width": 2000, "height": 1500} for i in range(1, 31)]
    for image in truth["images"]:
        (run.dataset / "images" / "test" / image["file_name"]).write_bytes(data)
    write_json(run.ground_truth("test"), truth)
    write_json(run.single_label("test"), [])
    judged(run, "test", [{"id": i, "image_id": i, "type": "missed", "bbox": [9, 9, 40, 40]} for i in range(1, 31)], [])
    report.main(Report(), run)
    assert len(Page(run).alts) == 24
    assert (run.report / "index.html").stat().st_size < 10e6


def test_two_runs_are_shown_side_by_side(trained: Trained, copy_of: Copy) -> None:
    run, other = copy_of(trained.run), Run(trained.run.root)
    settings = read_json(run.params("train"))
    settings["train"]["batch"] = 77
    write_json(run.params("train"), settings)
    with pytest.raises(
        DataError, match=r"comparison\.json: does not exist; `make report CONFIG=configs/tiny.yaml AGAINST="
    ):
        report.main(Report(), run, other.root)
    compare.main(run, other)
    comparison = read_json(run.comparison)
    # The runs are equal, so distinguishable figures are set by hand.
    comparison["splits"]["test"]["figures"]["map50_95"] = {
        "run": 0.61, "against": 0.58, "difference": 0.03, "interval": [0.011, 0.052], "verdict": "better",
    }  # fmt: skip
    write_json(run.comparison, comparison)
    report.main(Report(), run, other.root)
    text = " ".join(Page(run).text.split())
    assert re.search(r"mAP50-95\s*better\s*\+0\.030\s*\+0\.011 to \+0\.052\s*0\.610\s*0\.580", text)
    assert re.search(r"train\.batch\s*77\s*null", text) and "inside noise" in text
    with pytest.raises(DataError, match=r"comparison\.json: compares with .*, not with runs/third; `make report"):
        report.main(Report(), run, Path("runs/third"))
    # Shown only on request: it may be of an old comparison.
    report.main(Report(), run)
    assert "Against" not in Page(run).text


@pytest.mark.parametrize("missing", ["metrics", "train_record", "receipt", "errors", "single_label", "ground_truth"])
def test_an_unfinished_run_is_reported(trained: Trained, copy_of: Copy, missing: str) -> None:
    run = copy_of(trained.run)
    found = getattr(run, missing)
    path = found if isinstance(found, Path) else found("test")
    path.unlink()
    with pytest.raises(DataError) as raised:
        report.main(Report(), run)
    assert re.fullmatch(rf"{re.escape(str(path))}: does not exist; `make.*` .*writes it", str(raised.value))


def test_figures_of_another_model_or_dataset_are_refused(trained: Trained, copy_of: Copy) -> None:
    """Only a stage that was run without make leaves them."""
    run = copy_of(trained.run)
    again = r"; `make validate CONFIG=.*` measures again"
    model, names = run.model.read_bytes(), (run.dataset / "data.yaml").read_text()
    run.model.write_bytes(model + b" ")
    with pytest.raises(DataError, match=rf"metrics\.json: measured another model than {run.model}{again}"):
        report.main(Report(), run)
    run.model.write_bytes(model)
    others = rf"metrics\.json: measured other images or classes than those in {run.dataset}{again}"
    (run.dataset / "data.yaml").write_text(names.replace("mousebite", "renamed"))
    with pytest.raises(DataError, match=others):
        report.main(Report(), run)
    (run.dataset / "data.yaml").write_text(names)
    image = min((run.dataset / "images/test").iterdir())
    image.rename(image.with_name(f"another{image.suffix}"))
    with pytest.raises(DataError, match=others):
        report.main(Report(), run)


def test_an_export_of_an_earlier_model_is_left_out(trained: Trained, copy_of: Copy) -> None:
    run = copy_of(trained.run)
    run.model.write_bytes(run.model.read_bytes() + b" ")
    write_json(run.metrics, {**read_json(run.metrics), "model_sha256": sha256(run.model)})
    assert "manifest.json is of an earlier model, so it is left out" in report.main(Report(), run)
    assert "Exports" not in Page(run).text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 4711}, r"test_single_label\.json: prediction 1 is of image 4711, which is not in the split"),
        ({"score": float("nan")}, r"test_single_label\.json: prediction 1 has a score or box that is not a number"),
        ({"category_id": 99}, r"test_single_label\.json: prediction 1 is of class 99, which is not in the dataset"),
    ],
)
def test_impossible_predictions_are_refused(trained: Trained, copy_of: Copy, change: dict[str, Any], said: str) -> None:
    run = copy_of(trained.run)
    predictions = read_json(run.single_label("test"))
    predictions[0] |= change
    run.single_label("test").write_text(json.dumps(predictions))
    with pytest.raises(DataError, match=said) as error:
        report.main(Report(), run)
    assert "\n" not in str(error.value)


def test_errors_of_other_images_are_refused(trained: Trained, copy_of: Copy) -> None:
    run = copy_of(trained.run)
    errors = read_json(run.errors("test"))
    errors["objects"][0]["image_id"] = 4711
    write_json(run.errors("test"), errors)
    with pytest.raises(
        DataError, match=r"test_errors\.json: object 1 is of image 4711, which is not in the split; delete"
    ):
        report.main(Report(), run)


@pytest.mark.parametrize(
    ("path", "edit", "said"),
    [
        ("errors", lambda data: [], r"not as `validate` writes it \(should be an object\)"),
        ("errors", lambda data: {**data, "thresholds": {}}, r"lacks a threshold for 'open'"),
        ("errors", lambda data: data["objects"][0].pop("type"), r"not as .* \(objects\.0\.type: field required\)"),
        ("errors", lambda data: data["objects"][0].update(annotation_id=99), r"object 1 refers to annotation_id 99, which is not in its image"),
        ("errors", lambda data: data["predictions"].append({**BOX, "category_id": 7}), r"prediction \d is of class 7, which does not exist"),
        ("errors", lambda data: data["predictions"].append({**BOX, "score": "high"}), r"not as .*\(predictions\.\d\.score: input should be a valid number\)"),
        ("ground_truth", lambda data: data["images"][0].pop("file_name"), r"not a COCO dataset \(images\.0\.file_name: field required\)"),
        ("ground_truth", lambda data: data["annotations"][0].update(image_id=99), r"annotation 1 refers to an image or class that does not exist"),
    ],
)  # fmt: skip
def test_files_validate_cannot_have_written_are_refused(
    trained: Trained, copy_of: Copy, path: str, edit: Callable[[Any], Any], said: str
) -> None:
    run = copy_of(trained.run)
    file = getattr(run, path)("test")
    data = read_json(file)
    changed = edit(data)
    write_json(file, changed if isinstance(changed, (list, dict)) and "type" not in changed else data)
    with pytest.raises(DataError, match=rf"{file.name}: {said}; delete metrics\.json and run `make validate` again$"):
        report.main(Report(), run)


def test_a_bug_of_ours_keeps_its_traceback(trained: Trained, copy_of: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a damaged file, and `make validate` would not fix it."""
    monkeypatch.setattr("pipeline.pixels.fit", lambda *given, **named: dict[str, int]()["bug"])
    with pytest.raises(KeyError, match="bug"):
        report.main(Report(), copy_of(trained.run))


def test_figures_of_an_older_version_are_refused(trained: Trained, copy_of: Copy) -> None:
    run = copy_of(trained.run)
    metrics = read_json(run.metrics)
    del metrics["splits"]["test"]["error_costs"]
    write_json(run.metrics, metrics)
    with pytest.raises(
        DataError, match=r"metrics\.json: written by an older version; delete it and run `make validate` again"
    ):
        report.main(Report(), run)


def test_the_page_shows_what_was_exported(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    shown = Page(trained.run).text
    [entry] = read_json(trained.run.manifest)["artefacts"]
    assert "Exports" in shown and "tiny.onnx" in shown and str(entry["parity"]["boxes"]) in shown
    run = copy_of(trained.run)
    run.manifest.unlink()  # the export has not run or was refused
    report.main(Report(), run)
    assert "Exports" not in Page(run).text


def test_the_page_shows_what_labels_brought(trained: Trained, copy_of: Copy) -> None:
    run = copy_of(trained.run)
    assert "What labelling gained" not in Page(run).text
    pool: OnPool = {
        "images": 4, "right": 8, "wrong": 2, "missed": 2, "f1": 0.8, "interval": None, "untouched": 0.625
    }  # fmt: skip
    first: Round = {
        "model": "a", "images": 10, "boxes": 1234, "minutes": 0, "map50_95": None, "interval": None, "on_pool": None,
        "batch": 20, "gain": None,
    }  # fmt: skip
    second: Round = {**first, "images": 30, "minutes": 12.4, "map50_95": 0.321, "interval": [0.298, 0.345]}
    third: Round = {**second, "images": 50, "map50_95": 0.375, "on_pool": pool, "batch": 1, "gain": 0.0191}
    write_json(run.label_rounds, {"rounds": [first, second]})
    report.main(Report(), run)
    page = Page(run)
    assert "1,234" in page.text and "0.298 to 0.345" in page.text and "20 images" in page.text
    assert "Accuracy over labels" not in page.text  # one point is not a curve
    write_json(run.label_rounds, {"rounds": [first, second, third]})
    report.main(Report(), run)
    page = Page(run)
    assert "1 image, may add +0.019" in page.text and "0.80 on 4 images" in page.text and "62 %" in page.text
    third["on_pool"] = {**pool, "images": 5, "interval": [0.714, 0.857]}
    write_json(run.label_rounds, {"rounds": [first, second, third]})
    report.main(Report(), run)
    page = Page(run)
    assert "0.80 (0.71 to 0.86) on 5 images" in page.text
    assert "Accuracy over labels" in page.text and str(plots.labelling([first, second, third])) in page.html


def test_the_accuracy_latency_plot_uses_the_colours_of_the_page(trained: Trained, copy_of: Copy) -> None:
    """From the manifest's figures; an artefact without a measured precision is not plotted."""
    run = copy_of(trained.run)
    manifest = read_json(run.manifest)
    row = {
        "file": "<b>.onnx", "format": "onnx", "precision": "fp32", "bytes": 9, "threads": 1, "rounds": 5, "runs": 20,
        "import_ms": 9, "load_ms": 9, "latency_ms": {"p50": 7, "p95": 8}, "times_onnx": None, "boxes": 3, "images_per_s": 9,
        "images_per_s_at_once": 9, "ultralytics_boxes": None, "ultralytics_images_per_s": None, "times_ultralytics": None,
        "map50_95": 0.5,
    }  # fmt: skip
    manifest["benchmark"] = {"machine": "a board", "images": 3, "rows": [row, {**row, "threads": 2}]}
    write_json(run.manifest, manifest)
    report.main(Report(), run)
    page, before = Page(run), Page(trained.run)
    plots_of = [sum("role" in one and one["role"] == "img" for one in shown.of("div")) for shown in (page, before)]
    assert plots_of == [6, 5] and "2 threads" in page.text and "<b>.onnx" in page.text and "a board" in page.text
    drawn = str(plots.latency(manifest["benchmark"]["rows"]))
    assert "currentColor" in drawn and "#000000" not in drawn and drawn in page.html
    assert "<b>.onnx" not in page.html  # only as text
    assert plots.latency([{**row, "map50_95": None}]) is None and plots.latency([]) is None


# The places of an object of class a, one of class b, and nothing.
A, B = (100.0, 100.0, 100.0, 100.0), (500.0, 500.0, 100.0, 100.0)
FAR = (800.0, 100.0, 50.0, 50.0)


@pytest.mark.parametrize(
    ("truth", "predictions", "kind", "why"),
    [
        (scene([("a", A), ("b", B)]), [seen(1, "a", A, 0.9), seen(1, "b", B, 0.1)], "missed", "found at lower scores, or no prediction of their class is right"),
        (scene([("a", A), ("b", B)]), [seen(1, "a", A, 0.9), seen(1, "b", FAR, 0.9)], "missed", "found at lower scores, or no prediction of their class is right"),
        (scene([("a", A)]), [seen(1, "a", A, 0.9), seen(1, "a", FAR, 0.5)], "background", "no right prediction of their class scores lower"),
        (scene([("a", A)]), [seen(1, "a", A, 0.9), seen(1, "b", FAR, 0.95)], "background", "no right prediction of their class scores lower"),
        (scene([("a", A)]), [seen(1, "a", A, 0.9), seen(1, "a", A, 0.5)], "duplicate", "no right prediction of their class scores lower"),
        (scene([("a", A)]), [seen(1, "a", FAR, 0.9)], "background", "no prediction is right, so AP is 0 in any case"),
        (scene([("a", A)]), [seen(1, "a", FAR, 0.9)], "missed", "no prediction is right, so AP is 0 in any case"),
        (scene([("a", A)]), [], "missed", "without them, no object would be left to find"),
        (scene([]), [seen(1, "a", FAR, 0.9)], "background", "no objects, so AP is undefined"),
        (scene([("a", A)]), [seen(1, "a", FAR, 0.95), seen(1, "a", A, 0.9)], "background", ""),
    ],
)  # fmt: skip
def test_errors_without_cost_state_why(truth: Truth, predictions: Predictions, kind: str, why: str) -> None:
    """Costs from validate's own code are 0 or undefined wherever a reason is given."""
    from pipeline.metrics.coco import evaluate

    shown = error_types.kept(predictions, [0.25, 0.25])
    counts = error_types.record(truth, shown, {"a": 0.25, "b": 0.25})["counts"]
    costs = error_types.costs(truth, predictions)
    figures = {**evaluate(truth, predictions), "error_costs": costs, "error_counts": counts}
    rows = {row.name: row for row in words.kinds(figures)}
    assert rows[kind].count > 0 and (rows[kind].cost or 0) == (0 if why else costs[kind]) and rows[kind].why == why
    assert not any(row.why for row in rows.values() if not row.count)


def test_unmeasured_training_figures_are_not_0(trained: Trained, copy_of: Copy) -> None:
    """Sixteen images teach nothing, so a measured mAP is 0. Ultralytics also writes 0 where it was not measured."""
    run = copy_of(trained.run)
    path = run.train / "phase1" / "results.csv"
    header, row = path.read_text().splitlines()
    blank = [
        "0" if name.strip().startswith(("metrics/", "val/")) else value
        for name, value in zip(header.split(","), row.split(","), strict=True)
    ]
    path.write_text("\n".join([header, ",".join(blank), row]) + "\n")
    (without, measured, _), _ = history.read(run)
    assert without["val/cls_loss"] is without["metrics/mAP50(B)"] is None and without["train/cls_loss"]
    assert measured["val/cls_loss"] and measured["metrics/mAP50(B)"] is not None
    assert [number for number, _ in history.points([without, measured], "metrics/mAP50(B)")] == [2]


def test_weights_that_were_replaced_are_named_first(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    assert "instead of" not in Page(run).text
    metrics = read_json(run.metrics)
    metrics["weights"]["instead_of"] = "yolo26n.pt"
    write_json(run.metrics, metrics)
    report.main(trained.config.report, run)
    assert (
        f"Trained from {metrics['weights']['name']} instead of yolo26n.pt, which was not available." in Page(run).text
    )
