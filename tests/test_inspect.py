"""The run in a real FiftyOne with a real database, which belongs to the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import detections
import numpy as np
import pytest
from conftest import MONGOD, ROOT, Trained, app, needs_database, read_coco, write_coco
from stand_ins import write_metrics

from pipeline import convert, database, fixes, inspect, pixels
from pipeline.boxes import YoloDataset, read_labels
from pipeline.config.data import Convert
from pipeline.config.judging import Inspect
from pipeline.errors import DataError, PipelineError
from pipeline.extras.sample import dataset as sample
from pipeline.files import read_json, write_json
from pipeline.inspect import contents, doubts, tags
from pipeline.run import Run
from pipeline.validate import error_types, predict

pytestmark = pytest.mark.usefixtures("own_database")

THRESHOLDS = dict.fromkeys(sample.CLASSES, 0.3)
VIEWS = [
    "most-false-positives",
    "confident-false-positives",
    "missed-objects",
    "wrong-class",
    "badly-placed",
    "possible-label-errors",
    "hardest-images",
    "similar-across-splits",
    "evaluation-patches",
]


@pytest.fixture
def validated(source: Path, run: Run, start: Path) -> Iterator[Run]:
    """The tiles, converted and with hand-set validation results."""
    convert_and_validate(source, run, start)
    yield run
    if MONGOD.is_file() and "fiftyone" in sys.modules:
        import fiftyone as fo

        fo.delete_datasets(f"{run.name}*")  # and its tags: the next test's run has the same name


def convert_and_validate(source: Path, run: Run, start: Path) -> None:
    """Convert, and write what validate would: test has hand-set objects and predictions, val has no detections.

    Test image 1: a hit. Image 2: the object predicted as another class. Image 3: a confident false positive, and a
    label far from anything; its other labels are removed.
    """
    convert.main(Convert(source=source), run, 0)
    run.model.write_bytes(start.read_bytes())
    data = YoloDataset.read(run.dataset / "data.yaml")
    truth = predict.ground_truth(data, data.files("test"))
    truth["annotations"] = [
        {"id": i, "image_id": i, "category_id": 0, "bbox": [32, 64, 80, 40], "area": 3200, "iscrowd": 0}
        for i in (1, 2, 3)
    ]
    judge(run, "test", truth, [
        {"image_id": 1, "category_id": 0, "bbox": [32, 64, 80, 36], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [32, 64, 80, 40], "score": 0.7},
        {"image_id": 3, "category_id": 1, "bbox": [200, 200, 20, 20], "score": 0.8},
        {"image_id": 3, "category_id": 0, "bbox": [200, 100, 40, 20], "score": 0.4},
    ])  # fmt: skip
    judge(run, "val", predict.ground_truth(data, data.files("val")), [])
    write_metrics(run, **{split: {"map50_95": 0.25, "map50": 0.5} for split in ("test", "val")})


def judge(run: Run, split: str, truth: dict[str, Any], predictions: list[dict[str, Any]]) -> None:
    """Write a split's results with validate's own code."""
    write_json(run.ground_truth(split), truth)
    write_json(run.errors(split), error_types.record(truth, predictions, THRESHOLDS))


def build(run: Run, config: Inspect | None = None, against: Run | None = None) -> Any:
    inspect.main(config or Inspect(), run, "cpu", against=against.root if against else None)
    import fiftyone as fo

    return fo.load_dataset(tags.name_of(run))


def in_test(dataset: Any) -> Any:
    return dataset.match_tags("test").sort_by("filepath")


@needs_database
def test_every_object_is_shown_and_judged(validated: Run) -> None:
    dataset = build(validated)
    assert dataset.persistent
    assert dataset.count_sample_tags() == {"train": 8, "val": 3, "test": 3}
    receipt = read_json(validated.receipt)
    for split in ("train", "val"):
        labels = dataset.match_tags(split).count("ground_truth.detections")
        assert labels == receipt["splits"][split]["boxes"] > 0
    test = in_test(dataset)
    assert [test.values(f"eval_{kind}") for kind in ("tp", "fp", "fn")] == [[1, 0, 0], [0, 1, 2], [0, 1, 1]]
    assert test.values("ground_truth.detections.eval", unwind=True) == ["tp", "fn", "fn"]
    assert test.values("ground_truth.detections.error", unwind=True) == [None, "classification", "missed"]
    assert test.values("predictions.detections.eval", unwind=True) == ["tp", "fp", "fp", "fp"]
    errors = test.values("predictions.detections.error", unwind=True)
    assert errors == [None, "classification", "background", "background"]
    assert test.values("predictions.detections.eval_iou", unwind=True) == pytest.approx([0.9, 1, 0, 0])
    hit = test.first()
    # Relative [x, y, width, height] of 320 px.
    assert hit.ground_truth.detections[0].bounding_box == pytest.approx([0.1, 0.2, 0.25, 0.125])
    assert hit.predictions.detections[0].confidence == pytest.approx(0.9)
    assert hit.ground_truth.detections[0].label == "open"
    assert hit.ground_truth.detections[0].eval_id == hit.predictions.detections[0].id
    assert hit.predictions.detections[0].eval_id == hit.ground_truth.detections[0].id
    assert Path(hit.filepath).is_file() and (hit.metadata.width, hit.metadata.height) == (320, 320)
    # Images not validated are not judged.
    assert set(dataset.match_tags("train").values("eval_fn")) == {None}
    assert set(dataset.match_tags("train").values("ground_truth.detections.eval", unwind=True)) == {None}


@needs_database
def test_the_app_shows_what_validate_wrote(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    dataset = build(run)
    for split in ("val", "test"):
        counts = read_json(run.errors(split))["counts"]
        view = dataset.match_tags(split)
        found = view.count_values("predictions.detections.error")
        assert view.sum("eval_tp") == counts["tp"] == found.pop(None, 0)
        assert found == {kind: counts[kind] for kind in error_types.MISTAKES if counts[kind]}
        assert view.count_values("ground_truth.detections.error").get("missed", 0) == counts["missed"]


@needs_database
def test_documents_match_what_fiftyone_would_write(validated: Run) -> None:
    import fiftyone as fo

    ours = in_test(build(validated)).first()
    fields = {name: ours[name] for name in ours.field_names if name not in ("id", "created_at", "last_modified_at")}
    theirs = fo.Dataset()
    theirs.add_sample(fo.Sample(**{key: value for key, value in fields.items() if value is not None}))
    [document] = theirs._sample_collection.find()
    [same] = ours.dataset._sample_collection.find({"_id": ours._id})
    of_itself = ("_id", "_dataset_id", "_rand", "created_at", "last_modified_at")
    assert {key: type(value) for key, value in document.items()} == {key: type(value) for key, value in same.items()}
    assert [key for key in document if key not in of_itself and document[key] != same[key]] == []
    schema = ours.dataset.get_field_schema(flat=True)
    for path in ("ground_truth", "predictions"):
        written = {key for thing in same[path]["detections"] for key in thing} - {"_id", "_cls"}
        assert {f"{path}.detections.{key}" for key in written} <= set(schema)  # otherwise the App would not show them
    theirs.delete()


@needs_database
def test_our_evaluation_equals_fiftyones(validated: Run) -> None:
    """FiftyOne's takes a second per thousand boxes. Random boxes, so that no two overlap equally."""
    truth, predictions = detections.noisy(seed=152, images=3, classes=2)
    predictions = [dict(one, score=one["score"] / 2 + 0.5) for one in predictions]
    names = read_json(validated.ground_truth("test"))
    truth["categories"], truth["images"] = names["categories"], names["images"]
    scale(truth["annotations"] + predictions)
    judge(validated, "test", truth, predictions)
    dataset = build(validated)
    dataset.match_tags("test").evaluate_detections("predictions", eval_key="theirs", iou=0.5, progress=False)
    test = dataset.match_tags("test")
    assert test.count("predictions.detections") == len(predictions) == 40
    for path in ("ground_truth.detections", "predictions.detections"):
        assert test.values(f"{path}.eval") == test.values(f"{path}.theirs")
        ours, theirs, verdicts = (
            test.values(f"{path}.{key}", unwind=True) for key in ("eval_iou", "theirs_iou", "eval")
        )
        hits = [position for position, verdict in enumerate(verdicts) if verdict == "tp"]
        assert len(hits) > 10
        # validate rounds to six decimals
        assert [ours[hit] for hit in hits] == pytest.approx([theirs[hit] for hit in hits], abs=1e-6)
    for kind in ("tp", "fp", "fn"):
        assert test.values(f"eval_{kind}") == test.values(f"theirs_{kind}")


