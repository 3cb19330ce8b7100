"""Convert exports of all formats with seeded damage: each must be refused in one line or accounted for.

    python benchmarks/corrupt.py [RUNS] [FIRST_SEED]

Every run takes an intact export of one tool (those of the tests), damages it in one way, and converts it with a random
policy, half of the time with the dangerous pair `unlabelled: background` and `on_problem: drop`. The content of the
images is known, so the output is compared with the truth and not with the annotations as they were read. Some damage
leaves a valid file that says something else (a missing row, a changed byte in a name). Nobody can detect that, so it is
counted separately.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hang import Hang, no_hang  # noqa: E402
from test_convert_cases import LAYOUTS  # noqa: E402
from test_formats_public import LAYOUTS as PUBLIC  # noqa: E402
from test_formats_public import number_of  # noqa: E402
from test_formats_tools import BOXES, HEIGHT, NAMES, RATIOS, STEMS, TOOLS, WIDTH, images, write  # noqa: E402

from pipeline import convert  # noqa: E402
from pipeline.boxes import YoloDataset, read_labels  # noqa: E402
from pipeline.config.data import Convert  # noqa: E402
from pipeline.errors import PipelineError  # noqa: E402
from pipeline.files import read_json  # noqa: E402
from pipeline.run import Run  # noqa: E402

PATIENCE = 20  # seconds; a conversion takes a tenth of a second
TOLERANCE = 0.51  # pixels: 0.5 for rounding to whole pixels, the rest for rounding to six decimals
LABELS = (".json", ".ndjson", ".jsonl", ".csv", ".xml", ".txt")
BESIDE = ("meta.json", "notes.json", "classes.txt", "README.roboflow.txt", "predefined_classes.txt")
NUMBER = re.compile(r"(?<![\w.\-/])-?\d+(?:\.\d+)?(?![\w.])")
ODD = ["1e308", "-1e308", "-5000", "9" * 400, "NaN", "1e400", "null", '"x"', "[]"]


def kitti(folder: Path) -> None:
    images(folder / "image_2", lambda stem: f"{stem}.png")
    for stem in STEMS:
        rows = [f"{la} 0.00 0 0.00 {c[0]} {c[1]} {c[2]} {c[3]} 0 0 0 0 0 0 0\n" for la, c in BOXES[stem]]
        write(folder / "label_2" / f"{stem}.txt", "".join(rows))


def open_images(folder: Path) -> None:
    rows = [
        f"{stem},xclick,{la},1,{c[0] / WIDTH},{c[2] / WIDTH},{c[1] / HEIGHT},{c[3] / HEIGHT},0,0,0,0,0\n"
        for stem in STEMS
        for la, c in BOXES[stem]
    ]
    flags = "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    head = f"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,{flags}\n"
    write(folder / "train-annotations-bbox.csv", "".join([head, *rows]))
    images(folder / "images")


def plain(name: str) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        images(folder / "images")
        LAYOUTS[name](folder)

    return lay


SOUND: dict[str, tuple[Callable[[Path], None], str]] = {
    **TOOLS,
    **{name: (plain(name), name) for name in LAYOUTS},
    **{name: layout[:2] for name, layout in PUBLIC.items()},
    "KITTI": (kitti, "kitti"),
    "Open Images": (open_images, "openimages"),
}

# --- Damage: (random generator, an annotation file, an image) -> whether it was possible ------------------------------


def text_of(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def put(path: Path, text: str) -> None:
    path.write_bytes(text.encode(errors="surrogateescape"))


def odd_number(rng: random.Random, labels: Path, image: Path) -> bool:
    text = text_of(labels)
    found = list(NUMBER.finditer(text))
    if not found:
        return False
    one = rng.choice(found)
    odd = rng.choice(ODD).replace('"', "" if labels.suffix in (".txt", ".xml", ".csv") else '"')
    put(labels, text[: one.start()] + odd + text[one.end() :])
    return True


def instead(*contents: bytes) -> Callable[[random.Random, Path, Path], bool]:
    def damage(rng: random.Random, labels: Path, image: Path) -> bool:
        if labels.suffix == ".txt":  # in YOLO, KITTI and DOTA an empty file means that the image shows nothing
            return False
        labels.write_bytes(rng.choice(contents))
        return True

    return damage


def no_header(rng: random.Random, labels: Path, image: Path) -> bool:
    text = text_of(labels)
    if labels.suffix != ".csv" or not re.match("filename|image_?(id|name)", text, re.IGNORECASE):
        return False  # some tables have none
    put(labels, text.partition("\n")[2])
    return True


def cut_in_two(rng: random.Random, labels: Path, image: Path) -> bool:
    """Cut off JSON or XML, which is then invalid."""
    if labels.suffix not in (".json", ".xml"):
        return False
    data = labels.read_bytes()
    labels.write_bytes(data[: rng.randrange(1, len(data.rstrip()) - 1)])
    return True


def encoded(rng: random.Random, labels: Path, image: Path) -> bool:
    text = text_of(labels)
    labels.write_bytes(
        text.encode(rng.choice(["utf-16", "utf-32"])) if rng.random() < 0.7 else text.encode() + b"\xff\xfe\x80"
    )
    return True


def harmless(rng: random.Random, labels: Path, image: Path) -> bool:
    """Add a byte-order mark, or use Windows line endings."""
    text = text_of(labels)
    put(labels, text.replace("\n", "\r\n") if rng.random() < 0.5 else text)
    if rng.random() < 0.5 and labels.suffix != ".ndjson":
        labels.write_bytes(b"\xef\xbb\xbf" + labels.read_bytes())
    return True


def key_twice(rng: random.Random, labels: Path, image: Path) -> bool:
    text = text_of(labels)
    keys = list(re.finditer(r'"(\w+)": ', text)) if labels.suffix == ".json" else []
    if not keys:
        return False
    one = rng.choice(keys)
    put(labels, text[: one.start()] + f'"{one[1]}": {rng.choice(["[]", "null", "0", "{}"])}, ' + text[one.start() :])
    return True


def more_columns(rng: random.Random, labels: Path, image: Path) -> bool:
    rows = text_of(labels).splitlines()
    chosen = [number for number, row in enumerate(rows) if len(row.split()) > 4 or row.count(",") > 3]
    if labels.suffix not in (".txt", ".csv") or not chosen or (labels.suffix == ".csv" and len(chosen) < 2):
        return False
    number = rng.choice(chosen[labels.suffix == ".csv" :])
    between = " " if labels.suffix == ".txt" else ","
    rows[number] = rng.choice(
        [f"#{between}{rows[number]}", f"big{between}{rows[number]}", f"{rows[number]}{between}x{between}y"]
    )
    put(labels, "\n".join(rows) + "\n")
    return True


def no_file(how: str) -> Callable[[random.Random, Path, Path], bool]:
    def damage(rng: random.Random, labels: Path, image: Path) -> bool:
        labels.unlink()
        if how == "empty folder":
            labels.mkdir()
        elif how == "folder":
            labels.mkdir()
            (labels / "about.md").write_text("x")
        elif how == "broken link":
            labels.symlink_to("/mnt/gone/x")
        elif how == "link to itself":
            labels.symlink_to(labels.name)
        return True

    return damage


def image_renamed(rng: random.Random, labels: Path, image: Path) -> bool:
    stem, suffix = image.stem, image.suffix
    others = [
        f"{stem}{suffix.swapcase()}",
        f"0a1b2c3d-{image.name}",
        f"holiday{suffix}",
        f"deep/er/{image.name}",
        f"copy of {image.name}",
        f"{stem.upper()}{suffix}",
    ]
    target = image.with_name("x").parent / rng.choice(others)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.rename(target)
    return True


def image_gone(rng: random.Random, labels: Path, image: Path) -> bool:
    image.unlink()
    if rng.random() < 0.5:
        image.symlink_to("../.git/annex/x")
    return True


def image_damaged(rng: random.Random, labels: Path, image: Path) -> bool:
    data = image.read_bytes()
    image.write_bytes(
        rng.choice(
            [b"", data[: len(data) // 2], data[:-9], b"\0" * 99, b"version https://git-lfs", b"<html>", data[::-1]]
        )
    )
    return True


def odd_file_beside(rng: random.Random, labels: Path, image: Path) -> bool:
    name = rng.choice(
        [b"caf\xe9.jpg", b"a\nb.txt", b"bell\x07.png", b".hidden.jpg", b"x" * 255, b"more.json", b"set.zip"]
    )
    Path(os.fsdecode(os.fsencode(image.parent) + b"/" + name)).write_bytes(rng.choice([b"", b"[]", image.read_bytes()]))
    return True


def cut_anywhere(rng: random.Random, labels: Path, image: Path) -> bool:
    data = labels.read_bytes()
    labels.write_bytes(data[: rng.randrange(len(data))] if data else b"")
    return True


def bytes_changed(rng: random.Random, labels: Path, image: Path) -> bool:
    data = bytearray(labels.read_bytes())
    for _ in range(rng.randrange(1, 8) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    labels.write_bytes(bytes(data))
    return True


def line_gone_or_twice(rng: random.Random, labels: Path, image: Path) -> bool:
    lines = labels.read_bytes().splitlines(keepends=True)
    if lines:
        number = rng.randrange(len(lines))
        lines[number : number + 1] = rng.choice([[], [lines[number]] * 2])
    labels.write_bytes(b"".join(lines))
    return True


Damage = Callable[[random.Random, Path, Path], bool]
SEEN: dict[str, Damage] = {  # detectable damage: the output must equal the truth, or each difference must be reported
    "a number that is none or absurd": odd_number,
    "nothing in the file, or another value": instead(b"", b" \n", b"[]", b"{}", b"null", b"17", b"\0" * 100, b"<a/>"),
    "a table without its header": no_header,
    "JSON or XML cut off": cut_in_two,
    "another encoding": encoded,
    "a byte-order mark, other line ends": harmless,
    "a JSON key twice": key_twice,
    "a row commented out, or of more columns": more_columns,
    "an empty folder for a label file": no_file("empty folder"),
    "a folder for a label file": no_file("folder"),
    "a broken link for a label file": no_file("broken link"),
    "a label file linked to itself": no_file("link to itself"),
    "an image under another name": image_renamed,
    "an image that is gone": image_gone,
    "an image that is damaged": image_damaged,
    "a file of an odd name beside": odd_file_beside,
}
UNSEEN: dict[str, Damage] = {  # undetectable damage: the file may remain valid and say something else
    "cut off anywhere": cut_anywhere,
    "bytes changed": bytes_changed,
    "a line gone or twice": line_gone_or_twice,
    "a label file deleted": no_file("deleted"),
}

# --- What came out ---------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def truth_of(tool: str) -> dict[str, list[tuple[str, tuple[float, float, float, float]]]]:
    """Return what the images show, with the class names of a layout."""
    called = PUBLIC[tool][2] if tool in PUBLIC else NAMES
    return {stem: [(called[NAMES.index(label)], corners) for label, corners in of] for stem, of in BOXES.items()}


def stem_of_image(tool: str, path: Path) -> str:
    number = number_of(tool, path) if tool in PUBLIC else re.findall(r"\d", path.stem.partition(".rf")[0])[-1]
    return f"img{number}"


def judged(tool: str, run: Run, stem_of: dict[str, str]) -> tuple[int, int]:
    """Count labelled images that became background, and boxes changed or lost without a line in the receipt."""
    receipt = read_json(run.receipt)
    for counts in (receipt["boxes"], *receipt["files"].values()):
        assert counts["read"] == sum(counts[key] for key in ("kept", "clipped", "dropped", "ignored")), counts
    lines = Counter(problem["action"] for problem in receipt["problems"])
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    poisoned = wrong = lost = 0
    truths = truth_of(tool)
    for split in dataset.images:
        for path in dataset.files(split):
            stem = stem_of.get(digest(path), "")
            boxes = read_labels(dataset.label_file(path), dataset.names, WIDTH, HEIGHT)
            truth = list(truths.get(stem, []))
            poisoned += bool(truth) and not boxes
            for box in boxes:
                same = [
                    one
                    for one in truth
                    if one[0] == box.label
                    and max(abs(a - b) for a, b in zip(one[1], box[1:5], strict=True)) <= TOLERANCE
                ]
                if same:
                    truth.remove(same[0])
                else:
                    wrong += bool(stem)
            lost += len(truth)
    return poisoned, max(0, wrong - lines["clipped"]) + max(0, lost - sum(lines.values()))


def one(seed: int, sound: Path, work: Path, table: dict[str, Counter[str]], every: dict[str, Counter[str]]) -> None:
    rng = random.Random(seed)
    tool = rng.choice(sorted(SOUND))
    kind = rng.choice([*SEEN, *SEEN, *UNSEEN])
    source = work / "source"
    shutil.copytree(sound / tool, source)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    pictures = [path for path in files if path.suffix.lower() in (".jpg", ".png")]
    stem_of = {digest(path): stem_of_image(tool, path) for path in pictures}
    labels = [path for path in files if path.suffix in LABELS and path.name not in BESIDE]
    image = rng.choice(pictures or labels)
    if not ({**SEEN, **UNSEEN}[kind])(rng, rng.choice(labels), image):
        return
    policy = {"on_problem": "drop", "unlabelled": "background"}
    if rng.random() < 0.5:
        policy = {"on_problem": rng.choice(["fix", "drop", "error"]), "unlabelled": rng.choice(["error", "background"])}
    settings: dict[str, Any] = {"source": source, "split": RATIOS, "near_duplicates": False, **policy}
    if rng.random() < 0.7:
        settings["format"] = SOUND[tool][1]
    run = Run(work / "runs" / "x")
    counts = table[kind]
    counts["runs"] += 1
    every[SOUND[tool][1]]["runs"] += 1
    try:
        with no_hang(PATIENCE):
            convert.main(Convert.model_validate(settings), run, 0, workers=1)
    except PipelineError as error:
        line = str(error)
        counts["refused"] += 1
        if "\n" in line or len(line) > 1500 or not line.isprintable() or run.dataset.exists():
            counts["bad lines"] += 1
            print(f"{seed} {tool}, {kind}: a bad line: {line!r}"[:600], file=sys.stderr)
    except Hang:
        counts["hangs"] += 1
        print(f"{seed} {tool}, {kind}: hangs", file=sys.stderr)
    except Exception:
        counts["tracebacks"] += 1
        print(f"{seed} {tool}, {kind}: {traceback.format_exc()[-900:]}", file=sys.stderr)
    else:
        counts["converted"] += 1
        poisoned, changed = judged(tool, run, stem_of)
        if kind in SEEN and (poisoned or changed):
            print(f"{seed} {tool}, {kind}, {policy}: {poisoned} background, {changed} changed", file=sys.stderr)
        counts["background"] += poisoned
        counts["changed"] += changed


def main() -> None:
    words = [int(word) for word in sys.argv[1:]]
    runs, first = [*words, *(1000, 0)[len(words) :]]
    table: dict[str, Counter[str]] = defaultdict(Counter)
    every: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory(prefix="corrupt") as folder:
        sound = Path(folder) / "sound"
        for tool, (lay, _) in SOUND.items():
            lay(sound / tool)
        seed = first
        while sum(counts["runs"] for counts in table.values()) < runs:
            work = Path(folder) / "work"
            work.mkdir()
            one(seed, sound, work, table, every)
            shutil.rmtree(work)
            seed += 1
    columns = ("runs", "refused", "converted", "tracebacks", "hangs", "bad lines", "background", "changed")
    print(f"# Damaged exports, converted\n\nWritten by `python benchmarks/corrupt.py {runs} {first}`.\n")
    print(f"{len(SOUND)} layouts in {len(every)} formats.\n")
    heads = (
        "damage",
        "runs",
        "refused in a line",
        "converted",
        "tracebacks",
        "hangs",
        "lines that cannot be printed",
        "labelled images as background",
        "boxes changed without a line",
    )
    for title, kinds in (
        ("Damage that can be detected", SEEN),
        ("Damage that leaves a valid file with other content", UNSEEN),
    ):
        shown = columns if kinds is SEEN else columns[:6]
        print(f"{title}:\n\n| {' | '.join(heads[: len(shown) + 1])} |\n|{'---|' * (len(shown) + 1)}")
        total: Counter[str] = Counter()
        for kind in kinds:
            print(f"| {kind} | {' | '.join(str(table[kind][column]) for column in shown)} |")
            total += table[kind]
        print(f"| **all** | {' | '.join(str(total[column]) for column in shown)} |\n")
    print("Runs by format: " + ", ".join(f"{name} {every[name]['runs']}" for name in sorted(every)) + ".")


if __name__ == "__main__":
    main()
