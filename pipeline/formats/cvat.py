"""CVAT 1.1: one XML for many images, `<image name= width= height= subset=>`, or for the tracks of a video.

The export of a project gives each image or track a `subset`; otherwise folders and file names give the splits. The
frames of a video are `frame_000000` and so on, as CVAT writes them.
"""

from __future__ import annotations

import math
import posixpath
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats import cvat_video
from pipeline.formats.cvat_video import MOST_FRAMES, Video
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Corners, Size
from pipeline.formats.shapes import around_ellipse, check_rotation, corners, turned
from pipeline.formats.source import NAN, NoBox, Source, damaged
from pipeline.formats.splits import folder_split, split_of, split_of_folders
from pipeline.formats.text import first_tag, is_whole_number, numbers, parse_xml, show, size
from pipeline.formats.tree import Tree

NO_BOXES = {
    "polyline": NoBox("a polyline: it encloses nothing"),
    "points": NoBox("points: they enclose nothing"),
    "tag": "a tag of the whole image",
    "skeleton": NoBox("a skeleton, not a box"),
    "cuboid": NoBox("a cuboid, not a box"),
}


def recognises(tree: Tree) -> bool:
    return any(first_tag(text) == "annotations" for text in tree.heads({".xml"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    classes: dict[str, None] = {}  # an ordered set
    pictures = cvat_video.pictures(tree)
    for xml in tree.files({".xml"}):
        root = parse_xml(xml)
        if root.tag != "annotations":
            raise DataError(
                f"{xml}: <{root.tag}> instead of <annotations>, so this is not CVAT; "
                "remove it from the source, or set convert.format"
            )
        classes.update(dict.fromkeys(_classes(root)))
        images = [_image(item, number, xml, tree) for number, item in enumerate(root.findall("image"), start=1)]
        if root.find("track") is not None:
            images += _frames(root, xml, tree, pictures)
        # `homes` include the subset.
        places = Counter((image.wanted.name, tuple(image.wanted.homes)) for image in images)
        if twice := [name for (name, _), count in places.items() if count > 1]:
            raise DataError(f"{xml}: {show(twice[0])} appears twice, as if in two videos; export each task separately")
        described += images
    used = {box.label for image in described for box in image.boxes if not box.ignore and not box.damage}
    classes.update(dict.fromkeys(sorted(used)))
    return complete(tree, described, tuple(classes))


def _classes(root: Element) -> list[str]:
    """Return the labels of the task in order, without those of tags, lines and parts of skeletons."""
    labels = root.iterfind("meta//label")
    names = [label.findtext("name", "").strip() for label in labels if label.findtext("type", "") not in NO_BOXES]
    return [name for name in names if name]


def _image(item: Element, number: int, xml: Path, tree: Tree) -> Described:
    name = item.get("name", "")
    if not name:
        raise DataError(f"{xml}: image {number} has no name; give its file name")
    boxes = [_box(shape, f"{name}, shape {index}") for index, shape in enumerate(item, start=1)]
    declared = size(item.get("width"), item.get("height"))
    return Described(_wanted(name, item.get("subset", ""), xml, tree), boxes, declared)


def _wanted(name: str, subset: str, xml: Path, tree: Tree) -> Wanted:
    home, *others = tree.homes(xml)
    folders = name.replace("\\", "/").rpartition("/")[0]
    candidates = [split_of(subset), split_of_folders(folders), split_of(xml.stem), folder_split(tree.folder, xml)]
    homes = [posixpath.normpath(f"{home}/images"), posixpath.normpath(f"{home}/images/{subset}")]
    return Wanted(name, [home, *homes, *others], next(filter(None, candidates), None), xml)


def _frames(root: Element, xml: Path, tree: Tree, pictures: Mapping[str, set[int]]) -> list[Described]:
    """Return the frames of videos with the boxes of their tracks; images of frames without a box are background.

    Boxes between two shapes of a track are interpolated linearly, as in CVAT, onto the frames that exist as images.
    """
    videos, tracks = cvat_video.videos(root), root.findall("track")
    boxes: dict[tuple[str, int], list[Box]] = {}  # by subset and frame
    known: dict[str, list[int]] = {}  # frames with an image, by subset
    for subset in dict.fromkeys([video.subset for video in videos] + [track.get("subset", "") for track in tracks]):
        ranges = [video.numbers for video in videos if video.subset == subset and video.numbers]
        there = cvat_video.existing(pictures, _wanted("", subset, xml, tree).homes, subset)
        known[subset] = sorted(n for n in there if not ranges or any(n in numbers for numbers in ranges))
        boxes |= {(subset, number): [] for number in known[subset] if ranges}
    for number, track in enumerate(tracks, start=1):
        _add_track(track, number, xml, videos, known[track.get("subset", "")], boxes)
    if not any(boxes.values()):
        raise DataError(f'{xml}: holds a <track>, so it is a video; export the task from CVAT as "CVAT for images 1.1"')

    def declared(subset: str, frame: int) -> Size | None:
        sizes = (video.size for video in videos if video.subset == subset and frame in video.numbers)
        return next(sizes, None if videos else cvat_video.original_size(root))

    return [
        Described(
            _wanted(posixpath.join(subset, f"frame_{frame:06}"), subset, xml, tree),
            frame_boxes,
            declared(subset, frame),
        )
        for (subset, frame), frame_boxes in sorted(boxes.items())
    ]


def _add_track(
    track: Element,
    number: int,
    xml: Path,
    videos: Sequence[Video],
    known: Sequence[int],
    boxes: dict[tuple[str, int], list[Box]],
) -> None:
    """Add the boxes of a track to its frames, and those between two shapes to `known` frames."""
    label, subset, last = track.get("label", ""), track.get("subset", ""), None
    end = max((video.last for video in videos if video.subset == subset), default=MOST_FRAMES - 1)
    for index, shape in enumerate(track, start=1):
        frame = shape.get("frame", "")
        if not is_whole_number(frame) or int(frame) > end:
            raise DataError(
                f"{xml}: track {number}, shape {index}: frame is {show(frame)}, not one of 0 to {end}; correct it"
            )
        shape.set("label", label)
        box = _box(shape, f"track {number}, frame {frame}")
        if last and last[1] is not None:
            for between_frame in known[bisect_right(known, last[0]) : bisect_left(known, int(frame))]:
                share = (between_frame - last[0]) / (int(frame) - last[0])
                boxes.setdefault((subset, between_frame), []).append(
                    _between(last[1], box, share, f"track {number}, frame {between_frame}")
                )
        is_outside = shape.get("outside") == "1"
        if shape.get("outside", "0") not in ("0", "1"):
            box = damaged(f"outside is {show(shape.get('outside'))}, not 0 or 1", label, box.id)
        if not is_outside:
            boxes.setdefault((subset, int(frame)), []).append(box)
        last = (int(frame), None if is_outside or box.damage or box.ignore else box)


def _between(first: Box, last: Box, share: float, identity: str) -> Box:
    pairs = zip(first[1:5], last[1:5] if last.is_finite else first[1:5], strict=True)
    xmin, ymin, xmax, ymax = (start + (end - start) * share for start, end in pairs)
    return Box(first.label, xmin, ymin, xmax, ymax, identity)


def _box(shape: Element, identity: str) -> Box:
    label = shape.get("label", "").strip()
    if shape.tag in NO_BOXES:
        return Box(label, NAN, NAN, NAN, NAN, identity, ignore=NO_BOXES[shape.tag])
    if shape.tag not in CORNERS_OF:
        return damaged(f"<{shape.tag[:40]}> is not a shape of CVAT 1.1", label, identity)
    if not label:
        return damaged(f"a {shape.tag} without a label", id=identity)
    try:
        xmin, ymin, xmax, ymax = CORNERS_OF[shape.tag](shape)
    except ValueError as error:
        return damaged(str(error), label, identity)
    return Box(label, xmin, ymin, xmax, ymax, identity)


def _attributes(shape: Element, *names: str) -> list[float]:
    return numbers({name: shape.get(name) for name in names})


def _of_box(shape: Element) -> Corners:
    xmin, ymin, xmax, ymax = _attributes(shape, "xtl", "ytl", "xbr", "ybr")
    return turned((xmin, ymin, xmax, ymax), _rotation(shape))


def _of_ellipse(shape: Element) -> Corners:
    cx, cy, rx, ry = _attributes(shape, "cx", "cy", "rx", "ry")
    return around_ellipse(cx, cy, rx, ry, _rotation(shape))


def _rotation(shape: Element) -> float:
    """Return the rotation in degrees. Raises ValueError if it is not a valid angle."""
    (degrees,) = numbers({"rotation": shape.get("rotation", "0")})
    return check_rotation(degrees)


def _of_polygon(shape: Element) -> Corners:
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise ValueError("points are not three or more x,y")
    xs = [numbers({"a point's x": x})[0] for x, _ in points]
    ys = [numbers({"a point's y": y})[0] for _, y in points]
    if not all(map(math.isfinite, [*xs, *ys])):
        raise ValueError("points are not finite numbers")
    return min(xs), min(ys), max(xs), max(ys)


def _of_mask(shape: Element) -> Corners:
    return corners(*_attributes(shape, "left", "top", "width", "height"))


CORNERS_OF: Mapping[str, Callable[[Element], Corners]] = {
    "box": _of_box,
    "polygon": _of_polygon,
    "ellipse": _of_ellipse,
    "mask": _of_mask,
}
