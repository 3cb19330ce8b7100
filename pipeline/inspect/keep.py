"""Keep what people added to a dataset when it is rebuilt: their tags, fields and saved views.

Tags for fixes are not among them, because they are saved first and the labels then contain the fixes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline.inspect.contents import ORDER
from pipeline.inspect.dataset import SOURCE, TRUTH, Model
from pipeline.inspect.tags import WORDS

OURS, OUR_VIEWS = "fields", "views"  # keys in the dataset's info: the fields and saved views that we created
# Fields of any run's evaluation, for datasets built before OURS was recorded.
OF_A_RUN = re.compile(r"(predictions|eval|error)(_|$)")
NOT_THEIRS = {*ORDER, *WORDS}


def note_ours(dataset: Any) -> None:
    """Record which fields and saved views are ours, before people add theirs. The caller saves `info`."""
    dataset.info[OURS] = sorted(dataset.get_field_schema())
    dataset.info[OUR_VIEWS] = sorted(dataset.list_saved_views())


def added(dataset: Any) -> list[str]:
    """Name what people added to a dataset. What is not known to be ours counts as theirs."""
    tags = set(dataset.distinct("tags"))
    tags.update(*(dataset.distinct(f"{path}.detections.tags") for path in _boxes_of(dataset)))
    fields, views = ({*dataset.info.get(key, ())} for key in (OURS, OUR_VIEWS))
    return [
        *(f"the field {name!r}" for name in dataset.get_field_schema() if name not in fields),
        *(f"the tag {tag!r}" for tag in sorted(tags - NOT_THEIRS)),
        *(f"the saved view {name!r}" for name in dataset.list_saved_views() if name not in views),
    ]


def _boxes_of(dataset: Any) -> list[str]:
    """Return the fields with boxes: the labels, and the predictions of each model."""
    return [name for name in dataset.get_field_schema() if name == TRUTH or name.startswith(Model().predictions)]


def carry_over(old: Any, new: Any) -> list[str]:
    """Add people's tags, fields and views from `old` to `new`. Return descriptions of what was lost."""
    if not old.has_field(SOURCE):  # built by an earlier version: its images cannot be identified reliably
        tags = sorted(set(old.distinct("tags")) - NOT_THEIRS)
        return [f"the tag {tag!r}" for tag in tags]
    return [*_fields(old, new), *_tags(old, new), *_tags_of_boxes(old, new), *_views(old, new)]


def _fields(old: Any, new: Any) -> list[str]:
    ours = old.info.get(OURS)
    known = set(ours) if ours else {*new.get_field_schema()}
    schema = old.get_field_schema()
    theirs = [name for name in schema if name not in known and (ours or not OF_A_RUN.match(name))]
    lost = []
    for name in theirs:
        if new.has_field(name):  # the run to compare with now uses that name
            lost.append(f"the field {name!r}")
            continue
        new.merge_samples(old.select_fields([SOURCE, name]), key_field=SOURCE, fields=[SOURCE, name], insert_new=False)
    return lost


def _tags(old: Any, new: Any) -> list[str]:
    from fiftyone import ViewField as F

    lost = []
    for tag in sorted(set(old.distinct("tags")) - NOT_THEIRS):
        tagged = old.match_tags(tag).values(SOURCE)
        view = new.match(F(SOURCE).is_in(tagged))
        view.tag_samples(tag)
        if (gone := len(tagged) - view.count()) > 0:
            lost.append(f"the tag {tag!r} of {gone} images that are no longer there")
    return lost


def _tags_of_boxes(old: Any, new: Any) -> list[str]:
    """Carry over the tags of boxes, matched by field, class and place. Return descriptions of what was lost."""
    lost: Counter[str] = Counter()
    for path in _boxes_of(old):
        tags = set(old.distinct(f"{path}.detections.tags")) - NOT_THEIRS
        if not tags:
            continue
        tagged = {key: box_tags for key, _, box_tags in _boxes(old, path, tags) if box_tags}
        ids_of = {key: identity for key, identity, _ in _boxes(new, path, None)} if new.has_field(path) else {}
        for tag in sorted(tags):
            wanted = [key for key, box_tags in tagged.items() if tag in box_tags]
            ids = [ids_of[key] for key in wanted if key in ids_of]
            if ids:
                new.select_labels(ids=ids, fields=path).tag_labels(tag, label_fields=path)
            lost[tag] += len(wanted) - len(ids)
    return [f"the tag {tag!r} of {number} boxes that are no longer there" for tag, number in lost.items() if number]


def _boxes(dataset: Any, path: str, tags: set[str] | None) -> Iterator[tuple[Any, str, set[str]]]:
    """Yield a key of image, class and place for every box, its id, and those of `tags` that it has."""
    view = dataset.match_labels(tags=list(tags), fields=path) if tags else dataset
    boxes = f"{path}.detections"
    columns = view.values([SOURCE, *(f"{boxes}.{name}" for name in ("label", "bounding_box", "id", "tags"))])
    for source, labels, places, ids, tagged in zip(*columns, strict=True):
        for label, place, identity, box_tags in zip(labels or (), places or (), ids or (), tagged or (), strict=True):
            yield (source, label, *(round(side, 6) for side in place)), identity, set(box_tags or ()) & (tags or set())


def _views(old: Any, new: Any) -> list[str]:
    lost = []
    for name in sorted(set(old.list_saved_views()) - set(new.list_saved_views())):
        try:
            view = old.load_saved_view(name)
            copy = new.view()
            for stage in view._stages:
                copy = copy.add_stage(stage)
            copy.count()  # raises if the view refers to something that is gone
            info = old.get_saved_view_info(name)
            new.save_view(name, copy, description=info.get("description"), color=info.get("color"))
        except Exception:  # FiftyOne's stages raise errors of many types
            lost.append(f"the saved view {name!r}")
    return lost
