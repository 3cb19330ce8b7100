"""Choose what to label next: images of the pool in order, each with reasons, minutes and boxes to correct.

pool     the usable images of the pool      choose   a choice of them, from numbers alone
model    what the model sees in them        plan     boxes, expected errors, minutes
belief   what its scores are worth          sheet    the batch as one image
store    a cache of what was seen           progress figures of the rounds so far
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline import logs
from pipeline.boxes import YoloDataset, read_labels
from pipeline.config.label import Label
from pipeline.errors import ConfigError, did_you_mean
from pipeline.label import belief, choose, model, plan, pool, progress, sheet
from pipeline.label.choose import Pick
from pipeline.label.model import Model, Seen
from pipeline.label.plan import Work
from pipeline.label.store import Array, File, Store
from pipeline.labels import file as labels
from pipeline.records.base import write_record
from pipeline.records.label import Candidate, Guess, Next
from pipeline.run import SPLITS, Run

MIRRORED = 10  # mirrored images to check per image to choose, those with the most expected errors first
RARE_SHARE = 0.5  # a class with fewer labels than this share of the mean over classes is rare


def main(config: Label | None, source: Path, run: Run, seed: int, device: str, workers: int | None) -> str:
    """Write `run.label_next` and a contact sheet. Raises ConfigError, DataError or WeightsError."""
    if config is None:
        raise ConfigError(f"{run.name}: the config has no `label`; add `label: {{pool: FOLDER}}`, a folder of images")
    pool.check_place(config.pool, source)
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    names, images = dataset.names, {split: dataset.files(split) for split in SPLITS}
    weights = model.find(config.weights, run)
    store = Store(run.label / "seen.sqlite")
    try:
        paths = [path for split in SPLITS for path in images[split]]
        labelled = store.files([*paths, *_saved(run)], workers, "label: reading what is labelled")
        labelled = [file for file in labelled if not file.problem]
        usable = pool.read(config.pool, labelled, store, workers)
        detector = Model(weights, names, device)
        record = _plan(config, dataset, images, labelled, usable, detector, store, seed)
    finally:
        store.close()
    boxes = sum(len(dataset.label_file(path).read_text(encoding="utf-8").splitlines()) for path in images["train"])
    rounds = progress.record(run, record, len(images["train"]), boxes, progress.saved(run))
    write_record(run.label_next, Next, record)
    sheet.write(run.label / "sheet.jpg", record["images"], names)
    if line := progress.in_words(rounds[-1]):
        logs.say(f"label: {line}")
    return _in_words(record, config.batch, run)


def _plan(
    config: Label,
    dataset: YoloDataset,
    images: dict[str, list[Path]],
    labelled: Sequence[File],
    usable: pool.Pool,
    detector: Model,
    store: Store,
    seed: int,
) -> Next:
    names = dataset.names
    by_path = {file.path: file for file in labelled}
    rare = _rare(config.rare, dataset, images["train"])
    val = [by_path[path] for path in images["val"] if path in by_path]
    seen_val = detector.see(val, store, "label: val")
    val_labels = [_labels(dataset, file) for file in val]
    val_boxes = [image.boxes for image in seen_val]
    trust = belief.of(val_boxes, val_labels, len(names)) if detector.known else belief.Belief()
    threshold = belief.threshold(trust, config.cost) if detector.known else 1.0
    train = [by_path[path] for path in images["train"] if path in by_path]
    known = detector.see(train, store, "label: training images")
    seen = detector.see(usable.candidates, store, "label: the pool")
    works = _works(config, usable.candidates, seen, detector, store, trust, threshold)
    picks = _picks(config, seen, works, [image.vector for image in known], rare, trust, bool(detector.known), seed)
    batch = []
    for pick in picks:
        file, work = usable.candidates[pick.image], works[pick.image]
        boxes = plan.guesses(seen[pick.image].boxes, names, trust, threshold, (file.width, file.height))
        rare_seen = [box["label"] for box in boxes if names.index(box["label"]) in rare]
        reasons = _reasons(pick, work, len(boxes), rare_seen, detector.known)
        batch.append(_candidate(file, pick, work, boxes, reasons))
    return {
        "pool": str(config.pool),
        "model": {
            "file": str(detector.file),
            "sha256": detector.sha256,
            "imgsz": detector.imgsz,
            "classes": detector.known,
        },
        "calibration": {
            "right": np.stack(trust.right, axis=1).round(6).tolist(),
            "exact": np.stack(trust.exact, axis=1).round(6).tolist(),
            "unseen": round(trust.unseen, 4),
            "images": len(val),
            "boxes": len(trust.scores),
        },
        "threshold": threshold,
        "sure": belief.SURE,
        "classes": list(names),
        "images": batch,
        "minutes": round(sum(works[pick.image].seconds for pick in picks) / 60, 1),
        "minutes_by_hand": round(sum(works[pick.image].by_hand for pick in picks) / 60, 1),
        "pool_images": usable.images,
        "left_out": usable.left_out,
        "problems": usable.problems,
        "settings": {"seed": seed, **config.model_dump(mode="json")},
    }


def _works(
    config: Label,
    candidates: Sequence[File],
    seen: Sequence[Seen],
    detector: Model,
    store: Store,
    trust: belief.Belief,
    threshold: float,
) -> list[Work]:
    """Return the expected work for each candidate, by its mirrored image too where the config asks for doubt."""
    works = [plan.work(image.boxes, None, trust, threshold, config.cost) for image in seen]
    if detector.known and "uncertain" in config.by:
        # Only the most uncertain ones: others are hardly ever chosen, and a mirrored image takes as long as the first.
        most = sorted(range(len(works)), key=lambda index: -works[index].unsure)[: MIRRORED * config.batch]
        mirrored = detector.see_mirrored([candidates[index] for index in most], store, "label: mirrored images")
        for index, mirrored_boxes in zip(most, mirrored, strict=True):
            works[index] = plan.work(seen[index].boxes, mirrored_boxes, trust, threshold, config.cost)
    return works


def _picks(
    config: Label,
    seen: Sequence[Seen],
    works: Sequence[Work],
    labelled: Sequence[Array],
    rare: list[int],
    trust: belief.Belief,
    knows: bool,
    seed: int,
) -> list[Pick]:
    """Choose the batch. `labelled` are the vectors of labelled images. A model that `knows` no class has no doubts."""
    vectors = _stacked([image.vector for image in seen])
    candidates = choose.Candidates(
        vectors=choose.unit(vectors, vectors),
        unsure=np.array([work.unsure if knows else 0.0 for work in works]),
        rare=np.array([plan.objects_of(image.boxes, rare, trust) for image in seen]),
        minutes=np.array([work.seconds for work in works]) / 60,
    )
    known = choose.unit(_stacked(labelled), vectors)
    ways = config.by if knows else tuple(word for word in config.by if word != "uncertain")
    return choose.choose(candidates, known, config.batch, ways, config.random, bool(rare), seed)


def _candidate(file: File, pick: Pick, work: Work, boxes: list[Guess], reasons: list[str]) -> Candidate:
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "width": file.width,
        "height": file.height,
        "by": pick.by,
        "reasons": reasons,
        "expected_boxes": round(work.boxes, 2),
        "expected_wrong": round(work.wrong, 2),
        "expected_missed": round(work.missed, 2),
        "minutes": round(work.seconds / 60, 2),
        "boxes": boxes,
    }


def _saved(run: Run) -> list[Path]:
    """Return the images with labels in `data/labels/`, which convert may not have read yet."""
    root = run.root.parent.parent
    paths = [root / image.file for _, image in labels.together(labels.files_of(run))]
    return [path for path in paths if path.is_file()]


def _labels(dataset: YoloDataset, file: File) -> Array:
    boxes = read_labels(dataset.label_file(file.path), dataset.names, file.width, file.height)
    rows = [(box.xmin, box.ymin, box.width, box.height, 1.0, dataset.names.index(box.label)) for box in boxes]
    return np.array(rows, np.float32).reshape(-1, 6)


def _rare(wanted: bool | Iterable[str], dataset: YoloDataset, train: Sequence[Path]) -> list[int]:
    """Return the classes that the config calls rare. Raises ConfigError for a class that the data set lacks."""
    names = dataset.names
    if not isinstance(wanted, bool):
        for name in wanted:
            if name not in names:
                hint = did_you_mean(name, names) or f"; classes are {', '.join(names)}"
                raise ConfigError(f"label.rare: no class {name!r} in the data set{hint}")
        return [names.index(name) for name in wanted]
    if not wanted:
        return []
    lines = (line for path in train for line in dataset.label_file(path).read_text(encoding="utf-8").splitlines())
    counts = Counter(int(line.split()[0]) for line in lines if line.strip())
    rare = [index for index in range(len(names)) if counts[index] < RARE_SHARE * counts.total() / len(names)]
    return rare or [min(range(len(names)), key=lambda index: counts[index])]


def _stacked(vectors: Sequence[Array]) -> Array:
    return np.stack(vectors) if vectors else np.empty((0, 1), np.float32)


def _reasons(pick: Pick, work: Work, drawn: int, rare: Sequence[str], known: Sequence[str]) -> list[str]:
    if pick.by == "random":
        return ["drawn at random, to show how good the model is on the whole pool"]
    reasons = []
    if pick.by == "rare":
        names = ", ".join(f"{count} x {name}" for name, count in sorted(Counter(rare).items()))
        reasons.append(f"may show rare classes: {names or 'none clear enough to draw'}")
    if pick.covers > 1:
        reasons.append(f"resembles {pick.covers} images of the pool more than any labelled image does")
    if known:
        reasons.append(f"of {drawn} boxes, about {work.wrong:.1f} are wrong, and {work.missed:.1f} are missing")
        if work.unlike_mirror >= 1:
            reasons.append(f"its mirrored image differs by {work.unlike_mirror:.1f} boxes")
    return reasons or ["unlike the labelled images"]


def _in_words(record: Next, batch: int, run: Run) -> str:
    chosen = record["images"]
    if not record["model"]["classes"]:
        logs.say(
            f"label: {record['model']['file']} knows no class of the data set, so no boxes are drawn beforehand, and "
            "images are chosen by how different they are"
        )
    drawn = Counter(box["kind"] for image in chosen for box in image["boxes"])
    left_out = "".join(f", {count} {reason}" for reason, count in record["left_out"].items())
    kinds = ", ".join(f"{count} by {by}" for by, count in sorted(Counter(image["by"] for image in chosen).items()))
    fewer = f" ({batch} wanted, no more are left)" if len(chosen) < batch else ""
    return (
        f"{len(chosen)} images to label next{fewer} ({kinds}) of {record['pool_images']}{left_out}; "
        f"{drawn['sure']} sure and {drawn['doubtful']} doubtful boxes drawn beforehand, about {record['minutes']:.0f} "
        f"minutes of work ({record['minutes_by_hand']:.0f} by hand) -> {run.label_next}, {run.label / 'sheet.jpg'}"
    )