def scale(records: list[dict[str, Any]]) -> None:
    """Scale from 640 x 480 to the tiles' 320 x 320; overlaps stay the same."""
    for record in records:
        x, y, width, height = record["bbox"]
        record["bbox"] = [x / 2, y / 1.5, width / 2, height / 1.5]


@needs_database
def test_the_panel_shows_the_evaluation(validated: Run) -> None:
    dataset = build(validated)
    assert dataset.list_evaluations() == ["eval"]
    assert len(dataset.load_evaluation_view("eval")) == 6  # val and test, but not train, which was not validated
    results = dataset.load_evaluation_results("eval", cache=False)
    objects = 3 + dataset.match_tags("val").count("ground_truth.detections")
    metrics = results.metrics()
    assert (metrics["precision"], metrics["recall"]) == pytest.approx((1 / 4, 1 / objects))
    assert metrics["mAP50-95 of test"] == 0.25 and metrics["mAP50 of val"] == 0.5
    matrix = results.confusion_matrix(classes=["open", "short"])
    assert matrix.tolist() == [[1, 1], [0, 0]]  # labelled open: one found, one predicted as short


@needs_database
def test_saved_views_show_the_errors(validated: Run) -> None:
    dataset = build(validated)
    assert dataset.list_saved_views() == VIEWS
    assert all(dataset.get_saved_view_info(name)["description"] for name in VIEWS)
    shown = {name: dataset.load_saved_view(name) for name in VIEWS}
    names = [Path(path).name for path in in_test(dataset).values("filepath")]

    def images(name: str) -> list[str]:
        return [Path(path).name for path in shown[name].match_tags("test").values("filepath")]

    assert images("most-false-positives") == [names[2], names[1]]
    assert images("confident-false-positives") == [names[2], names[1]]  # highest score first
    assert shown["confident-false-positives"].values("predictions.detections.confidence") == [[0.8], [0.7]]
    assert images("missed-objects") == [names[2]]
    assert images("wrong-class") == [names[1]]
    assert images("badly-placed") == []
    assert images("possible-label-errors") == [
        names[2],
        names[1],
    ]  # 0.9 for the false positive, 0.85 for the other class
    in_doubt = shown["possible-label-errors"].match_tags("test")
    assert in_doubt.values("predictions.detections.confidence") == [[0.8], []]
    assert sorted(images("hardest-images")) == names[1:]  # nothing in either was found, and each misses one object
    assert len(shown["similar-across-splits"]) == 0
    patches = shown["evaluation-patches"]
    val = dataset.match_tags("val").count("ground_truth.detections")
    assert patches.count_values("type") == {"tp": 1, "fn": 2 + val, "fp": 2}  # one fp lies on its fn, in one patch
    assert patches.values("type") == sorted(patches.values("type"))


