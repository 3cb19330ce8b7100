"""Pascal VOC: one XML per image; splits from `ImageSets/Main/{train,val,test}.txt` or from folder names.

Corners are used as given. The original VOC counted pixels from 1 and included the last one; today's labelling tools do
not, and nobody labels to half a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.boxes import Box, Labelled, check_sides
from pipeline.errors import DataError, and_more
from pipeline.formats.matching import has_image_suffix
from pipeline.formats.pairing import Images, by_image, by_name, split_lists
from pipeline.formats.paths import inside
from pipeline.formats.shapes import around_turned, turned
from pipeline.formats.source import Source, damaged, source_of
from pipeline.formats.splits import folder_split
from pipeline.formats.text import first_tag, numbers, parse_xml, show, size
from pipeline.formats.tree import Tree

SHAPES = ("bndbox", "robndbox", "polygon")  # of an object, in the order to look for one
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MOST_RADIANS = 4 * math.pi  # some tools write more than one full turn; beyond two turns the number is no angle
DELETED = "deleted in LabelMe, which leaves deleted shapes in the file"
XML_HOMES = {"Annotations": "JPEGImages", "labels": "images"}


def recognises(tree: Tree) -> bool:
    return any(first_tag(text) == "annotation" for text in tree.heads({".xml"}))


def read(folder: Path, orphans: bool = False) -> Source:
    """Read every image; with `orphans`, lines of the lists of splits that fit no image are left out with a note."""
    tree = Tree(folder)
    images = Images(tree)
    roots = {xml: _root(xml) for xml in tree.files({".xml"})}
    image_by_xml = _images_of(tree, roots, images)

    known = {path.stem for path in [*images.all, *roots]}
    split_by_stem = split_lists(tree, ("ImageSets", "Main"), known, "XML", orphans)

    def split(path: Path) -> str | None:
        return split_by_stem.get(path.stem) if split_by_stem else folder_split(folder, path)

    labelled = []
    for xml, root in roots.items():
        image = image_by_xml[xml]
        sides = root.find("size")
        declared = None if sides is None else size(sides.findtext("width"), sides.findtext("height"))
        labelled.append(Labelled(image, _boxes(root), xml, declared, split(xml) or split(image)))
    annotated = set(image_by_xml.values())
    labelled += [Labelled(image, (), None, None, split(image)) for image in images.all if image not in annotated]
    labelled.sort(key=lambda item: item.image)
    return source_of(tree, labelled, None)


def _root(xml: Path) -> Element:
    root = parse_xml(xml)
    if root.tag != "annotation":
        raise DataError(
            f"{xml}: <{root.tag}> instead of <annotation>, so this is not Pascal VOC; "
            "remove it from the source, or set convert.format"
        )
    return root


def _images_of(tree: Tree, roots: dict[Path, Element], images: Images) -> dict[Path, Path]:
    """Return the image of each XML, or its expected path.

    The name of the XML counts first, because the <filename> inside is often out of date after renaming or copying. The
    latter counts only for an image whose stem no XML has.
    """
    folder = tree.folder
    free = set(images.all)

    def found(xml: Path, stem: str) -> Path | None:
        named = _filename(roots[xml])

        def fits(image: Path) -> bool:
            return image in free and not tree.is_mask(image.relative_to(folder).as_posix(), named, xml)

        return images.of_stem(stem, xml, folder_split(folder, xml), fits, prefer=PurePosixPath(named).name)

    image_by_xml = {xml: image for xml in roots if (image := found(xml, xml.stem))}
    _note_other_names(tree, roots, image_by_xml)
    free.difference_update(image_by_xml.values())
    for xml in [xml for xml in roots if xml not in image_by_xml]:
        named = _filename(roots[xml])
        if named and (image := found(xml, PurePosixPath(named).stem)):
            image_by_xml[xml] = image
    image_by_xml = by_name(tree, roots, image_by_xml, lambda xml: [xml.stem, _filename(roots[xml])])
    for xml in [xml for xml in roots if xml not in image_by_xml]:
        image_by_xml[xml] = _missing(folder, xml, _filename(roots[xml]))

    by_image(image_by_xml)
    return image_by_xml


def _note_other_names(tree: Tree, roots: Mapping[Path, Element], image_by_xml: Mapping[Path, Path]) -> None:
    """Note each <filename> that is another image's, whose own XML does not name it: one of the two names is wrong."""
    named = {xml: PurePosixPath(_filename(roots[xml])).name for xml in image_by_xml}
    existing = {image.name for image in image_by_xml.values()}
    rightly = {named[xml] for xml, image in image_by_xml.items() if named[xml] == image.name}
    others = [
        xml
        for xml, image in image_by_xml.items()
        if named[xml] in existing - rightly and PurePosixPath(named[xml]).stem != image.stem
    ]
    if others:
        xml = others[0]
        tree.notes.append(
            f"{xml.relative_to(tree.folder).as_posix()}: its <filename> is {show(named[xml])}, but its boxes are on "
            f"{image_by_xml[xml].name}, which has the name of the XML: check which is right{and_more(others)}"
        )


