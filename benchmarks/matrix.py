"""Check model families, formats and settings: validation, the export's gate and the bundle must find the same objects.

python benchmarks/matrix.py benchmarks/matrix.jsonl > benchmarks/matrix.md     (20 minutes; resumes where it stopped)

The models come from Ultralytics' YAMLs, with random weights and BatchNorm statistics measured on drawn tiles, so that
their outputs depend on the image. The images are as a device receives them: plain tiles, one with 16 bits, one turned
by EXIF, a tiny and a huge one. The bundle runs in a separate process on the source files, and its output is compared
with what `validate` wrote.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import cv2
import numpy as np
from conftest import make_responsive
from stand_ins import write_training
from test_golden import add, deep, turned

from pipeline import convert, export, files, logs, pixels, validate
from pipeline.boxes import YoloDataset
from pipeline.config.data import Convert
from pipeline.config.export import Export
from pipeline.config.judging import Validate
from pipeline.device.runner import Detections
from pipeline.errors import PipelineError
from pipeline.export import bundle
from pipeline.export.parity import compare
from pipeline.extras.sample import dataset as sample
from pipeline.run import Run
from pipeline.upstream import environment

FAMILIES = ("yolo26n", "yolo11n", "yolov8n", "yolov5n", "yolov10n", "yolo12n")
FORMATS = ("onnx", "torchscript", "openvino", "ncnn")
ONE_FORMAT = FORMATS[:1]  # for other settings: the same code applies them to the output of every format
SETTINGS: dict[str, dict[str, Any]] = {"plain": {}, "iou 0.3": {"iou": 0.3}, "max_det 1000": {"max_det": 1000}}
KINDS = ("plain", "deep", "turned", "tiny", "huge")
IMGSZ = 192
ABOUT = """
*Gate*: the number of boxes and the largest differences in the export's own comparison. The columns of each kind of
image compare the boxes of the bundle, in its own process on the original files, with those that `validate` wrote:
the number of boxes, how many are lost, invented or of another class, and the largest differences. The bundle rounds
to 0.01 px and 0.00001.
"""


def sized(side: int) -> Any:
    return lambda path, picture: cv2.imwrite(str(path), cv2.resize(picture, (side, round(0.8 * side))))


def source(folder: Path) -> None:
    sample.main(seed=1, folder=folder, splits={"train": 4, "val": 2})
    for name, write in (
        ("deep.png", deep),
        ("turned.jpg", turned),
        ("tiny.png", sized(24)),
        ("huge.png", sized(2600)),
    ):
        add(folder, f"val_{name}", write, 0)
        picture: Any = cv2.imread(str(folder / "images" / f"val_{name}"))
        data = json.loads((folder / "annotations" / "val.json").read_text())
        data["images"][-1] |= {"height": picture.shape[0], "width": picture.shape[1]}
        (folder / "annotations" / "val.json").write_text(json.dumps(data))


def model(family: str, images: list[Path], path: Path) -> None:
    """Write random weights whose outputs depend on the image, like the tests' own."""
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    made = DetectionModel(f"{family}.yaml", nc=len(sample.CLASSES), verbose=False)
    tiles = torch.from_numpy(np.stack([pixels.read(image) for image in images])).permute(0, 3, 1, 2) / 255
    noise = [torch.nn.functional.interpolate(torch.rand(4, 3, side, side), IMGSZ) for side in (4, 16, 64)]
    make_responsive(made, torch.cat([torch.nn.functional.interpolate(tiles, IMGSZ), *noise]))
    made.names = dict(enumerate(sample.CLASSES))
    yolo = YOLO(f"{family}.yaml", task="detect")
    yolo.model, yolo.ckpt = made.eval(), {"train_args": {"imgsz": IMGSZ, "task": "detect"}}
    yolo.save(path)


def found(records: list[dict[str, Any]]) -> Detections:
    corners = np.array([one["bbox"] for one in records], float).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Detections(
        corners, np.array([one["score"] for one in records]), np.array([one["class"] for one in records], int)
    )


