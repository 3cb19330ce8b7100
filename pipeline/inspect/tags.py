"""Turn tags and edits made in the App into fixes for `data/fixes/NAME.yaml`.

Images take the tags `drop` and `relabel`. A ground-truth label tagged `wrong` is removed; a prediction tagged `missing`
becomes a label. A wrong class needs both, or a new class in the "Annotate" tab, where labels can also be drawn, moved
and deleted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, TypedDict

from pipeline import app, fixes
from pipeline.errors import DataError, counted
from pipeline.fixes import Fixes
from pipeline.inspect.dataset import BEFORE, SOURCE, TRUTH
from pipeline.records import receipt
from pipeline.run import Run

ON_IMAGES = ("relabel", "drop")  # if an image has both, the last one wins
ON_LABELS, ON_PREDICTIONS = "wrong", "missing"
# As the file of fixes has it. A class cannot have a field `class`.
BoxFix = TypedDict("BoxFix", {"image": str, "action": str, "class": str, "bbox": list[float]})
# Keys in the dataset's info: the folder of its run, the fixes already saved, and earlier ones that these replaced.
RUN, SAVED, REPLACED = "run", "saved_fixes", "replaced_fixes"


def name_of(run: Run) -> str:
    return app.dataset_name(run.name)


def save(run: Run) -> str:
    """Add unsaved tags and edits to the file of fixes, and take back saved ones that were undone since.

    Raises DataError if there is no dataset of the run.
    """
    import fiftyone as fo

    if not fo.dataset_exists(name := name_of(run)):
        raise DataError(f"FiftyOne has no dataset {name!r}; run `make inspect` and tag what should change")
    dataset = fo.load_dataset(name)
    path = fixes.file_of(run)
    earlier = fixes.load(path)
    tagged, astray = collect(dataset)
    saved, replaced = (_noted(dataset, key) if path.is_file() else Fixes() for key in (SAVED, REPLACED))
    _refuse_another_run(dataset, run, tagged, saved)
    new, gone = _without(tagged, saved), _without(saved, tagged)
    if len(new) or len(gone):
        replaced = _write(path, fixes.in_full(earlier, _paths(dataset)), new, gone, replaced)
    for key, content in ((SAVED, tagged), (REPLACED, replaced)):
        dataset.info[key] = content.model_dump(mode="json", by_alias=True)
    dataset.save()
    ignored = f"; {astray}" if astray else ""
    done = [counted(len(new), "fix", "fixes")] if len(new) else []
    done += [f"{counted(len(gone), 'saved fix', 'saved fixes')} taken back"] if len(gone) else []
    if not done:
        return f"nothing new to save: {counted(len(tagged), 'fix', 'fixes')} tagged, {len(earlier)} in {path}{ignored}"
    apply = f"review them, then run `{run.make('all')}` to apply them"
    return f"{', '.join(done)} -> {path}; {apply}{ignored}"


def _write(path: Path, earlier: Fixes, new: Fixes, gone: Fixes, replaced: Fixes) -> Fixes:
    """Write the earlier fixes without those that are gone, and the new ones.

    `replaced` are fixes that earlier saves took out of the file, because tags undid them. They count again if these
    tags are gone. Return those that are out of the file now.
    """
    back = _undone_by(gone, replaced)
    kept = _without(earlier, gone)
    if len(back):
        kept = fixes.merge(back, kept)
    merged = fixes.merge(kept, new)
    fixes.save(path, merged)
    out = (_without(replaced, back), _without(kept, merged))
    return Fixes(images={**out[0].images, **out[1].images}, boxes=out[0].boxes + out[1].boxes)


def is_elsewhere(dataset: Any, run: Run) -> bool:
    """Return whether a dataset shows a run in another folder that still exists. That of a moved project is gone."""
    shown = dataset.info.get(RUN)
    return bool(shown) and Path(shown).exists() and Path(shown).resolve() != run.root.resolve()


def _refuse_another_run(dataset: Any, run: Run, tagged: Fixes, saved: Fixes) -> None:
    """Raise DataError if a dataset does not show this run, whose project may have been moved since."""
    shown = dataset.info.get(RUN)
    if shown == str(run.root.resolve()):
        return
    named = {*tagged.images, *saved.images, *(box.image for box in (*tagged.boxes, *saved.boxes))}
    if is_elsewhere(dataset, run):
        way_out = "save the fixes there"
    elif named and run.receipt.is_file() and named <= set(receipt.read(run)["sources"].values()):
        return
    else:
        way_out = f"run {run.make('inspect')} and tag what should change there"
    raise DataError(
        f"FiftyOne's dataset {name_of(run)!r} shows {shown or 'something else'}, not {run.root}; {way_out}, or rename "
        "this config"
    )


def unsaved(dataset: Any) -> int:
    """Return the number of fixes that are not saved yet, or that are saved and no longer wanted."""
    tagged, saved = collect(dataset)[0], _noted(dataset, SAVED)
    return len(_without(tagged, saved)) + len(_without(saved, tagged))


def collect(dataset: Any) -> tuple[Fixes, str]:
    """Return all tagged fixes, and a warning about misplaced tags; empty if there are none."""
    images = {image: tag for tag in ON_IMAGES for image in _paths(dataset.match_tags(tag))}
    boxes: list[BoxFix] = []
    astray: set[str] = set()
    for path in _label_fields(dataset):
        meant, action = (ON_LABELS, "remove") if path == TRUTH else (ON_PREDICTIONS, "add")
        astray |= {tag for tag in dataset.distinct(f"{path}.detections.tags") if tag in WORDS - {meant}}
        view = dataset.select_labels(tags=meant, fields=path)
        for name, sample in zip(_paths(view), view.select_fields(path), strict=True):
            width, height = sample.metadata.width, sample.metadata.height
            for detection in sample[path].detections:
                x, y, w, h = detection.bounding_box
                bbox = [round(x * width, 3), round(y * height, 3), round(w * width, 3), round(h * height, 3)]
                boxes.append({"image": name, "action": action, "class": detection.label, "bbox": bbox})
    edited, unnamed = edits(dataset)
    boxes += [box for box in edited if box not in boxes]  # a label may be both deleted and tagged
    astray |= {tag for tag in dataset.distinct("tags") if tag in (ON_LABELS, ON_PREDICTIONS)}
    remark = ""
    if astray:
        remark = (
            f"ignored misplaced tags: {', '.join(sorted(astray))} (`{ON_LABELS}` is for labels of "
            f"{TRUTH}, `{ON_PREDICTIONS}` for predictions, `drop` and `relabel` for images)"
        )
    if unnamed:
        remark += f"{'; ' if remark else ''}left out boxes without a class in {', '.join(unnamed)}; choose one"
    return Fixes.model_validate({"images": images, "boxes": boxes}), remark


def edits(dataset: Any) -> tuple[list[BoxFix], list[str]]:
    """Return the fixes for labels that were drawn, changed or deleted, and the images with boxes without a class.

    Reads the documents themselves, because FiftyOne's own objects take a millisecond per handful of boxes.
    """
    fixes_: list[BoxFix] = []
    unnamed: list[str] = []
    if not dataset.has_field(BEFORE):
        return [], []
    wanted = {BEFORE: 1, SOURCE: 1, "metadata": 1, f"{TRUTH}.detections": 1}
    for document in dataset._sample_collection.find({BEFORE: {"$exists": True}}, wanted):
        size = document["metadata"]["width"], document["metadata"]["height"]
        before = {identity: (label, _pixels(sides, size)) for identity, label, *sides in json.loads(document[BEFORE])}
        now = {
            str(label["_id"]): (label.get("label"), _pixels(label["bounding_box"], size))
            for label in (document.get(TRUTH) or {}).get("detections") or ()
        }
        if any(not label for label, _ in now.values()):
            unnamed.append(document[SOURCE])
            # A box without a class counts as unchanged, or is left out if it is new.
            now = {key: known if known[0] else before[key] for key, known in now.items() if known[0] or key in before}
        now = {identity: known for identity, known in now.items() if known[1][2] > 0 and known[1][3] > 0}
        changed = [identity for identity in now if before.get(identity) != now[identity]]
        for action, known, identities in (
            ("remove", before, [identity for identity in before if identity not in now or identity in changed]),
            ("add", now, changed),
        ):
            for identity in identities:
                label, bbox = known[identity]
                fixes_.append({"image": document[SOURCE], "action": action, "class": label, "bbox": bbox})
    return fixes_, sorted(unnamed)


def _pixels(sides: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Return FiftyOne's box in pixels, with its corners sorted and cut at the border of the image."""
    x, y, w, h = sides
    xs = sorted(min(max(side, 0.0), 1.0) * size[0] for side in (x, x + w))
    ys = sorted(min(max(side, 0.0), 1.0) * size[1] for side in (y, y + h))
    return [round(side, 3) for side in (xs[0], ys[0], xs[1] - xs[0], ys[1] - ys[0])]


WORDS = {*ON_IMAGES, ON_LABELS, ON_PREDICTIONS}


def _label_fields(dataset: Any) -> list[str]:
    import fiftyone as fo

    return list(dataset.get_field_schema(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections))


def _paths(view: Any) -> list[str]:
    """Return each image's path below the source, or its file name in a dataset from an earlier version."""
    if view.has_field(SOURCE):
        return list(view.values(SOURCE))
    return [PurePath(path).name for path in view.values("filepath")]


def _noted(dataset: Any, key: str) -> Fixes:
    return Fixes.model_validate(dataset.info.get(key, {}))


def _without(some: Fixes, others: Fixes) -> Fixes:
    return Fixes(
        images={name: word for name, word in some.images.items() if others.images.get(name) != word},
        boxes=tuple(fix for fix in some.boxes if fix not in others.boxes),
    )


def _undone_by(gone: Fixes, replaced: Fixes) -> Fixes:
    """Return the replaced fixes that the ones that are gone had undone."""
    return Fixes(
        images={name: word for name, word in replaced.images.items() if name in gone.images},
        boxes=tuple(
            old for old in replaced.boxes if any(old.image == fix.image and old.is_of(fix.box()) for fix in gone.boxes)
        ),
    )