def _filename(root: Element) -> str:
    return root.findtext("filename", "").strip().replace("\\", "/")


def _missing(folder: Path, xml: Path, named: str) -> Path:
    inside(folder, named, xml.parent, xml)
    suffix = PurePosixPath(named).suffix if has_image_suffix(named) else ".jpg"
    parts = [XML_HOMES.get(part, part) for part in xml.relative_to(folder).parts]
    return folder.joinpath(*parts).with_name(f"{xml.stem}{suffix}")


def _boxes(root: Element) -> tuple[Box, ...]:
    # Direct children only: an object may have <part>s with boxes, such as a person's head, which are not objects.
    boxes: list[Box] = []
    for number, item in enumerate(root.findall("object"), start=1):
        boxes.append(_box(item, f"object {number}"))
        shapes = next(filter(None, map(item.findall, SHAPES)), [])
        why = f"a further <{shapes[0].tag}>; write an <object> for each" if shapes else ""
        boxes += [damaged(why, boxes[-1].label, f"object {number}, shape {n}") for n in range(2, len(shapes) + 1)]
    for wrapper in root:
        if wrapper.tag != "object":
            why = f"in <{wrapper.tag}>; put each <object> directly into <annotation>"
            below = enumerate(wrapper.iter("object"), start=1)
            boxes += [
                damaged(why, item.findtext("name", "").strip(), f"{wrapper.tag}, object {n}") for n, item in below
            ]
    return tuple(boxes)


def _box(item: Element, identity: str) -> Box:
    label = item.findtext("name", "").strip()
    if item.findtext("deleted", "").strip() == "1":
        return damaged("", label, identity, DELETED)
    if not label:
        return damaged("no <name>", id=identity)
    try:
        xmin, ymin, xmax, ymax = _corners(item)
    except ValueError as error:
        return damaged(str(error), label, identity)
    return Box(label, xmin, ymin, xmax, ymax, identity)


def _corners(item: Element) -> tuple[float, ...]:
    """Return the corners of a box, or around a rotated box (roLabelImg) or polygon (Labelbox, LabelMe's web tool)."""
    bndbox, rotated, polygon = item.find("bndbox"), item.find("robndbox"), item.find("polygon")
    if bndbox is None and rotated is not None:
        cx, cy, width, height, angle = numbers({tag: rotated.findtext(tag) for tag in ("cx", "cy", "w", "h", "angle")})
        if not abs(angle) <= MOST_RADIANS:
            raise ValueError(f"angle is {angle:g} radians, more than two turns")
        check_sides(width, height)
        return around_turned(cx, cy, width, height, angle)
    if bndbox is None and polygon is not None:
        return _around(polygon)
    if bndbox is not None and bndbox.find("x1") is not None:  # four corners
        return _around(bndbox)
    texts = {child.tag.lower(): child.text for child in ([] if bndbox is None else bndbox)}
    xmin, ymin, xmax, ymax = numbers({tag: texts.get(tag) for tag in CORNERS})
    return turned((xmin, ymin, xmax, ymax), _rotation(item))


def _rotation(item: Element) -> float:
    """Return the rotation in degrees that CVAT writes beside an unturned box; 0 if there is none."""
    for attribute in item.iterfind("attributes/attribute"):
        if attribute.findtext("name") == "rotation":
            with suppress(ValueError):  # an attribute of the user's own
                return numbers({"rotation": attribute.findtext("value")})[0]
    return 0.0


def _around(shape: Element) -> tuple[float, ...]:
    """Return the corners around `x1 y1 x2 y2 ...`, or around `pt`s with an `x` and a `y`."""
    points = {f"{axis}{n}": pt.findtext(axis) for n, pt in enumerate(shape.findall("pt"), start=1) for axis in "xy"}
    points = points or {child.tag.lower(): child.text for child in shape if child.tag[:1].lower() in ("x", "y")}
    sides = {axis: numbers({tag: text for tag, text in points.items() if tag[0] == axis}) for axis in "xy"}
    if len(sides["x"]) != len(sides["y"]) or len(sides["x"]) < 3:
        raise ValueError(f"{len(sides['x'])} x and {len(sides['y'])} y; a shape has three points or more")
    if not all(map(math.isfinite, [*sides["x"], *sides["y"]])):
        raise ValueError("points are not finite numbers")
    return min(sides["x"]), min(sides["y"]), max(sides["x"]), max(sides["y"])
