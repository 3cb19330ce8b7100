"""Choose what to label next: images of the pool in order, each with reasons, minutes and boxes to correct.

pool     the usable images of the pool      choose   a choice of them, from numbers alone
model    what the model sees in them        plan     boxes, expected errors, minutes
belief   what its scores are worth          words    the reasons, and the batch in one line
store    a cache of what was seen           sheet    the batch as one image
showing  images as people see them          progress figures of the rounds so far
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import cosine, logs
from pipeline.boxes import YoloDataset, read_labels
from pipeline.config.experiment import Config
from pipeline.config.label import Label
from pipeline.errors import ConfigError, DataError, did_you_mean
from pipeline.label import belief, choose, model, plan, pool, progress, sheet, showing, words
from pipeline.label.choose import Pick
from pipeline.label.model import Model, Seen
from pipeline.label.plan import Work
from pipeline.label.pool import Pool
from pipeline.label.store import Array, File, Store
from pipeline.labels import file as labels
from pipeline.labels.content import Image
from pipeline.records import receipt
from pipeline.records import tiles as tiles_record
from pipeline.records.base import write_record
from pipeline.records.label import Calibration, Candidate, Guess, Next
from pipeline.run import SPLITS, Run

MIRRORED = 10  # mirrored images to check per image to choose, those with the most expected errors per second first
RARE_SHARE = 0.5  # a class with fewer labels than this share of the mean over classes is rare


@dataclass(frozen=True, slots=True)
class Known:
    """What is labelled: images of the dataset by split, and those of `data/labels/`, which it may not hold yet."""

    dataset: YoloDataset
    images: dict[str, list[File]]
    saved: list[File]

    @property
    def all(self) -> list[File]:
        return [*(file for files in self.images.values() for file in files), *self.saved]


def main(config: Config, run: Run, device: str, workers: int | None) -> str:
    """Write `run.label_next` and a contact sheet. Raises ConfigError, DataError or WeightsError."""
    if config.label is None:
        raise ConfigError(f"{run.name}: the config has no `label`; add `label: {{pool: FOLDER}}`, a folder of images")
    pool.check_place(config.label.pool, config.convert.source)
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    weights = model.find(config.label.weights, run)
    if config.tiles and not run.tiles.is_file():
        raise DataError(f"{run.tiles}: does not exist; `make augment` writes it")
    store = Store(run.label / "seen.sqlite")
    try:
        made = [image for _, image in labels.together(labels.files_of(run))]
        known = _known(dataset, made, run, store, workers)
        names = [image.file for image in made]
        usable = pool.read(config.label.pool, run, config.convert, known.all, names, store, workers)
        judging, bits = config.validate_, receipt.read(run)["bits"]
        tiling = tiles_record.read(run)
        detector = Model(weights, dataset.names, device, tiling, judging.iou, judging.max_det, bits)
        record = _plan(config.label, run, known, usable, detector, store, config.seed)
        store.forget_other_models(detector.sha256)
    finally:
        store.close()
    train = dataset.files("train")
    boxes = sum(len(dataset.label_file(path).read_text(encoding="utf-8").splitlines()) for path in train)
    rounds, drawn = progress.record(run, record, len(train), boxes, progress.by_digest(made))
    write_record(run.label_next, Next, record)
    sheet.write(run.label / "sheet.jpg", record["images"], dataset.names)
    if line := progress.in_words(rounds[-1], drawn):
        logs.say(f"label: {line}")
    return words.summary(record, config.label.batch, run)


def _known(dataset: YoloDataset, made: Sequence[Image], run: Run, store: Store, workers: int | None) -> Known:
    """Read what is labelled, with `made` in `data/labels/`. An image that changed since does not count."""
    paths = {split: dataset.files(split) for split in SPLITS}
    digests = {path: image.sha256 for image in made if (path := run.project / image.file).is_file()}
    every = [path for of_split in paths.values() for path in of_split]
    read = store.files([*every, *digests], workers, "label: reading what is labelled")
    by_path = {file.path: file for file in read if not file.problem}
    return Known(
        dataset,
        {split: [by_path[path] for path in of_split if path in by_path] for split, of_split in paths.items()},
        [by_path[path] for path, digest in digests.items() if path in by_path and digest in ("", by_path[path].sha256)],
    )


def _plan(config: Label, run: Run, known: Known, usable: Pool, detector: Model, store: Store, seed: int) -> Next:
    dataset, names = known.dataset, known.dataset.names
    rare = _rare(config.rare, dataset, dataset.files("train"))
    trust, judged = _trust(known, detector, store)
    threshold = belief.threshold(trust, config.cost) if detector.known else 1.0
    labelled = detector.see([*known.images["train"], *known.saved], store, "label: labelled images")
    usable, seen = usable.only_seen(detector.see(usable.candidates, store, "label: the pool"))
    works = _works(config, usable.candidates, seen, detector, store, trust, threshold)
    vectors = [image.vector for image in labelled if image]
    picks = _picks(config, seen, works, vectors, rare, trust, bool(detector.known), seed)
    batch: list[Candidate] = []
    for pick in picks:
        file, work = usable.candidates[pick.image], works[pick.image]
        boxes = plan.guesses(seen[pick.image].boxes, names, trust, threshold, (file.width, file.height))
        rare_seen = [box["label"] for box in boxes if names.index(box["label"]) in rare]
        why = words.reasons(pick, work, len(boxes), rare_seen, detector.known)
        batch.append(_candidate(file, pick, work, boxes, why))
        if shown := showing.copy(file, detector.bits, run.label / "shown"):
            batch[-1]["shown"] = str(shown)
    return {
        "pool": str(config.pool),
        "model": {
            "file": str(detector.file),
            "sha256": detector.sha256,
            "imgsz": detector.imgsz,
            "classes": detector.known,
        },
        "calibration": _calibration(trust, judged),
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


def _trust(known: Known, detector: Model, store: Store) -> tuple[belief.Belief, int]:
    """Return what the detector's scores are worth on val, and the number of images that say so."""
    val = known.images["val"]
    seen = detector.see(val, store, "label: val")
    pairs = [(one.boxes, _labels(known.dataset, file)) for one, file in zip(seen, val, strict=True) if one]
    if not detector.known:
        return belief.Belief(), len(pairs)
    boxes, objects = [boxes for boxes, _ in pairs], [objects for _, objects in pairs]
    return belief.of(boxes, objects, len(detector.names)), len(pairs)


