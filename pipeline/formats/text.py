"""Read text, numbers, XML, tables and image headers from files that are not trusted."""

from __future__ import annotations

import csv
import io
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse
from PIL import Image

from pipeline import orientation
from pipeline.errors import DataError, counted
from pipeline.walk import LONGEST_LINK, link_as_text

DELIMITERS = ",;\t"
RAGGED = "\n"  # no column has this name
_FIRST_TAG = re.compile(r"<([A-Za-z_][\w.:-]*)")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_NO_LABELS = re.compile(r"readme.*|licen[cs]e", re.IGNORECASE)
TAIL = 1 << 16  # bytes; EXIF is never longer


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line that is not blank, with its number from 1. Raises DataError if the file is not UTF-8."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield number, line


def is_about(path: Path) -> bool:
    """Return whether a text is about its folder, by its name, and so holds no labels even if it lies among them."""
    return bool(_NO_LABELS.fullmatch(path.stem))


def head(path: Path) -> str:
    """Return the first 64 KiB of a file as text in any encoding: enough to tell one JSON format from another.

    This way a broken file is still recognised and refused by name, not skipped.
    """
    with path.open("rb") as file:
        data = file.read(1 << 16)
    # UTF-16 is refused when the file is read; here its letters are enough.
    return data.replace(b"\0", b"").decode("utf-8", errors="replace").lstrip("\ufeff\ufffd \t\r\n")


_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


def show(value: Any) -> str:
    """Return a value from a file as one short line, however long or deep it is."""
    return _shown.repr(value)


def numbers(texts: Mapping[str, str | None]) -> list[float]:
    """Return the values as numbers in order; NaN and infinity are left for `convert` to judge.

    Raises ValueError with the first value that is not a number.
    """
    values = []
    for name, text in texts.items():
        try:
            if text is None or "_" in text:  # Python reads 1_0 as ten
                raise ValueError
            values.append(float(text))
        except ValueError:
            raise ValueError(f"{name} is {show(text)}, not a number") from None
    return values


def is_whole_number(text: str) -> bool:
    """Return whether a text is a whole number that `int` reads, of at most nine digits."""
    return text.isdecimal() and len(text) < 10


def size(width: str | None, height: str | None) -> tuple[int, int] | None:
    """Return a declared size; None if it is missing, zero or not a number."""
    try:
        sides = [int(side) for side in numbers({"width": width, "height": height})]
    except (ValueError, OverflowError):
        return None
    return (sides[0], sides[1]) if all(0 < side < 2**31 for side in sides) else None


def parse_xml(path: Path) -> Element:
    """Return the root of an XML file. Raises DataError if it is broken or defines entities."""
    try:
        root = parse(path).getroot()
    except ParseError as error:
        if link := link_as_text(path.read_bytes()[: LONGEST_LINK + 1]):
            raise DataError(f"{path}: is {link}; put the file there") from None
        raise DataError(f"{path}: not well-formed XML ({error}); export it again") from None
    except DefusedXmlException:
        raise DataError(
            f"{path}: defines XML entities, which no annotation needs and which can do harm; remove them"
        ) from None
    except (LookupError, ValueError, RecursionError) as error:  # unknown encodings, absurd nesting
        raise DataError(f"{path}: cannot be read as XML ({error}); save it as UTF-8") from None
    assert root is not None
    return root


def first_tag(head: str) -> str:
    """Return the first tag of an XML file from its head, so that a broken file is recognised and refused by name."""
    match = _FIRST_TAG.search(_COMMENT.sub("", head))
    return match[1] if match else ""


def columns(text: str) -> tuple[list[str], str]:
    """Return the column names of a table and its delimiter: comma, semicolon or tab, the most frequent in line 1."""
    first = text.partition("\n")[0].rstrip("\r")
    delimiter = max(DELIMITERS, key=first.count)
    try:
        return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])], delimiter
    except csv.Error:  # a field too long; `rows` reports it
        return [], delimiter


def rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a table that is not empty, the first line included, with its line number.

    Raises DataError if the text is not a table.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 0
    try:
        for row in reader:
            if reader.line_num != line + 1:  # it swallows the rows that follow, up to the next quote
                raise csv.Error("a quote is not closed on its line")
            line += 1
            if any(map(str.strip, row)):
                yield line, row
    except csv.Error as error:
        raise DataError(f"{path}: line {line + 1}: not a table ({error}); export it again") from None


def records(
    path: Path, text: str, names: Sequence[str], delimiter: str, has_header: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the values by column of each row below the header.

    If the number of values is wrong, for example because of a comma in a class name, `RAGGED` says so.
    """
    table = rows(path, text, delimiter)
    if has_header:
        next(table, None)
    for number, row in table:
        record = dict.fromkeys(names, "") | dict(zip(names, map(str.strip, row), strict=False))
        if len(row) < len(names) or any(map(str.strip, row[len(names) :])):
            record[RAGGED] = f"{counted(len(row), 'value')} in {len(names)} columns"
        yield number, record


def upright_size(image: Path) -> tuple[int, int] | None:
    """Return width and height of the image as EXIF turns it, from its header; None if there is no such image."""
    try:
        with Image.open(image) as opened:
            # Pillow decodes a whole PNG to look for EXIF after the pixels, so check first whether there may be any.
            if opened.format == "PNG" and "exif" not in opened.info and b"eXIf" not in _tail(image):
                return opened.size
            return orientation.size(opened)
    except Exception:  # Pillow raises a dozen types on damaged files; `convert` decides whether it matters
        return None


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()