@needs_database
def test_the_hardest_images_come_first(validated: Run) -> None:
    """Image 1 finds one of two objects. Nothing in images 2 and 3 was found; 3 misses more objects."""
    truth = read_json(validated.ground_truth("test"))
    truth["annotations"] = [
        {"id": number, "image_id": image, "category_id": 0, "bbox": box, "area": 400, "iscrowd": 0}
        for number, (image, box) in enumerate(
            [
                (1, [32, 64, 20, 20]),
                (1, [200, 64, 20, 20]),
                (2, [32, 64, 20, 20]),
                (3, [32, 64, 20, 20]),
                (3, [200, 64, 20, 20]),
            ],
            start=1,
        )
    ]
    judge(validated, "test", truth, [{"image_id": 1, "category_id": 0, "bbox": [32, 64, 20, 20], "score": 0.9}])
    dataset = build(validated)
    names = in_test(dataset).values("filepath")
    hardest = dataset.load_saved_view("hardest-images").match_tags("test")
    assert hardest.values("filepath") == names[::-1]


@needs_database
def test_a_badly_placed_box_is_in_its_saved_view(validated: Run) -> None:
    truth = read_json(validated.ground_truth("test"))
    beside = {"image_id": 1, "category_id": 0, "bbox": [72, 64, 80, 40], "score": 0.9}  # an IoU of a third
    judge(validated, "test", truth, [beside])
    dataset = build(validated)
    view = dataset.load_saved_view("badly-placed")
    assert view.values("predictions.detections.error") == [["localisation"]]
    first = in_test(dataset).limit(1)
    values = first.values([f"ground_truth.detections.{key}" for key in ("eval", "error", "mistakenness")], unwind=True)
    assert list(values) == [["fn"], ["localisation"], [None]]
    assert first.values("ground_truth.detections.mistakenness_loc") == [[pytest.approx((1 + 0.9) / 2)]]
    assert in_test(dataset).first().id in dataset.load_saved_view("possible-label-errors").values("id")


