"""Pascal VOC: one XML an image, `ImageSets/Main/{train,val,test}.txt` or folders of those names.

Corners are taken as they stand. The original VOC counted pixels from 1 and included the last one;
today's labelling tools do not, and a shift of half a pixel is below what anybody labels to.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.source import Source, files_under, images_under, inside, read_text, split_of
from pipeline.run import SPLITS


def recognises(folder: Path) -> bool:
    return any(path for path in files_under(folder, {".xml"}) if _root_tag(path) == "annotation")


def read(folder: Path) -> Source:
    lists = {split: folder / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS}
    split_by_stem = _read_lists({split: path for split, path in lists.items() if path.is_file()})

    image_by_key: dict[tuple[str, str | None], Path] = {}
    images = images_under(folder)
    for image in images:
        key = (image.stem, split_of(image.parent.name))
        if key in image_by_key:
            raise DataError(f"{image}: has the stem of {image_by_key[key]}; rename one image and its XML")
        image_by_key[key] = image

    labelled, annotated = [], set()
    for xml in files_under(folder, {".xml"}):
        folder_split = split_of(xml.parent.name)
        image = _image_of(xml, image_by_key, folder_split, folder)
        split = split_by_stem.get(xml.stem) if split_by_stem else folder_split
        boxes, size = _read_xml(xml)
        annotated.add(image)
        labelled.append(Labelled(image, boxes, xml, size, split))
    for image in images:
        if image not in annotated:
            split = split_by_stem.get(image.stem) if split_by_stem else split_of(image.parent.name)
            labelled.append(Labelled(image, (), None, None, split))

    missing = sorted(split_by_stem.keys() - {item.image.stem for item in labelled})
    if missing:
        name = lists[split_by_stem[missing[0]]]
        raise DataError(f"{name}: lists {missing[0]!r}, which has neither image nor XML; take the line out")
    labelled.sort(key=lambda item: item.image)
    return Source(tuple(labelled), None, has_splits=any(item.split for item in labelled))


def _read_lists(lists: dict[str, Path]) -> dict[str, str]:
    split_by_stem: dict[str, str] = {}
    for split, path in lists.items():
        for line in read_text(path).splitlines():
            if words := line.split():
                earlier = split_by_stem.setdefault(words[0], split)
                if earlier != split:
                    raise DataError(f"{path}: {words[0]!r} is also in {earlier}.txt; take it out of one of them")
    return split_by_stem


def _image_of(
    xml: Path, image_by_key: dict[tuple[str, str | None], Path], folder_split: str | None, folder: Path
) -> Path:
    # By the name of the XML first: the <filename> inside is often the one from before a renaming.
    for split in (folder_split, None):
        if image := image_by_key.get((xml.stem, split)):
            return image
    named = _parse(xml).findtext("filename", "").strip()
    if named:
        image = inside(folder, named, xml.parent, xml)
        if image.is_file():
            return image
    raise DataError(
        f"{xml}: its image is missing (looked for {xml.stem}.* and {named!r}); restore it or remove the XML"
    )


def _read_xml(xml: Path) -> tuple[tuple[Box, ...], tuple[int, int] | None]:
    root = _parse(xml)
    if root.tag != "annotation":
        raise DataError(f"{xml}: <{root.tag}> instead of <annotation>: not Pascal VOC; remove it from the source")
    boxes = []
    for number, item in enumerate(root.iter("object"), start=1):
        label = item.findtext("name", "").strip()
        if not label:
            raise DataError(f"{xml}: object {number}: no <name>; name its class")
        bndbox = item.find("bndbox")
        xmin, ymin, xmax, ymax = (_number(xml, number, label, bndbox, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append(Box(label, xmin, ymin, xmax, ymax, id=f"object {number}"))
    size = root.find("size")
    width, height = (_int(size.findtext(tag)) if size is not None else 0 for tag in ("width", "height"))
    return tuple(boxes), (width, height) if width and height else None


def _number(xml: Path, number: int, label: str, bndbox: Element | None, tag: str) -> float:
    text = None if bndbox is None else bndbox.findtext(tag)
    try:
        return float(text or "")
    except ValueError:
        raise DataError(f"{xml}: object {number} ({label}): {tag} is {text!r}, not a number; correct it") from None


def _int(text: str | None) -> int:
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):
        return 0


def _parse(xml: Path) -> Element:
    try:
        root = parse(xml).getroot()
    except ParseError as error:
        raise DataError(f"{xml}: not well-formed XML ({error}); write it again") from None
    except DefusedXmlException:
        raise DataError(
            f"{xml}: defines XML entities, which no annotation needs and which can do harm; remove them"
        ) from None
    except (LookupError, ValueError, RecursionError) as error:  # unknown encodings, absurd nesting
        raise DataError(f"{xml}: cannot be read as XML ({error}); write it again as UTF-8") from None
    assert root is not None
    return root


def _root_tag(xml: Path) -> str:
    return _parse(xml).tag
