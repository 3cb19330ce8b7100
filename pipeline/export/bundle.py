"""Write a zip that a device can check by itself: model, model.json, run.py, golden images and expected detections."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import device, files, orientation, pixels
from pipeline.device import runner
from pipeline.device.runner import Detections, Spec, headers, tiles
from pipeline.errors import ExportError
from pipeline.export import texts
from pipeline.records.manifest import HashedFile

CODE = Path(device.__file__).parent  # copied unchanged
GOLDEN_IMAGES = 3
PNG_HEAD = 33  # bytes: signature and first chunk
GOLDEN_PIXELS = 1280  # longest side of a golden image, because they are stored losslessly
# Other processors sum in another order and round 8-bit numbers with other instructions.
SELFTEST = {
    "fp32": {"max_box_px": 1.0, "max_score": 5e-3},
    "fp16": {"max_box_px": 2.0, "max_score": 2e-2},
    "int8": {"max_box_px": 4.0, "max_score": 5e-2},
}
PACKAGE = {name: package for name, (_, package) in runner.RUNTIMES.items()}
LICENCES = {
    "model": "AGPL-3.0-only: weights trained with Ultralytics",
    "run.py": "AGPL-3.0-only",
    "golden images": "that of the dataset they come from",
}
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's earliest date; with a fixed one, equal content gives equal archives
UNIX = 3  # zip's number for Unix, whose file modes `unzip` restores
PROGRAMS = ("run.py", "build.py", "build.sh")


class Provenance(TypedDict, total=False):
    run: str
    source: HashedFile
    artefact_sha256: str
    proven: dict[str, float | None]
    versions: dict[str, str]


def code() -> dict[str, bytes]:
    """Return the code in every bundle by its path there: run.py and the modules that it imports."""
    paths = [CODE / "run.py", *sorted((CODE / "runner").glob("*.py"))]
    return {path.relative_to(CODE).as_posix(): path.read_bytes() for path in paths}


def packages_of(spec: Spec) -> list[str]:
    """Return the packages that an artefact needs. TorchScript with NMS needs torchvision's operator."""
    in_graph = spec["format"] == "torchscript" and spec["output"]["layout"] == "rows"
    return [PACKAGE[spec["format"]], *(["torchvision"] if in_graph else [])]