@needs_database
def test_mistakenness_equals_fiftyones(validated: Run) -> None:
    import fiftyone.brain as brain

    truth = read_json(validated.ground_truth("test"))
    judge(validated, "test", truth, [
        {"image_id": 1, "category_id": 0, "bbox": [32, 64, 80, 30], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [32, 64, 80, 36], "score": 0.7},
        {"image_id": 3, "category_id": 1, "bbox": [200, 200, 20, 20], "score": 0.96},
    ])  # fmt: skip
    dataset = build(validated, Inspect(confident=0.95))  # FiftyOne's own limit for a missing label
    test = in_test(dataset)
    path = "ground_truth.detections"
    ours = {key: test.values(f"{path}.{key}") for key in ("mistakenness", "mistakenness_loc", "possible_spurious")}
    missing, counts = test.values("predictions.detections.possible_missing"), test.values("possible_missing")
    brain.compute_mistakenness(
        test, "predictions", "ground_truth", mistakenness_field="theirs", missing_field="their_missing", spurious_field="their_spurious", progress=False
    )  # fmt: skip
    test.reload()
    for key, values in zip(("theirs", "theirs_loc", "their_spurious"), ours.values(), strict=True):
        assert values == [pytest.approx(theirs) for theirs in test.values(f"{path}.{key}")], key
    assert ours["mistakenness"] == [[pytest.approx(0.05)], [pytest.approx(0.85)], [None]]
    assert missing == test.values("predictions.detections.their_missing") == [[None], [None], [True]]
    assert counts == test.values("their_missing") == [0, 0, 1]


@pytest.mark.parametrize(
    ("score", "iou", "placing"), [(1, 1, 0), (1, 0.5, 1), (1, 0.2, 1), (0, 0.7, 0.5), (0.8, 0.75, 0.5)]
)
def test_placement_doubt_follows_score_and_iou(score: float, iou: float, placing: float) -> None:
    assert doubts.of_placement(score, iou) == pytest.approx(placing)


@needs_database
def test_a_copy_across_splits_is_found(validated: Run) -> None:
    """Re-saved at another quality, as a leak would be."""
    data = YoloDataset.read(validated.dataset / "data.yaml")
    train, test = data.files("train")[0], data.files("test")[1]
    test.unlink()  # it may be a link into the source
    test.write_bytes(pixels.jpeg(pixels.read(train), 90))
    dataset = build(validated, Inspect(similarity=0.9))
    view = dataset.load_saved_view("similar-across-splits")
    assert {str(train.resolve()), str(test.resolve())} <= set(view.values("filepath"))
    groups = dict(zip(dataset.values("filepath"), dataset.values("similar_group"), strict=True))
    assert groups[str(train.resolve())] == groups[str(test.resolve())]
    stricter = build(validated, Inspect(similarity=1))
    assert len(stricter.load_saved_view("similar-across-splits")) == 0


@needs_database
def test_the_app_can_plot_and_search_embeddings(validated: Run) -> None:
    dataset = build(validated)
    points = dataset.load_brain_results("embeddings").points
    assert points.shape == (14, 2) and np.ptp(points, axis=0).min() > 0
    index = dataset.load_brain_results("similarity")
    first = dataset.first()
    vectors, ids, _ = index.get_embeddings(sample_ids=[first.id]), [first.id], None
    assert dataset.sort_by_similarity(first.id, k=1, brain_key="similarity").first().id == first.id
    assert len(vectors[0][0]) == 256 and list(ids) == [first.id]
    assert dataset.max("uniqueness") == pytest.approx(1)


@needs_database
def test_nothing_is_rebuilt_if_nothing_changed(validated: Run) -> None:
    first = build(validated)
    assert build(validated)._doc.id == first._doc.id
    other = build(validated, Inspect(confident=0.5))
    assert other._doc.id != first._doc.id
    import fiftyone as fo

    assert [name for name in fo.list_datasets() if name.startswith(validated.name)] == [validated.name]
    assert len(other) == 14
    # A training-split label is shown too.
    data = YoloDataset.read(validated.dataset / "data.yaml")
    data.label_file(data.files("train")[0]).write_text("0 0.5 0.5 0.1 0.1\n")
    changed = build(validated, Inspect(confident=0.5))
    assert changed.match_tags("train").sort_by("filepath").first().ground_truth.detections[0].label == "open"


@pytest.fixture
def other(validated: Run, tmp_path: Path) -> Run:
    """Another model on the same images, which finds only image 2's object."""
    run = Run(Path(shutil.copytree(validated.root, tmp_path / "runs" / "second-try")))
    found = [{"image_id": 2, "category_id": 0, "bbox": [32, 64, 80, 40], "score": 0.6}]
    judge(run, "test", read_json(run.ground_truth("test")), found)
    write_metrics(run, **{split: {"map50_95": 0.125, "map50": None} for split in ("test", "val")})
    return run


@needs_database
def test_another_run_is_shown_beside_it(validated: Run, other: Run) -> None:
    dataset = build(validated, against=other)
    test = in_test(dataset)
    assert test.values("eval_tp") == [1, 0, 0] and test.values("eval_second_try_tp") == [0, 1, 0]
    assert test.values("predictions_second_try.detections.eval_second_try") == [[], ["tp"], []]
    assert test.values("ground_truth.detections.error_second_try", unwind=True) == ["missed", None, "missed"]
    assert dataset.list_evaluations() == ["eval", "eval_second_try"]
    theirs = dataset.load_evaluation_results("eval_second_try", cache=False)
    assert theirs.config.pred_field == "predictions_second_try"
    assert theirs.metrics()["mAP50-95 of test"] == 0.125 and "mAP50 of test" not in theirs.metrics()
    assert build(validated).list_evaluations() == ["eval"]  # without the other run again


