"""What was validated: under which settings thresholds were chosen, and how images came to their 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Validate
from pipeline.records import metrics, receipt
from pipeline.run import Run

DEFAULT = Validate()


@dataclass(frozen=True, slots=True)
class Settings:
    """A device has to do the same. The first three are those of `validate`.

    `bits` is how many of their 16 bits the source's images use, from which convert made 8; None where all have 8.
    """

    conf: float = DEFAULT.conf
    iou: float = DEFAULT.iou
    max_det: int = DEFAULT.max_det
    bits: int | None = None


AS_IT_COMES = Settings()


def of(run: Run) -> Settings:
    """Those that the run's figures and its data set were made with; the defaults where it has no figures."""
    validated: dict[str, Any] = metrics.read(run)["settings"] if run.metrics.is_file() else {}
    bits = receipt.read(run)["bits"] if run.receipt.is_file() else None
    known = {key: validated[key] for key in ("conf", "iou", "max_det") if key in validated}
    return Settings(**known, bits=bits)


def received(run: Run, images: list[Path]) -> dict[Path, Path]:
    """The files of the source that convert wrote these validation images anew from."""
    if not run.receipt.is_file():
        return {}
    account = receipt.read(run)
    named = {path: account["sources"].get(f"val/{path.name}") for path in images if path.name in account["rewritten"]}
    return {path: Path(account["source"]) / name for path, name in named.items() if name}