def cells(run: Run, folder: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """Validate, export to every format, and run the bundles. Return a cell for each format."""
    validate.main(Validate.model_validate(setting), run, "cpu")
    predicted = files.read_json(run.single_label("val"))
    score = float(np.median([one["score"] for one in predicted]))
    metrics = files.read_json(run.metrics)
    point = metrics["operating_point"]
    point["thresholds"] = dict.fromkeys(point["thresholds"], 0.9 * score)  # a partner's score may be lower
    point["per_class"] = {name: {**one, "why": "set by hand"} for name, one in point["per_class"].items()}
    files.write_json(run.metrics, metrics)
    names = list(YoloDataset.read(run.dataset / "data.yaml").names)
    paths = YoloDataset.read(run.dataset / "data.yaml").files("val")
    sources = files.read_json(run.receipt)["sources"]
    received = [str(folder / sources[f"val/{path.name}"]) for path in paths]
    theirs = [
        found([{**one, "class": one["category_id"]} for one in predicted if one["image_id"] == number])
        for number in range(1, len(paths) + 1)
    ]
    targets = [{"format": name} for name in (ONE_FORMAT if setting else FORMATS)]
    try:
        export.main(Export.model_validate({"conf": score, "targets": targets}), run, 0, "cpu")
        manifest = files.read_json(run.manifest)
    except PipelineError as error:
        print(error, file=sys.stderr)
        manifest = files.read_json(run.export_refused)
    made = []
    for entry in manifest["artefacts"]:
        gate = entry["parity"]
        cell = {"format": entry["format"], "verdict": entry["verdict"], "why": entry["breaches"]}
        cell |= {"boxes": gate["boxes"], "gate_px": gate["max_box_px"], "gate_score": gate["max_score"], "kinds": {}}
        if entry["verdict"] == "passed":
            unpacked = bundle.unpack(run.export / entry["bundle"], run.root / "device" / entry["format"])
            command = [sys.executable, str(unpacked / "run.py"), "--threads", "1", *map(str, received)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            lines = [json.loads(line)["objects"] for line in out.splitlines()]
            ours = [found([{**one, "class": names.index(one["class"])} for one in line]) for line in lines]
            for path, validated, seen in zip(paths, theirs, ours, strict=True):
                kind = next((kind for kind in KINDS if kind in path.name), "plain")
                one = compare([validated], [seen], score, [path.name])
                before = cell["kinds"].get(kind, [0, 0, 0.0, 0.0])
                wrong = one.lost + one.extra + one.flipped
                now = [
                    before[0] + one.boxes,
                    before[1] + wrong,
                    max(before[2], one.max_box_px),
                    max(before[3], one.max_score),
                ]
                cell["kinds"][kind] = now
        made.append(cell)
    return made


def table(rows: list[dict[str, Any]]) -> None:
    print("# Families, formats, settings: validation, gate and bundle\n")
    print("Written by `python benchmarks/matrix.py benchmarks/matrix.jsonl`.")
    print(f"Random weights whose output depends on the image, {IMGSZ} px, fp32.\n{ABOUT}")
    print(f"| model | setting | format | gate | {' | '.join(KINDS)} |\n|{'---|' * (4 + len(KINDS))}")
    for row in rows:
        gate = f"{row['verdict']}: {'; '.join(row['why'])}"
        if row["verdict"] == "passed":
            gate = f"{row['boxes']}, {row['gate_px']:.0e} px, {row['gate_score']:.0e}"
        kinds = [_cell(row["kinds"].get(kind)) for kind in KINDS]
        print(f"| {row['family']} | {row['setting']} | {row['format']} | {gate} | {' | '.join(kinds)} |")


def _cell(found: list[float] | None) -> str:
    return "–" if found is None else f"{found[0]}, {found[1]}, {found[2]:.2g} px, {found[3]:.0e}"


def main() -> None:
    store = Path(sys.argv[1])
    rows = [json.loads(line) for line in store.read_text().splitlines()] if store.is_file() else []
    environment.prepare()
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw"
        with logs.caught(Path(name) / "logs" / "matrix.log"):
            source(raw)
        for setting, values in SETTINGS.items():
            for family in FAMILIES:
                if any((row["family"], row["setting"]) == (family, setting) for row in rows):
                    continue
                run = Run(Path(name) / "runs" / "matrix")
                shutil.rmtree(run.root, ignore_errors=True)
                run.root.mkdir(parents=True)
                with logs.caught(Path(name) / "logs" / "matrix.log"):
                    convert.main(Convert(source=raw, near_duplicates=False, unlabelled="background"), run, 0)
                    write_training(run, {"name": family, "sha256": None, "instead_of": None})
                    model(family, sorted((raw / "images").glob("train*")), run.model)
                    made = cells(run, raw, values)
                with store.open("a") as file:
                    for cell in made:
                        rows.append({"family": family, "setting": setting, **cell})
                        file.write(json.dumps(rows[-1]) + "\n")
    table(rows)


if __name__ == "__main__":
    main()