def test_another_run_on_other_labels_is_refused(validated: Run, other: Run) -> None:
    truth = read_json(other.ground_truth("test"))
    truth["annotations"][1]["bbox"][0] += 5
    judge(other, "test", truth, [])
    with pytest.raises(DataError, match=r"second-try: validated on other images or labels of the test split than"):
        inspect.main(Inspect(), validated, "cpu", against=other.root)


def test_another_run_without_a_split_is_refused(validated: Run, other: Run) -> None:
    write_metrics(other, val={})
    with pytest.raises(
        DataError, match=r"second-try/metrics\.json: has no figures of the test split; run make validate"
    ):
        inspect.main(Inspect(), validated, "cpu", against=other.root)


def test_a_missing_other_run_and_the_same_run_are_refused(validated: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/metrics\.json: does not exist; `make validate` writes it"):
        inspect.main(Inspect(), validated, "cpu", against=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"--against .*tiny: is the same run; name another one"):
        inspect.main(Inspect(), validated, "cpu", against=validated.root)


# --- From the App to fixes -----------------------------------------------------------------------


def names_of(run: Run) -> list[str]:
    """The paths of the test images below the source."""
    return [f"images/{path.name}" for path in YoloDataset.read(run.dataset / "data.yaml").files("test")]


def tag_all(dataset: Any) -> None:
    """Tag as a user would in the App: labels in the patches, images in the grid."""
    patches = dataset.load_saved_view("evaluation-patches")
    patches.match_tags("test").filter_labels("ground_truth", {"$eq": ["$$this.error", "classification"]}).tag_labels(
        "wrong", label_fields="ground_truth"
    )
    dataset.filter_labels("predictions", {"$eq": ["$$this.confidence", 0.7]}).tag_labels(
        "missing", label_fields="predictions"
    )
    first, _, last = in_test(dataset)
    first.tags.append("relabel")
    first.save()
    last.tags += ["relabel", "drop"]
    last.save()


def tagged_and_saved(run: Run) -> tuple[Any, Path]:
    dataset = build(run)
    tag_all(dataset)
    inspect.save_fixes(run)
    return dataset, fixes.file_of(run)


@needs_database
def test_tags_become_fixes(validated: Run) -> None:
    dataset = build(validated)
    tag_all(dataset)
    said = inspect.save_fixes(validated)
    path = fixes.file_of(validated)
    assert said == f"4 fixes -> {path}; review them, then run `make all CONFIG=configs/{path.stem}.yaml` to apply them"
    first, second, third = names_of(validated)
    saved = fixes.load(path)
    assert saved.images == {first: "relabel", third: "drop"}
    assert sorted((fix.image, fix.action, fix.label, fix.bbox) for fix in saved.boxes) == [
        (second, "add", "short", (32, 64, 80, 40)),
        (second, "remove", "open", (32, 64, 80, 40)),
    ]


@needs_database
def test_corrections_are_converted(validated: Run, source: Path) -> None:
    """Tagged in the App, saved as text, applied by the next convert, and each listed in the receipt."""
    dataset = build(validated)
    before = read_json(validated.receipt)
    dropped, wrong = dataset.match_tags("train").sort_by("filepath").limit(2)
    dropped.tags.append("drop")
    dropped.save()
    wrong.ground_truth.detections[0].tags.append("wrong")
    wrong.save()
    invented = in_test(dataset).last()
    invented.predictions.detections[0].tags.append("missing")
    invented.save()
    assert "3 fixes ->" in inspect.save_fixes(validated)
    convert.main(Convert(source=source), validated, 0)
    after = read_json(validated.receipt)
    assert [line["applied"] for line in after["fixes"]] == [True] * 3
    images, boxes = ({split: part[key] for split, part in before["splits"].items()} for key in ("images", "boxes"))
    assert {split: part["images"] for split, part in after["splits"].items()} == {
        **images,
        "train": images["train"] - 1,
    }
    taken = len(dropped.ground_truth.detections) + 1
    assert {split: part["boxes"] for split, part in after["splits"].items()} == {
        "train": boxes["train"] - taken,
        "val": boxes["val"],
        "test": boxes["test"] + 1,
    }


@needs_database
def test_a_fix_matches_the_label_it_came_from(validated: Run) -> None:
    """From the label file through the database, which stores relative boxes, and back to pixels."""
    dataset = build(validated)
    view = dataset.match_tags("train").sort_by("filepath").limit(1)
    view.tag_labels("wrong", label_fields="ground_truth")
    inspect.save_fixes(validated)
    data = YoloDataset.read(validated.dataset / "data.yaml")
    image = data.files("train")[0]
    labels = read_labels(data.label_file(image), data.names, 320, 320)
    assert labels
    kept, notes = fixes.apply(fixes.load(fixes.file_of(validated)), f"images/{image.name}", labels)
    assert kept == () and len(notes) == len(labels) and not any(note.stale for note in notes)


@needs_database
def test_saving_twice_or_after_a_rebuild_keeps_the_fixes(validated: Run) -> None:
    dataset, path = tagged_and_saved(validated)
    text = path.read_text()
    said = inspect.save_fixes(validated)
    assert said == f"nothing new to save: 4 fixes tagged, 4 in {path}" and path.read_text() == text
    # Rebuilt without the tags: saved fixes stay, and more are added.
    dataset = build(validated, Inspect(confident=0.5))
    assert tags.unsaved(dataset) == 0
    in_test(dataset).skip(1).limit(1).tag_samples("drop")
    assert inspect.save_fixes(validated).startswith("1 fix -> ")
    saved = fixes.load(path)
    assert len(saved) == 5 and saved.images[names_of(validated)[1]] == "drop"


@needs_database
def test_a_fix_removed_from_the_file_stays_removed(validated: Run) -> None:
    dataset, path = tagged_and_saved(validated)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "action: add" not in line))
    in_test(dataset).skip(1).limit(1).tag_samples("drop")
    inspect.save_fixes(validated)
    assert [fix.action for fix in fixes.load(path).boxes] == ["remove"]


