"""Read the settings that a device must share with validation and conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.judging import Validate
from pipeline.records import metrics, receipt, tiles
from pipeline.records.tiles import Tiling
from pipeline.run import Run

DEFAULT = Validate()


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that a device must share. `conf`, `iou` and `max_det` are those of `validate`.

    `bits` is the number of bits that 16-bit source images use, which convert scaled to 8; None if all have 8.
    `tiling` says how large images are cut; None if they are not.
    """

    conf: float = DEFAULT.conf
    iou: float = DEFAULT.iou
    max_det: int = DEFAULT.max_det
    bits: int | None = None
    tiling: Tiling | None = None


AS_IT_COMES = Settings()


def of(run: Run) -> Settings:
    """Return the settings behind the run's figures and dataset; the defaults if it has no figures."""
    validated: dict[str, Any] = metrics.read(run)["settings"] if run.metrics.is_file() else {}
    bits = receipt.read(run)["bits"] if run.receipt.is_file() else None
    known = {key: validated[key] for key in ("conf", "iou", "max_det") if key in validated}
    return Settings(**known, bits=bits, tiling=tiles.read(run))


def received(run: Run, images: list[Path]) -> dict[Path, Path]:
    """Map the validation images that convert rewrote to their source files."""
    if not run.receipt.is_file():
        return {}
    account = receipt.read(run)
    named = {path: account["sources"].get(f"val/{path.name}") for path in images if path.name in account["rewritten"]}
    return {path: Path(account["source"]) / name for path, name in named.items() if name}
