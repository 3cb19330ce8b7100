"""Make a detector from a segmentation, pose or oriented-box model.

    python -m pipeline.upstream.detector FROM.pt NEW.pt

Such a model is its family's detector with one more branch in the head, so all other tensors fit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import files
from pipeline.errors import PipelineError, WeightsError
from pipeline.upstream import checkpoints, environment, unfit


def make(source: Path, target: Path) -> str:
    """Write the detector as a checkpoint, and return a line about the tensors taken from `source`. Raises WeightsError.

    Tensors that do not fit are random, with a fixed seed. The classes are those of `source`.
    """
    environment.prepare()
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    model, _ = checkpoints.load_any(source)
    if not (family := unfit.family(model)):
        raise WeightsError(
            f"{source}: no detector of its family fits it; use another model, for example yolo26n-seg.pt"
        )
    if target.suffix != ".pt":
        raise WeightsError(f"{target}: must end in .pt; write, for example, {target.stem}.pt")
    torch.manual_seed(0)
    detector = DetectionModel(f"{family}.yaml", nc=len(model.names), verbose=False)
    initial, trained = detector.state_dict(), model.state_dict()
    fitting = {
        name: trained[name] for name in initial if name in trained and trained[name].shape == initial[name].shape
    }
    detector.load_state_dict({**initial, **fitting})
    detector.names = model.names
    yolo = YOLO(f"{family}.yaml", task="detect")
    yolo.model = detector
    with files.replacing(target) as partial:
        yolo.save(partial)
    rest = len(initial) - len(fitting)
    return f"{len(fitting)} of {len(initial)} tensors of {family} are those of {source}" + (
        f", {rest} random -> {target}" if rest else f" -> {target}"
    )


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("error: name two files: python -m pipeline.upstream.detector FROM.pt NEW.pt", file=sys.stderr)
        return 1
    try:
        print(f"detector: {make(Path(arguments[0]), Path(arguments[1]))}")
    except (PipelineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
