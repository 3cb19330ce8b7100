"""The way back: what a person tagged in the App, as fixes for `data/fixes/NAME.yaml`.

Tags on images: `drop`, `relabel`. Tags on labels: `wrong` on a label of the ground truth, which is then
removed; `missing` on a prediction, which then becomes a label. A wrong class is both.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from pipeline import fixes
from pipeline.errors import DataError
from pipeline.fixes import Fixes
from pipeline.inspect.dataset import SOURCE, TRUTH
from pipeline.run import Run

ON_IMAGES = ("relabel", "drop")  # of an image with both, the last one counts
ON_LABELS, ON_PREDICTIONS = "wrong", "missing"
SAVED = "saved_fixes"  # where the data set keeps what was written already


def save(run: Run) -> str:
    """Add what is tagged and not yet written to the file of fixes. Raises DataError where there is no data set."""
    import fiftyone as fo

    if not fo.dataset_exists(run.name):
        raise DataError(f"FiftyOne has no data set {run.name!r}; `make inspect` makes it, then tag what is to change")
    dataset = fo.load_dataset(run.name)
    if (shown := dataset.info.get("run")) != str(run.root.resolve()):
        raise DataError(f"FiftyOne's data set {run.name!r} shows {shown or 'something else'}, not {run.root}")
    path = fixes.file_of(run)
    earlier = fixes.load(path)
    tagged, astray = collect(dataset)
    new = tagged if not path.is_file() else _without(tagged, _saved(dataset))
    ignored = f"; {astray}" if astray else ""
    if not len(new):
        return f"nothing new to save: {len(tagged)} corrections are tagged, {len(earlier)} in {path}{ignored}"
    fixes.save(path, fixes.merge(fixes.in_full(earlier, _paths(dataset)), new))
    dataset.info[SAVED] = tagged.model_dump(mode="json", by_alias=True)
    dataset.save()
    return f"{len(new)} corrections -> {path}; review it, and the next `make` converts with them{ignored}"


def unsaved(dataset: Any) -> int:
    """How many corrections are tagged and not yet written."""
    return len(_without(collect(dataset)[0], _saved(dataset)))


def collect(dataset: Any) -> tuple[Fixes, str]:
    """All that is tagged, and a remark on tags that mean nothing where they are, empty where there are none."""
    images = {image: tag for tag in ON_IMAGES for image in _paths(dataset.match_tags(tag))}
    boxes: list[dict[str, Any]] = []
    astray: set[str] = set()
    for path in _label_fields(dataset):
        meant, action = (ON_LABELS, "remove") if path == TRUTH else (ON_PREDICTIONS, "add")
        astray |= {tag for tag in dataset.distinct(f"{path}.detections.tags") if tag in _WORDS - {meant}}
        view = dataset.select_labels(tags=meant, fields=path)
        for name, found in zip(_paths(view), view.select_fields(path), strict=True):
            width, height = found.metadata.width, found.metadata.height
            for thing in found[path].detections:
                x, y, w, h = thing.bounding_box
                bbox = [round(x * width, 3), round(y * height, 3), round(w * width, 3), round(h * height, 3)]
                boxes.append({"image": name, "action": action, "class": thing.label, "bbox": bbox})
    astray |= {tag for tag in dataset.distinct("tags") if tag in (ON_LABELS, ON_PREDICTIONS)}
    remark = ""
    if astray:
        remark = (
            f"ignored where they mean nothing: tags {', '.join(sorted(astray))} (`{ON_LABELS}` is for labels of "
            f"{TRUTH}, `{ON_PREDICTIONS}` for predictions, `drop` and `relabel` for images)"
        )
    return Fixes.model_validate({"images": images, "boxes": boxes}), remark


_WORDS = {*ON_IMAGES, ON_LABELS, ON_PREDICTIONS}


def _label_fields(dataset: Any) -> list[str]:
    import fiftyone as fo

    return list(dataset.get_field_schema(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections))


def _paths(view: Any) -> list[str]:
    """The path below the source of each image; its file name in a data set that an earlier version made."""
    if view.has_field(SOURCE):
        return list(view.values(SOURCE))
    return [PurePath(path).name for path in view.values("filepath")]


def _saved(dataset: Any) -> Fixes:
    return Fixes.model_validate(dataset.info.get(SAVED, {}))


def _without(tagged: Fixes, saved: Fixes) -> Fixes:
    return Fixes(
        images={name: word for name, word in tagged.images.items() if saved.images.get(name) != word},
        boxes=tuple(fix for fix in tagged.boxes if fix not in saved.boxes),
    )
