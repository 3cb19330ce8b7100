"""Measure how often `make rank` is right: compare its scores with real training, and with what a person would guess.

python benchmarks/rank.py score bccd facemask apple boards       (minutes; after `make convert` of these configs)
python benchmarks/rank.py train bccd facemask apple boards       (hours; after `make augment` of these configs)
python benchmarks/rank.py table > benchmarks/rank.md

`score` runs each source over the images once. `train` trains from each source in turn: with the config's own phases,
for one epoch alone (the baseline that costs as much as a score), and from COCO weights with the first 5, 7 and 11
layers frozen throughout. Sources are random, starter and COCO weights, and models of the other configs that
`make train` left in runs/. Each figure is a line of benchmarks/rank.jsonl, so a stopped benchmark continues where it
was. `table` also reads the results in benchmarks/train.jsonl, which are for the same configs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import train_table
import yaml
from scipy.stats import weightedtau

from pipeline.config.loading import load
from pipeline.config.rank import Rank
from pipeline.rank import main as rank
from pipeline.records import ranking
from pipeline.run import Run
from pipeline.upstream import environment

KNOWN = Path("benchmarks/rank.jsonl")
START = {"random": "yolo26n.yaml", "starter": "data/weights/starter-yolo26n.pt", "coco": "data/weights/yolo26n.pt"}
DEPTHS = (5, 7, 11)
ENOUGH = 0.015  # mAP50-95 that a depth may cost and still count as right
DRAWS = 2000
FIXED = ["coco", "starter", "random"]  # the ranking of somebody who never looks at the images
# Rows of benchmarks/train.jsonl, by how many layers they freeze.
OF_DEPTH = {"full": 0, "backbone": 11}


def known() -> list[dict[str, Any]]:
    return [json.loads(line) for line in KNOWN.read_text().splitlines()] if KNOWN.is_file() else []


def add(line: dict[str, Any]) -> None:
    with KNOWN.open("a") as file:
        print(json.dumps(line), file=file)
    print(line, file=sys.stderr, flush=True)


def sources(name: str) -> dict[str, str]:
    """Return short name -> weights: the three initial weights, and the models trained by other configs."""
    others = {path.parent.name: str(path) for path in sorted(Path("runs").glob("*/model.pt"))}
    return {**START, **{other: path for other, path in others.items() if other != name}}


def score(name: str) -> None:
    config, run = load(Path(f"configs/{name}.yaml")), Run(Path("runs") / name)
    for source, weights in sources(name).items():
        which = {"kind": "score", "config": name, "source": source}
        if any(line.items() >= which.items() for line in known()):
            continue
        rank(Rank(weights=(weights,)), config.train, run, config.seed, "cpu")
        record = ranking.read(run)
        (judged,) = record["sources"]
        assert judged["depth"] is not None
        figures = {key: round(float(judged[key]), 4) for key in ("log_me", "h_score", "probe")}
        depth = {"accuracy": judged["depth"]["accuracy"], "freeze": judged["depth"]["freeze"]}
        add({**which, **figures, **depth, "images": record["images"], "seconds": judged["seconds"]})


def train(name: str, seed: int) -> None:
    """Train from every source, as the config says and for one epoch; train from COCO weights at every depth."""
    plain = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    epochs = 5
    jobs: list[tuple[str, str, list[dict[str, Any]]]] = []
    for source, weights in sources(name).items():
        jobs += [(source, weights, [{"epochs": epochs, "freeze": "none"}]), (source, weights, [{"epochs": 1}])]
    jobs += [("coco", START["coco"], [{"epochs": epochs, "freeze": depth}]) for depth in DEPTHS]
    for source, weights, phases in jobs:
        which = {"kind": "training", "config": name, "source": source, "phases": phases, "seed": seed}
        if any(line.items() >= which.items() for line in known()):
            continue
        (phase,) = phases
        folder = Path("runs/bench-rank", "-".join(map(str, (name, source, seed, *phase.values()))))
        settings = {"weights": weights, "phases": phases, "cache_features": False, "args": {"val": False}}
        add({**which, **trained(name, {**plain, "seed": seed, "train": {**plain["train"], **settings}}, folder)})


def trained(name: str, config: dict[str, Any], folder: Path) -> dict[str, float]:
    from train import accuracy

    from pipeline import train as stage
    from pipeline.config.experiment import Config

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given, run = Run(Path("runs") / name), Run(folder)
    for link, target in {run.dataset: given.dataset, run.augmented: given.augmented}.items():
        link.symlink_to(target.resolve())
    checked = Config.model_validate(config)
    begin = time.perf_counter()
    stage.main(checked.train, run, checked.seed, "cpu", 0)
    seconds = round(time.perf_counter() - begin, 1)
    return {**accuracy(name, run.model, checked.train.imgsz), "seconds": seconds}


def truth(name: str) -> tuple[dict[str, float], dict[str, float], dict[int, float]]:
    """Return mean mAP50-95 over the seeds by source, by source after one epoch, and by number of frozen layers."""
    full: dict[str, list[float]] = {}
    once: dict[str, list[float]] = {}
    depth: dict[int, list[float]] = {}
    for line in known():
        if line["kind"] == "training" and line["config"] == name:
            (phase,) = line["phases"]
            frozen = phase.get("freeze", "none")
            if phase["epochs"] == 1:
                once.setdefault(line["source"], []).append(line["map50_95"])
            elif isinstance(frozen, int):
                depth.setdefault(frozen, []).append(line["map50_95"])
            else:
                full.setdefault(line["source"], []).append(line["map50_95"])
        elif line["kind"] == "published" and line["config"] == name:
            full.setdefault(line["source"], []).append(line["map50_95"])
    for line in map(json.loads, train_table.KNOWN.read_text().splitlines()):
        if line["config"] == name and line["share"] == 1 and line["row"] in OF_DEPTH:
            depth.setdefault(OF_DEPTH[line["row"]], []).append(line["map50_95"])
    means = [{key: statistics.mean(values) for key, values in found.items()} for found in (full, once, depth)]
    return means[0], means[1], means[2]  # type: ignore[return-value]


def tau(sets: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    """Return the mean weighted Kendall tau over all sets, with its 95 % interval from resampling the sources."""
    random = np.random.default_rng(0)

    def mean(draw: Callable[[list[str]], list[str]]) -> float:
        found = []
        for guess, real in sets:
            names = draw([name for name in real if name in guess])
            value = weightedtau([real[name] for name in names], [guess[name] for name in names]).statistic
            found.append(value if np.isfinite(value) else 0.0)
        return float(np.mean(found))

    if not sets or any(len(set(guess) & set(real)) < 2 for guess, real in sets):
        return "too few trainings"
    draws = [mean(lambda names: list(random.choice(names, len(names)))) for _ in range(DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{mean(list):.2f} ({low:.2f} to {high:.2f})"


def table(names: list[str]) -> Iterator[str]:
    lines = [line for line in known() if line["kind"] == "score"]
    yield "| set | source | LogME | H-score | probe | images | freeze at most | mAP50-95 of real trainings |"
    yield "|---|---|---|---|---|---|---|---|"
    sets = []
    for name in names:
        real, once, _ = truth(name)
        for line in (line for line in lines if line["config"] == name):
            figure = f"{real[line['source']]:.3f}" if line["source"] in real else ""
            scores = " | ".join(f"{line[key]:.3f}" for key in ("log_me", "h_score", "probe"))
            yield f"| {name} | {line['source']} | {scores} | {line['images']} | {line['freeze']} | {figure} |"
        if len(real) > 1:
            guesses = {key: {line["source"]: line[key] for line in lines if line["config"] == name} for key in KINDS}
            fixed = {source: -FIXED.index(source) if source in FIXED else -1.5 for source in real}
            first = {source: float(source == "coco") for source in real}
            sets.append((real, {**guesses, "a fixed list": fixed, "always COCO": first, "one epoch": once}))
    yield "\n| guess | weighted Kendall tau, mean over the sets, and 95 % interval |\n|---|---|"
    for kind in (*KINDS, "a fixed list", "always COCO", "one epoch"):
        yield f"| {kind} | {tau([(guesses[kind], real) for real, guesses in sets])} |"
    yield "\n| set | freeze at most, from COCO weights | mAP50-95 with 0, 5, 7, 11 layers frozen | verdict |"
    yield "|---|---|---|---|"
    for name in names:
        for line in (line for line in lines if (line["config"], line["source"]) == (name, "coco")):
            depth = truth(name)[2]
            figures = ", ".join(f"{depth[number]:.3f}" if number in depth else "–" for number in (0, *DEPTHS))
            yield f"| {name} | {line['freeze']} | {figures} | {verdict(line['freeze'], depth)} |"


def verdict(freeze: int, depth: dict[int, float]) -> str:
    """Say whether freezing `depth` layers costs at most ENOUGH; if a deeper freeze does, this one does too."""
    if 0 not in depth:
        return "not trained"
    if freeze in depth:
        return "right" if depth[0] - depth[freeze] <= ENOUGH else "wrong"
    deeper = [value for number, value in depth.items() if number > freeze]
    return "right, as deeper ones are" if any(depth[0] - value <= ENOUGH for value in deeper) else "not known"


KINDS = ("log_me", "h_score", "probe")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["score", "train", "table"])
    parser.add_argument("names", nargs="*", default=["bccd", "facemask", "apple", "boards"], metavar="CONFIG")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    if options.what == "table":
        print("# `make rank` compared with real training runs\n")
        print(f"Written by `python benchmarks/rank.py table`. {ABOUT}\n")
        print("\n".join(table(options.names)))
        return
    environment.prepare()
    for name in options.names:
        if options.what == "score":
            score(name)
        else:
            for seed in options.seeds:
                train(name, seed)


ABOUT = """Scores come from one pass over
the training images; higher is better. Results of real training runs are means over seeds: starter.md has those of the
sources, train.md those of the depths, and rank.jsonl the others. A depth is right if it costs at most 1.5 points of
mAP50-95.

**Conclusion.** Where sources have been trained, the scores put them in the same order as a fixed list that never looks
at an image. So nothing shows that the scores beat the list, and `make rank` is no reason to prefer one good source to
another."""


if __name__ == "__main__":
    main()
