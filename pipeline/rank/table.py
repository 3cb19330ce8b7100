"""Show a ranking on the screen."""

from __future__ import annotations

from pipeline import logs
from pipeline.records.ranking import Ranking


def show(record: Ranking) -> None:
    boxes = ", ".join(f"{number} {name}" for name, number in record["boxes"].items())
    logs.say(f"rank: {record['images']} images at {record['imgsz']} px: {boxes}")
    names = [source["weights"]["name"] for source in record["sources"]]
    wide = max(map(len, names))
    logs.say(f"  {'weights':{wide}}    LogME  H-score    probe  seconds")
    for name, source in zip(names, record["sources"], strict=True):
        figures = "".join(f"{source[key]:9.3f}" for key in ("log_me", "h_score", "probe"))
        logs.say(f"  {name:{wide}}{figures}{source['seconds']:9.0f}")
    if any(source["depth"] for source in record["sources"]):
        logs.say("  probe accuracy by layer, and how many first layers may be frozen")
    for name, source in zip(names, record["sources"], strict=True):
        if depth := source["depth"]:
            by_number = sorted(depth["accuracy"].items(), key=lambda item: int(item[0]))
            shown = "  ".join(f"{layer}: {accuracy:.3f}" for layer, accuracy in by_number)
            logs.say(f"  {name:{wide}}  {shown}  freeze: {depth['freeze']}")