@needs_database
def test_unsaved_tags_are_not_discarded(validated: Run) -> None:
    dataset = build(validated)
    tag_all(dataset)
    save = r"\.venv/bin/python -m pipeline inspect --config configs/tiny\.yaml --save-fixes"
    with pytest.raises(
        PipelineError, match=rf"outdated, but it has 4 fixes that you made or took back and did not save; run `{save}`"
    ):
        build(validated, Inspect(confident=0.5))
    assert build(validated).match_tags("drop").count() == 1  # nothing changed, so they are still there
    inspect.save_fixes(validated)
    assert build(validated, Inspect(confident=0.5)).match_tags("drop").count() == 0


@needs_database
def test_tags_without_meaning_are_reported(validated: Run) -> None:
    dataset = build(validated)
    dataset.match_tags("test").tag_labels("wrong", label_fields="predictions")
    dataset.match_tags("test").limit(1).tag_samples("missing")
    assert tags.unsaved(dataset) == 0
    said = inspect.save_fixes(validated)
    assert said.startswith("nothing new to save: 0 fixes tagged")
    assert "ignored misplaced tags: missing, wrong (`wrong` is for labels of ground_truth" in said
    assert not fixes.file_of(validated).exists()


def give_names(source: Path) -> list[str]:
    """Give training images ambiguous names; return their paths below the source.

    The first one's name also exists in a folder of no split. The next two share a name, so that convert renames them.
    """
    data = read_coco(source, "train")
    names = ["train_0000.jpg", "north/a.jpg", "south/a.jpg", "Größe 1, (ü) #2.jpg"]
    for record, name in zip(data["images"], names, strict=False):
        (source / "images" / name).parent.mkdir(exist_ok=True)
        (source / "images" / record["file_name"]).rename(source / "images" / name)
        record["file_name"] = name
    write_coco(source, "train", data)
    (source / "spare").mkdir()
    shutil.copy(source / "images" / "train_0004.jpg", source / "spare" / "train_0000.jpg")
    image = {**data["images"][0], "file_name": "spare/train_0000.jpg"}
    boxes = [box for box in data["annotations"] if box["image_id"] == image["id"]]
    write_coco(source, "spare", {**data, "images": [image], "annotations": boxes})
    return [f"images/{name}" for name in names]


