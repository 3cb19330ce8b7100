"""Print the results table of the README from the runs that are there.

make all CONFIG=configs/bccd.yaml && python benchmarks/results.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLUMNS = ("config", "images", "split", "mAP50", "mAP50-95", "epochs", "training", "ONNX against model")


def main() -> None:
    rows = [row(path.parent) for path in sorted(Path("runs").glob("*/metrics.json")) if is_whole(path.parent)]
    if not rows:
        raise SystemExit("runs/ holds no finished run; `make all` makes one")
    machines = {machine(path.parent) for path in Path("runs").glob("*/train.json")}
    print("\n".join(sorted(machines)) + "\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def is_whole(run: Path) -> bool:
    needed = ("train.json", "dataset/receipt.json", "export/manifest.json")
    return all((run / name).is_file() for name in needed)


def machine(run: Path) -> str:
    trained = read(run / "train.json")
    versions = ", ".join(f"{name} {number}" for name, number in trained["versions"].items())
    return f"{trained['device']}, {trained['threads']} threads; {versions}"


def row(run: Path) -> tuple[str, ...]:
    metrics, trained, receipt, manifest = (
        read(run / name) for name in ("metrics.json", "train.json", "dataset/receipt.json", "export/manifest.json")
    )
    split = "test" if "test" in metrics["splits"] else "val"
    figures = metrics["splits"][split]
    parity = manifest["artefacts"][0]["parity"]
    splits = [name for name in ("train", "val", "test") if name in receipt["splits"]]
    images = " / ".join(str(receipt["splits"][name]["images"]) for name in splits)
    return (
        f"`configs/{run.name}.yaml`",
        f"{images} ({' / '.join(splits)})",
        split,
        f"{figures['map50']:.3f}",
        f"{figures['map50_95']:.3f}",
        " + ".join(str(phase["epochs"]) for phase in trained["phases"]),
        f"{trained['seconds']:.0f} s",
        f"{parity['boxes']} boxes, to {parity['max_box_px']:.1g} px and {parity['max_score']:.0e}",
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
