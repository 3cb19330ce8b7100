"""One self-contained page for people: figures, what they come from, and the images that went worst."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import jinja2
from tqdm import tqdm

from pipeline import files, pixels
from pipeline.boxes import YoloDataset
from pipeline.config import Report
from pipeline.errors import DataError
from pipeline.run import SPLITS, Run

TEMPLATE = Path(__file__).with_name("report.html.jinja")
FOUND, MISSED, INVENTED = (90, 200, 90), (0, 140, 255), (60, 60, 235)  # BGR
MATCH_IOU = 0.5
SHOWN_SCORE = 0.25
PICTURE_PIXELS = 480


def main(config: Report, run: Run) -> str:
    """Write `run.report/index.html`. Raises DataError where train or validate have not run."""
    for needed, command in ((run.metrics, "validate"), (run.train_record, "train"), (run.receipt, "convert")):
        if not needed.is_file():
            raise DataError(f"{needed}: not there; `make {command}` writes it")
    metrics, trained, receipt = (files.read_json(path) for path in (run.metrics, run.train_record, run.receipt))
    # JSON keys are sorted; people expect the splits in the order of their use.
    for record in (metrics, receipt):
        record["splits"] = {name: record["splits"][name] for name in SPLITS if name in record["splits"]}
    split = "test" if "test" in metrics["splits"] else "val"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.3f}"
    html = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=run.name,
        metrics=metrics,
        split=split,
        trained=trained,
        receipt=receipt,
        curves=_curves(run),
        worst=_worst_images(run, split, config.worst),
        exported=files.read_json(run.manifest) if run.manifest.is_file() else None,
        benchmark=_benchmark(run),
        shown_score=SHOWN_SCORE,
    )
    with files.new_folder(run.report) as folder:
        (folder / "index.html").write_text(html, encoding="utf-8")
    return f"{split} split, {len(html) / 1e6:.1f} MB -> {run.report / 'index.html'}"


def _benchmark(run: Run) -> str | None:
    """Accuracy against latency, as `make bench-export` left it."""
    plot = run.export / "benchmark.svg"
    return plot.read_text(encoding="utf-8") if plot.is_file() else None


def _curves(run: Run) -> str | None:
    """Losses and validation mAP over all epochs, phases marked, as SVG text."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, borders = [], []
    for path in sorted(run.train.glob("phase*/results.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
        borders.append(len(rows) + 0.5)
    if not rows:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    epochs = range(1, len(rows) + 1)
    for name in ("box", "cls"):
        left.plot(
            epochs, [float(row[f"train/{name}_loss"]) for row in rows], marker="o", markersize=3, label=f"{name} loss"
        )
    left.set(title="training loss", xlabel="epoch")
    left.legend()
    for name, label in (("mAP50(B)", "mAP50"), ("mAP50-95(B)", "mAP50-95")):
        # Zero where a phase was not validated at that epoch.
        points = [
            (epoch, float(row[f"metrics/{name}"]))
            for epoch, row in zip(epochs, rows, strict=True)
            if float(row[f"metrics/{name}"])
        ]
        right.plot(*zip(*points, strict=True) if points else ([], []), marker="o", markersize=3, label=label)
    right.set(title="validation (Ultralytics' figures)", xlabel="epoch", ylim=(0, 1))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        for border in borders[:-1]:
            axes.axvline(border, color="grey", linestyle="--", linewidth=1)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _worst_images(run: Run, split: str, number: int) -> list[dict[str, Any]]:
    """The images with most missed and invented boxes, drawn, as data URIs."""
    source = YoloDataset.read(run.dataset / "data.yaml")
    truth, predictions = files.read_json(run.ground_truth(split)), files.read_json(run.predictions(split))
    boxes: dict[int, tuple[list[Any], list[Any]]] = {image["id"]: ([], []) for image in truth["images"]}
    for record in truth["annotations"]:
        boxes[record["image_id"]][0].append(record)
    for record in predictions:
        if record["score"] >= SHOWN_SCORE and record["image_id"] in boxes:
            boxes[record["image_id"]][1].append(record)
    judged = []
    for image in truth["images"]:
        labelled, found = boxes[image["id"]]
        hits, invented = _match(labelled, found)
        missed = [record for record in labelled if record["id"] not in hits]
        judged.append((len(missed) + len(invented), image, labelled, missed, invented))
    judged.sort(key=lambda entry: (-entry[0], entry[1]["file_name"]))
    shown = [entry for entry in judged[:number] if entry[0]]
    pictures = []
    for _, image, labelled, missed, invented in tqdm(shown, "report", unit="image", leave=False, delay=1, disable=None):
        picture, scale = pixels.fit(pixels.read(source.images[split] / image["file_name"]), PICTURE_PIXELS, enlarge=1.5)
        lost = {record["id"] for record in missed}
        for record in [*labelled, *invented]:
            kind = INVENTED if "score" in record else MISSED if record["id"] in lost else FOUND
            text = "" if kind == FOUND else source.names[record["category_id"]]
            x, y, width, height = (side * scale for side in record["bbox"])
            pixels.draw_box(picture, (x, y, x + width, y + height), kind, text)
        data = pixels.jpeg(picture, quality=80)
        pictures.append(
            {
                "file": image["file_name"],
                "uri": "data:image/jpeg;base64," + base64.b64encode(data).decode(),
                "labelled": len(labelled),
                "missed": len(missed),
                "invented": len(invented),
            }
        )
    return pictures


def _match(labelled: list[dict[str, Any]], found: list[dict[str, Any]]) -> tuple[set[int], list[dict[str, Any]]]:
    """COCO's matching at one IoU: best score first, each takes the best free object of its class."""
    hits: set[int] = set()
    invented = []
    for record in sorted(found, key=lambda record: -record["score"]):
        free = [
            (_iou(record["bbox"], other["bbox"]), other["id"])
            for other in labelled
            if other["category_id"] == record["category_id"] and other["id"] not in hits
        ]
        best = max(free, default=(0.0, -1))
        if best[0] >= MATCH_IOU:
            hits.add(best[1])
        else:
            invented.append(record)
    return hits, invented


def _iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap) if overlap else 0.0