@needs_database
def test_tags_reach_their_image_whatever_others_are_called(validated: Run, source: Path, start: Path) -> None:
    names = give_names(source)
    convert_and_validate(source, validated, start)
    dataset = build(validated)
    assert set(names) < set(dataset.values("source"))
    for number, name in enumerate(names):
        view = dataset.match({"source": name})
        assert view.count() == 1
        if number % 2:
            view.tag_samples("drop")
        else:
            view.tag_labels("wrong", label_fields="ground_truth")
    inspect.save_fixes(validated)
    path = fixes.file_of(validated)
    saved = fixes.load(path)
    assert saved.images == {names[1]: "drop", names[3]: "drop"}
    assert {fix.image for fix in saved.boxes} == {names[0], names[2]}
    convert.main(Convert(source=source), validated, 0)
    receipt = read_json(validated.receipt)
    assert len(receipt["fixes"]) == len(saved) and all(line["applied"] for line in receipt["fixes"])
    assert set(receipt["images"]["dropped"]) == {names[1], names[3]}
    assert set(receipt["images"]["in_no_split"]) == {"spare/train_0000.jpg"}
    left = {name: file for file, name in receipt["sources"].items()}
    for name in (names[0], names[2]):
        label = (validated.dataset / "labels" / left[name]).with_suffix(".txt")
        assert label.read_text() == ""
    # The App still shows the earlier images, and their tags are known to be saved.
    text = path.read_text()
    assert inspect.save_fixes(validated).startswith("nothing new to save") and path.read_text() == text


@needs_database
def test_tags_in_a_data_set_of_an_earlier_version_are_saved(validated: Run, source: Path) -> None:
    dataset = build(validated)
    in_test(dataset).limit(1).tag_samples("drop")
    dataset.delete_sample_field("source")
    inspect.save_fixes(validated)
    assert fixes.load(fixes.file_of(validated)).images == {"test_0000.jpg": "drop"}
    convert.main(Convert(source=source), validated, 0)
    assert set(read_json(validated.receipt)["images"]["dropped"]) == {"images/test_0000.jpg"}


def test_a_receipt_without_a_source_is_refused(validated: Run) -> None:
    receipt = read_json(validated.receipt)
    del receipt["sources"]["test/test_0001.jpg"]
    write_json(validated.receipt, receipt)
    with pytest.raises(DataError, match=r"receipt\.json: has no source for test/test_0001\.jpg; delete"):
        inspect.main(Inspect(), validated, "cpu")


@needs_database
def test_a_damaged_file_of_fixes_is_not_overwritten(validated: Run) -> None:
    in_test(build(validated)).limit(1).tag_samples("drop")
    path = fixes.file_of(validated)
    path.parent.mkdir(parents=True)
    path.write_text("images: [")
    with pytest.raises(PipelineError, match="not YAML"):
        inspect.save_fixes(validated)
    assert path.read_text() == "images: ["


@needs_database
def test_saving_without_a_data_set_is_refused(run: Run) -> None:
    import fiftyone as fo

    if fo.dataset_exists(run.name):
        fo.delete_dataset(run.name)
    with pytest.raises(DataError, match=r"FiftyOne has no dataset 'tiny'; run `make inspect`"):
        inspect.save_fixes(run)
    fo.Dataset("tiny")
    with pytest.raises(DataError, match=r"FiftyOne's dataset 'tiny' shows something else, not "):
        inspect.save_fixes(run)


@needs_database
def test_a_data_set_we_did_not_create_is_left_alone(validated: Run) -> None:
    import fiftyone as fo

    if fo.dataset_exists(validated.name):
        fo.delete_dataset(validated.name)
    fo.Dataset(validated.name).add_sample(fo.Sample(filepath="/mine.jpg"))
    with pytest.raises(
        PipelineError, match=r"FiftyOne has a dataset 'tiny' that is not one of `make inspect`; rename it"
    ):
        inspect.main(Inspect(), validated, "cpu")
    assert len(fo.load_dataset(validated.name)) == 1
    fo.delete_dataset(validated.name)


# --- Bad input -----------------------------------------------------------------------------------


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    value = read_json(path)
    write_json(path, edit(value) or value)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda errors: errors["predictions"][0].update(image_id=99), r"prediction 1 is of image 99, which is not in the split; delete metrics\.json"),
        (lambda errors: errors["predictions"][0].update(annotation_id=99), r"prediction 1 refers to annotation_id 99, which is not in its image"),
        (lambda errors: errors["predictions"][0].pop("type"), r"not as `validate` writes it \(predictions\.0\.type: field required\)"),
        (lambda errors: errors["objects"][0].update(prediction_id="x"), r"not as `validate` writes it \(objects\.0\.prediction_id: input should be a valid integer\)"),
        (lambda errors: [1], r"not as `validate` writes it \(should be an object\)"),
    ],
    ids=["image", "object", "key", "prediction", "list"],
)  # fmt: skip
def test_inconsistent_error_records_are_refused(validated: Run, edit: Callable[[Any], Any], line: str) -> None:
    change(validated.errors("test"), lambda errors: edit(errors) if isinstance(edit(errors), list) else None)
    with pytest.raises(DataError, match=rf"test_errors\.json: {line}"):
        contents.read(validated)


def test_a_missing_split_file_is_reported(validated: Run) -> None:
    validated.errors("test").unlink()
    with pytest.raises(DataError, match=r"test_errors\.json: does not exist; `make` runs the stage that writes it"):
        contents.read(validated)


