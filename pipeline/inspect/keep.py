"""Keep what people added to a data set when it is built again: their tags, fields and saved views.

Tags that mean fixes are not among them: they are saved first, and what they ask for is then in the labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline.inspect.contents import ORDER
from pipeline.inspect.dataset import SOURCE, TRUTH, Model
from pipeline.inspect.tags import WORDS

OURS = "fields"  # key in the data set's own info: the fields that we made
# Of data sets made before OURS was noted: fields of an evaluation of any run.
OF_A_RUN = re.compile(r"(predictions|eval|error)(_|$)")
NOT_THEIRS = {*ORDER, *WORDS}


def note_fields(dataset: Any) -> None:
    """Note which fields are ours, before people add theirs. The caller saves `info`."""
    dataset.info[OURS] = sorted(dataset.get_field_schema())


def carry_over(old: Any, new: Any) -> list[str]:
    """Add people's tags, fields and views of `old` to `new`. Return what could not be carried over, in words."""
    if not old.has_field(SOURCE):  # made by an earlier version: images cannot be told apart for sure
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
        if new.has_field(name):  # a run that is compared now has that name
            lost.append(f"the field {name!r}")
            continue
        new.merge_samples(old.select_fields([SOURCE, name]), key_field=SOURCE, fields=[SOURCE, name], insert_new=False)
    return lost


def _tags(old: Any, new: Any) -> list[str]:
    from fiftyone import ViewField as F

    lost = []
    for tag in sorted(set(old.distinct("tags")) - NOT_THEIRS):
        tagged = old.match_tags(tag).values(SOURCE)
        found = new.match(F(SOURCE).is_in(tagged))
        found.tag_samples(tag)
        if (gone := len(tagged) - found.count()) > 0:
            lost.append(f"the tag {tag!r} of {gone} images that are no longer there")
    return lost


def _tags_of_boxes(old: Any, new: Any) -> list[str]:
    """Carry over the tags of boxes, matched by field, class and place; return lines on tags that were lost."""
    lost: Counter[str] = Counter()
    for path in (TRUTH, Model().predictions):
        tags = set(old.distinct(f"{path}.detections.tags")) - NOT_THEIRS
        if not tags:
            continue
        tagged = {key: own for key, _, own in _boxes(old, path, tags) if own}
        there = {key: identity for key, identity, _ in _boxes(new, path, None)}
        for tag in sorted(tags):
            wanted = [key for key, own in tagged.items() if tag in own]
            ids = [there[key] for key in wanted if key in there]
            if ids:
                new.select_labels(ids=ids, fields=path).tag_labels(tag, label_fields=path)
            lost[tag] += len(wanted) - len(ids)
    return [f"the tag {tag!r} of {number} boxes that are no longer there" for tag, number in lost.items() if number]


def _boxes(dataset: Any, path: str, tags: set[str] | None) -> Iterator[tuple[Any, str, set[str]]]:
    """Yield image, class and place of every box as one key, its id, and which of `tags` it has."""
    view = dataset.match_labels(tags=list(tags), fields=path) if tags else dataset
    boxes = f"{path}.detections"
    columns = view.values([SOURCE, *(f"{boxes}.{name}" for name in ("label", "bounding_box", "id", "tags"))])
    for source, labels, places, ids, tagged in zip(*columns, strict=True):
        for label, place, identity, own in zip(labels or (), places or (), ids or (), tagged or (), strict=True):
            yield (source, label, *(round(side, 6) for side in place)), identity, set(own or ()) & (tags or set())


def _views(old: Any, new: Any) -> list[str]:
    lost = []
    for name in sorted(set(old.list_saved_views()) - set(new.list_saved_views())):
        try:
            view = old.load_saved_view(name)
            again = new.view()
            for stage in view._stages:
                again = again.add_stage(stage)
            again.count()  # it refers to nothing that is gone
            info = old.get_saved_view_info(name)
            new.save_view(name, again, description=info.get("description"), color=info.get("color"))
        except Exception:  # FiftyOne's stages raise as many kinds as there are stages
            lost.append(f"the saved view {name!r}")
    return lost