def _calibration(trust: belief.Belief, images: int) -> Calibration:
    return {
        "right": np.stack(trust.right, axis=1).round(6).tolist(),
        "exact": np.stack(trust.exact, axis=1).round(6).tolist(),
        "unseen": round(trust.unseen, 4),
        "images": images,
        "boxes": len(trust.scores),
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
        # Only the first by doubt per second, as they are chosen: a mirrored image takes as long as the original.
        order = sorted(range(len(works)), key=lambda index: -works[index].unsure / works[index].seconds)
        most = order[: MIRRORED * config.batch]
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
        vectors=cosine.standardised(vectors),
        unsure=np.array([work.unsure if knows else 0.0 for work in works]),
        rare=np.array([plan.objects_of(image.boxes, rare, trust) for image in seen]),
        minutes=np.array([work.seconds for work in works]) / 60,
    )
    known = cosine.standardised(_stacked(labelled), like=vectors)
    ways = config.by if knows or not config.by else ("different",)
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


def _labels(dataset: YoloDataset, file: File) -> Array:
    boxes = read_labels(dataset.label_file(file.path), dataset.names, file.width, file.height)
    rows = [(*box.bbox, 1.0, dataset.names.index(box.label)) for box in boxes]
    return np.array(rows, np.float32).reshape(-1, 6)


def _rare(wanted: bool | Iterable[str], dataset: YoloDataset, train: Sequence[Path]) -> list[int]:
    """Return the classes that the config calls rare, if any. Raises ConfigError for one that the dataset lacks."""
    names = dataset.names
    if not isinstance(wanted, bool):
        for name in wanted:
            if name not in names:
                hint = did_you_mean(name, names) or f"; classes are {', '.join(names)}"
                raise ConfigError(f"label.rare: no class {name!r} in the dataset{hint}")
        return [names.index(name) for name in wanted]
    if not wanted:
        return []
    lines = (line for path in train for line in dataset.label_file(path).read_text(encoding="utf-8").splitlines())
    counts = Counter(int(line.split()[0]) for line in lines if line.strip())
    rare = [index for index in range(len(names)) if counts[index] < RARE_SHARE * counts.total() / len(names)]
    if not rare:
        logs.say("label: `rare: true` has no effect, because no class has fewer than half of the mean number of labels")
    return rare


def _stacked(vectors: Sequence[Array]) -> Array:
    return np.stack(vectors) if vectors else np.empty((0, 1), np.float32)
