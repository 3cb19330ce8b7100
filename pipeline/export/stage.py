"""Export artefacts for a device, and compare each with the validated model on real images."""

from __future__ import annotations

import shutil

from pipeline import files
from pipeline.boxes import YoloDataset
from pipeline.config.export import Export
from pipeline.errors import DataError, ExportError
from pipeline.export import choice, record, settings, targets
from pipeline.export.gate import Gate, Verdict
from pipeline.export.make import Exporter
from pipeline.records import metrics as metrics_record
from pipeline.records.base import write_record
from pipeline.records.manifest import Artefact, Manifest
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment


def main(config: Export, run: Run, seed: int, device: str) -> str:
    """Write every target with its bundle into `run.export`, and the manifest last.

    `device` is only checked: models and artefacts are compared on the CPU, in float32. A target is not handed out if
    the model finds nothing in the images, because nothing is proven then. If a target breaches its limits, raises
    ExportError: those that passed are handed out, without a manifest, and all figures are in `run.export_refused`. If
    none passed, the bundles of an earlier export stay, without their outdated manifest, with which `make report` would
    repeat this export. If a target cannot be made here, `run.export` stays as it was.
    """
    dataset = YoloDataset.read(run.dataset / "data.yaml")  # first: without data, nothing slow is imported
    environment.prepare()
    environment.check_device(device)
    images = choice.images(dataset, run, config.images)
    if not images:
        raise DataError(f"{run.dataset}: no validation images to compare on; give the val split some (convert.split)")
    model = checkpoints.model_of(run.model)
    checkpoints.refuse_other_classes(run.model, model.names, run.dataset, dataset.names)
    targets.refuse_impossible(config.targets, run.model, run.root)
    with files.new_folder(run.export) as folder:
        judge = Gate(run.model, dataset, images, config.conf, settings.of(run))
        thresholds, imgsz = _thresholds(run, dataset, config.conf), int(model.args["imgsz"])
        exporter = Exporter(config, run, seed, folder, dataset, judge, thresholds, imgsz)
        if any(target.quantize == 8 for target in config.targets):
            exporter.calibration_images(0)  # first: too few images are an error, and targets take minutes
        entries, lines, refused = [], [], []
        for target in config.targets:
            entry, verdict = exporter.make(target)
            entries.append(entry)
            if verdict.breaches:
                refused.append(_refused(entry, verdict, run))
            else:
                lines.append(_in_words(entry))
        shutil.rmtree(exporter.temporary, ignore_errors=True)
        manifest = record.manifest(run, list(dataset.names), exporter.imgsz, judge, exporter.calibration, entries)
        passed = [entry["file"] for entry in entries if entry["verdict"] == "passed"]
        if not refused:
            write_record(folder / "manifest.json", Manifest, manifest)
        elif not passed:
            run.manifest.unlink(missing_ok=True)
            stale = [f"{run.export} still holds the bundles of an earlier export"] if run.export.is_dir() else []
            raise _refusal([*refused, *stale], run, manifest)
    if refused:
        raise _refusal([*refused, f"{', '.join(passed)} passed: in {run.export}"], run, manifest)
    run.export_refused.unlink(missing_ok=True)
    return f"{', '.join(lines)} -> {run.export}"


def _refused(entry: Artefact, verdict: Verdict, run: Run) -> str:
    """Return why a target is refused: it exceeds a limit, or its bundle or engine fails."""
    breaches = ", ".join(verdict.breaches)
    if "export.limits." not in breaches:
        return f"{entry['file']}: {breaches}; remove the target"
    differs = f"differs from {run.model}: {verdict.in_a_line()}"
    return f"{entry['file']}: {differs}; raise the named limit, or remove the target"


def _refusal(lines: list[str], run: Run, manifest: Manifest) -> ExportError:
    write_record(run.export_refused, Manifest, manifest)
    return ExportError("\n".join(f"{line}; all figures are in {run.export_refused}" for line in lines))


def _thresholds(run: Run, dataset: YoloDataset, conf: float) -> dict[str, float]:
    """Return the threshold that validation chose per class; `export.conf` if it chose none."""
    point = metrics_record.read(run)["operating_point"] if run.metrics.is_file() else None
    chosen, per_class = (point["thresholds"], point["per_class"]) if point else ({}, {})
    # For a class without objects in val, validation reports Ultralytics' default; here the config's value applies.
    undecided = {name for name, row in per_class.items() if not row["decided"]}
    return {name: conf if name in undecided else float(chosen.get(name, conf)) for name in dataset.names}


def _in_words(entry: Artefact) -> str:
    parity, drop, note = entry["parity"], entry["ap"]["drop"]["points"], entry["note"]
    if entry["verdict"] == "unproven":
        return f"{entry['file']} not handed out: {note}"
    more = f"; {note}" if note else ""
    if entry["precision"] == "fp32" and parity["max_box_px"] is not None:
        boxes, px, score = parity["boxes"], parity["max_box_px"], parity["max_score"]
        same = f"the same {boxes} boxes" if boxes != 1 else "the same box"
        return f"{entry['file']} gives {same} (edges differ by at most {px:.2g} px, scores by {score:.1g}{more})"
    if drop is None:
        return f"{entry['file']}: no objects to measure mAP50-95 on{more}"
    return f"{entry['file']}: mAP50-95 {abs(drop):.2f} points {'higher' if drop < 0 else 'lower'}{more}"