def golden(
    model: runner.Model, images: list[Path], folder: Path, lowest: float, received: Mapping[Path, Path] | None = None
) -> None:
    """Write golden images and `expected.json`, the model's detections in them with scores from `lowest`, into `folder`.

    Images are PNG, which every decoder reads alike. Those larger than a tile are cropped to parts of two neighbouring
    tiles: scaled down, their objects would shrink. `received` maps images that convert rewrote to their source files;
    the first 16-bit one and the first one rotated by EXIF keep depth and orientation, as a device gets them. Raises
    ExportError if the model finds nothing in any of them.
    """
    folder.mkdir()
    lowest = max(lowest, model.spec["output"]["conf"])  # a device shows nothing below
    expected = []
    bits = model.spec["input"]["bits"]
    parts = [_part(model, runner.read_image(path), lowest) for path in images[:GOLDEN_IMAGES]]
    for number, data in enumerate([*map(_png, parts), *_as_received(images, received or {}, bits)], start=1):
        name = f"{number}.png"
        (folder / name).write_bytes(data)
        detections = model.detect_all(runner.read_image(folder / name, bits), lowest)
        expected.append(
            {
                "file": name,
                "lowest": lowest,
                "corners": np.round(detections.corners, 3).tolist(),
                "scores": np.round(detections.scores.astype(float), 6).tolist(),
                "classes": detections.classes.tolist(),
            }
        )
    if not any(one["scores"] for one in expected):
        raise ExportError("it finds nothing in its golden images, so its self-test would compare nothing")
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def _part(model: runner.Model, image: NDArray[Any], lowest: float) -> NDArray[Any]:
    """Return the image, scaled down if necessary, or of two neighbouring tiles the part with the most detections."""
    if not model.tiles or len(runner.views(image.shape, model.tiles)) == 1:
        return _small(image)
    height, width = image.shape[:2]
    size = model.tiles["size"]
    shared = tiles.overlap(model.tiles)
    pair = 2 * size - shared
    # Of large tiles only a strip across their seam, at least as wide as the overlap.
    strip = min(size, max(GOLDEN_PIXELS**2 // pair, shared))
    sides = np.array([min(width, pair), min(height, strip)] if width > size else [min(width, strip), min(height, pair)])
    corners = model.detect_all(image, lowest).corners
    if not len(corners):
        corners = np.array([[0, 0, width, height]])
    starts = np.clip((corners[:, :2] + corners[:, 2:] - sides) // 2, 0, [width, height] - sides).astype(int)
    inside = (corners[:, :2] >= starts[:, None]) & (corners[:, 2:] <= starts[:, None] + sides)
    left, top = starts[inside.all(axis=2).sum(axis=1).argmax()]
    return image[top : top + sides[1], left : left + sides[0]]


def _small(image: NDArray[Any]) -> NDArray[Any]:
    return pixels.fit(image, GOLDEN_PIXELS)[0] if max(image.shape[:2]) > GOLDEN_PIXELS else image


def _png(image: NDArray[Any], turn: int = 1) -> bytes:
    """Encode an 8- or 16-bit PNG whose EXIF holds only the orientation, never where a photograph was taken."""
    data = pixels.png(image)
    if turn == 1:
        return data
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, headers.EXIF_ORIENTATION, 3, 1, turn, 0, 0)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    return data[:PNG_HEAD] + chunk + data[PNG_HEAD:]


def _as_received(images: list[Path], received: Mapping[Path, Path], bits: int | None) -> list[bytes]:
    """Return the first 16-bit image and the first one rotated by EXIF, unrotated, as PNG."""
    deep: list[bytes] = []
    turned: list[bytes] = []
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    for path in images:
        if deep and turned:
            break
        file = received.get(path, path)
        try:
            with Image.open(file) as opened:
                turn = orientation.of(opened) if path in received else orientation.in_dataset(opened)
            if path not in received and turn == 1:
                continue
            image = cv2.imdecode(np.fromfile(file, np.uint8), flags)
        except (OSError, ValueError, cv2.error):  # deleted since, or a format that only Pillow reads
            continue
        if image is None:
            continue
        if bits is not None and image.dtype == np.uint16 and not deep:
            deep.append(_png(_small(image), turn if turn in range(2, 9) else 1))
        elif image.dtype == np.uint8 and turn in range(2, 9) and not turned:
            turned.append(_png(_small(image), turn))
    return deep + turned


def most_to_see(found: list[Detections], images: list[Path], conf: float) -> list[Path]:
    """Return the images sorted by decreasing number of detections, so that golden images contain many."""
    counts = [int((detections.scores >= conf).sum()) for detections in found]
    order = sorted(range(len(images)), key=lambda index: (-counts[index], images[index].name))
    return [images[index] for index in order]


def write(
    target: Path,
    artefact: Path,
    spec: Spec,
    provenance: Provenance,
    goldens: Path,
    extra: dict[str, str] | None = None,
) -> None:
    """Zip the bundle as `target`. `extra` holds further text files by name."""
    folder = target.with_suffix("")
    folder.mkdir()
    try:
        model = {
            **spec,
            **provenance,
            "selftest": SELFTEST[spec["precision"]],
            "licences": LICENCES,
            "needs": ["numpy", "opencv-python-headless or pillow", *packages_of(spec)],
        }
        (folder / "model.json").write_text(files.to_json(model), encoding="utf-8")
        for name, data in code().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        text = texts.readme(spec, provenance["run"])
        needed = texts.requirements(packages_of(spec), provenance.get("versions", {}))
        for name, content in {"README.txt": text, "requirements.txt": needed, **(extra or {})}.items():
            (folder / name).write_text(content, encoding="utf-8")
        _link(artefact, folder / artefact.name)
        _link(goldens, folder / "golden")
        listed = sorted(path for path in folder.rglob("*") if path.is_file())
        sums = "".join(f"{files.sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in listed)
        (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
        _zip(target, folder, [*listed, folder / "SHA256SUMS"])
    finally:
        shutil.rmtree(folder)


def _zip(target: Path, folder: Path, paths: list[Path]) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in paths:
            entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", EPOCH)
            entry.create_system = UNIX
            entry.external_attr = (0o100755 if path.name in PROGRAMS else 0o100644) << 16  # without it, 0o600
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=lambda old, new: files.link_or_copy(Path(old), Path(new)))
    else:
        files.link_or_copy(source, target)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a bundle into `folder` and return the bundle's own folder there."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder / archive.stem