def test_figures_of_a_split_the_data_set_lacks_are_refused(validated: Run) -> None:
    data_yaml = validated.dataset / "data.yaml"
    data_yaml.write_text(data_yaml.read_text().replace("test: images/test\n", ""))
    with pytest.raises(
        DataError, match=r"metrics\.json: has figures of the test split, but .*dataset has no such split"
    ):
        contents.read(validated)


def test_images_added_after_validation_are_reported(validated: Run) -> None:
    data = YoloDataset.read(validated.dataset / "data.yaml")
    (data.images["test"] / "another.jpg").write_bytes(data.files("test")[0].read_bytes())
    with pytest.raises(
        DataError,
        match=r"test_ground_truth\.json: does not hold the images of the current test split, for example another\.jpg",
    ):
        contents.read(validated)


def test_nothing_to_inspect_is_reported(run: Run, validated: Run) -> None:
    validated.metrics.unlink()
    with pytest.raises(DataError, match=r"metrics\.json: does not exist; `make validate` writes it"):
        inspect.main(Inspect(), run)
    write_metrics(validated)
    with pytest.raises(DataError, match=r"metrics\.json: has figures for no split"):
        inspect.main(Inspect(), validated)


def test_a_missing_database_is_reported(validated: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FiftyOne's installer silently leaves none if the download fails."""

    class Spec:
        origin = str(tmp_path / "fiftyone" / "__init__.py")

    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    monkeypatch.setattr(database, "find_spec", lambda name: Spec)
    with pytest.raises(PipelineError, match=r"database is missing.*; `make database` installs it"):
        inspect.main(Inspect(), validated)


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("mongodb://127.0.0.1:9", r"no answer from 127\.0\.0\.1:9 \(127\.0\.0\.1:9: .*Connection refused\); start it"),
        ("mongodb://me:secret@127.0.0.1:9/db", r"no answer from 127\.0\.0\.1:9 \("),
        ("mongodb://127.0.0.1:99999", r"no answer from 127\.0\.0\.1:99999 \(Port must be an integer"),
        ("http://127.0.0.1", r"no answer from 127\.0\.0\.1 \(Invalid URI scheme"),
    ],
)  # fmt: skip
def test_a_shared_database_that_does_not_answer_is_reported(
    validated: Run, monkeypatch: pytest.MonkeyPatch, uri: str, line: str
) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", uri)
    with pytest.raises(PipelineError, match=f"FIFTYONE_DATABASE_URI: {line}") as caught:
        inspect.main(Inspect(), validated)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@needs_database
def test_a_database_that_does_not_start_is_reported(validated: Run, tmp_path: Path) -> None:
    """Its folder is a file. Runs in a separate process, which neither has nor finds a running database."""
    (tmp_path / "taken").write_text("")
    code = (
        "from pathlib import Path\nfrom pipeline import inspect\nfrom pipeline.config.judging import Inspect\n"
        "from pipeline.errors import PipelineError\nfrom pipeline.run import Run\n"
        "import fiftyone.core.service as service\nservice.fosu.find_processes_by_args = lambda arguments: []\n"
        f"try:\n    inspect.main(Inspect(), Run(Path({str(validated.root)!r})))\n"
        "except PipelineError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FIFTYONE_DATABASE_DIR": str(tmp_path / "taken")}
    del environment["FIFTYONE_DATABASE_URI"]
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    [line] = done.stdout.splitlines()
    assert line.startswith(f"FiftyOne's database does not start (Database directory `{tmp_path}/taken` cannot be")
    assert line.endswith(
        "`make database` installs another one, and FIFTYONE_DATABASE_DIR=FOLDER moves its data to another folder"
    )


def test_a_port_in_use_is_reported(validated: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            PipelineError,
            match=f"port {port} is in use; stop the other program, or run .* inspect .* --port {port + 1}$",
        ):
            inspect.main(Inspect(), validated, port=port)
    with pytest.raises(PipelineError, match="--port 70000: ports are 1 to 65535"):
        inspect.main(Inspect(), validated, port=70000)


@needs_database
def test_the_app_listens_on_this_machine_only_and_exits(validated: Run, tmp_path: Path) -> None:
    with app(tmp_path, 5163) as address:
        assert address == "http://127.0.0.1:5163/datasets/tiny"
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"FiftyOne" in page.read()
        listening = Path("/proc/net/tcp")
        if listening.is_file():  # local address in hex, state 0A: listening
            rows = [row.split() for row in listening.read_text().splitlines()[1:]]
            assert [row[1] for row in rows if row[3] == "0A" and row[1].endswith(":142B")] == ["0100007F:142B"]
