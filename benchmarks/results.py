"""Print the results table of the README from the runs that exist.

make all CONFIG=configs/bccd.yaml && python benchmarks/results.py
"""

from __future__ import annotations

from pathlib import Path

from pipeline.files import read_json
from pipeline.run import SPLITS, Run

COLUMNS = ("config", "images", "split", "mAP50", "mAP50-95", "epochs", "training", "ONNX vs. PyTorch")


def main() -> None:
    runs = [Run(path.parent) for path in sorted(Path("runs").glob("*/metrics.json"))]
    runs = [run for run in runs if all(path.is_file() for path in (run.train_record, run.receipt, run.manifest))]
    if not runs:
        raise SystemExit("runs/ holds no finished run; `make all` makes one")
    print("\n".join(sorted({machine(run) for run in runs})) + "\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for run in runs:
        print("| " + " | ".join(row(run)) + " |")


def machine(run: Run) -> str:
    trained = read_json(run.train_record)
    versions = ", ".join(f"{name} {number}" for name, number in trained["versions"].items())
    return f"{trained['device']}, {trained['threads']} threads; {versions}"


def row(run: Run) -> tuple[str, ...]:
    metrics, trained, receipt, manifest = (
        read_json(path) for path in (run.metrics, run.train_record, run.receipt, run.manifest)
    )
    split = "test" if "test" in metrics["splits"] else "val"
    figures = metrics["splits"][split]
    parity = manifest["artefacts"][0]["parity"]
    splits = [name for name in SPLITS if name in receipt["splits"]]
    images = " / ".join(str(receipt["splits"][name]["images"]) for name in splits)
    return (
        f"`configs/{run.name}.yaml`",
        f"{images} ({' / '.join(splits)})",
        split,
        *("–" if figures[key] is None else f"{figures[key]:.3f}" for key in ("map50", "map50_95")),
        " + ".join(str(phase["epochs"]) for phase in trained["phases"]),
        f"{trained['seconds']:.0f} s",
        f"{parity['boxes']} boxes; differences up to {parity['max_box_px']:.1g} px and {parity['max_score']:.0e}"
        if parity["boxes"]
        else "–",
    )


if __name__ == "__main__":
    main()
