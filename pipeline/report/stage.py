"""Write one self-contained page: figures with their intervals, where they come from, and the errors.

plots     plots as SVG              worst             the images with the most errors
words     what was not measured     template          how Jinja is set up
page.html.jinja             the page itself
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml

from pipeline import files, history
from pipeline.boxes import YoloDataset
from pipeline.config.judging import Report
from pipeline.errors import DataError
from pipeline.metrics.precision_recall import curves
from pipeline.records import comparison as comparison_record
from pipeline.records import label_rounds
from pipeline.records import manifest as manifest_record
from pipeline.records import metrics as metrics_record
from pipeline.records import predictions as split_records
from pipeline.records import receipt as receipt_record
from pipeline.records import tiles as tiles_record
from pipeline.records import training as training_record
from pipeline.report import plots, template, words
from pipeline.report.worst import worst_images
from pipeline.run import SPLITS, Run

TEMPLATE = Path(__file__).with_name("page.html.jinja")
STAGES = ("convert", "augment", "train", "validate", "report", "export")
COLOURED = len(plots.COLOURS)  # more curves than colours cannot be told apart


def main(config: Report, run: Run, against: Path | None = None) -> str:
    """Write `run.report/index.html`, on the test split if there is one, else on val.

    `against` is another run's folder, to show the comparison that `validate --against` wrote. Raises DataError if files
    of an earlier stage are missing, or the comparison is with another run.
    """
    for needed, command in ((run.metrics, "validate"), (run.train_record, "train"), (run.receipt, "convert")):
        if not needed.is_file():
            raise DataError(f"{needed}: does not exist; `make {command}` writes it")
    metrics, trained, receipt = metrics_record.read(run), training_record.read(run), receipt_record.read(run)
    comparison = None if against is None else _comparison(run, Run(against))
    # JSON keys are sorted, but people expect the splits in the order of their use.
    for record in (metrics, receipt, *([comparison] if comparison else [])):
        record["splits"] = {name: record["splits"][name] for name in SPLITS if name in record["splits"]}
    split = "test" if "test" in metrics["splits"] else "val"
    _refuse_stale(run, split)
    truth, predictions = split_records.predictions(run, split, single_label=True)
    errors = split_records.errors(run, split, truth)
    folder = YoloDataset.read(run.dataset / "data.yaml").images[split]
    all_curves = curves(truth, predictions)
    drawn = [curve for curve in all_curves if curve.scores.size]
    epochs, borders = history.read(run)
    exported, left_out = manifest_record.read(run) if run.manifest.is_file() else None, ""
    if exported and exported["model"]["sha256"] != metrics["model_sha256"]:
        exported, left_out = None, f"; {run.manifest} is of an earlier model, so it is left out"
    measured = exported["benchmark"]["rows"] if exported and exported["benchmark"] else []
    figures = metrics["splits"][split]
    rounds, settings = label_rounds.read(run), _settings(run)
    rules = settings.get("convert", {})
    html = (
        _environment()
        .get_template(TEMPLATE.name)
        .render(
            name=run.name,
            metrics=metrics,
            tiling=tiles_record.read(run),
            split=split,
            notices=words.notices(split, metrics, predictions),
            without_objects=words.without_objects(figures),
            kinds=words.kinds(figures),
            thresholds=words.thresholds(metrics["operating_point"], split),
            trained=trained,
            val_has_objects=receipt_record.val_has_objects(run),
            receipt=receipt,
            grouped=bool(rules.get("group_by")),
            near_duplicates=rules.get("near_duplicates", True),
            comparison=comparison,
            legend=list(zip([curve.name for curve in drawn[:COLOURED]], plots.COLOURS, plots.DASHES, strict=False)),
            too_many=len(drawn[COLOURED:]),
            not_drawn=words.not_drawn(all_curves),
            losses=plots.losses(epochs, borders),
            validation=plots.validation(epochs, borders),
            precision_recall=plots.precision_recall(drawn[:COLOURED]),
            f1=plots.f1(drawn[:COLOURED], errors["thresholds"]),
            reliability=plots.reliability(figures["calibration"]["bins"]),
            exported=exported,
            latency=plots.latency(measured),
            artefacts=plots.artefacts(measured),
            rounds=rounds,
            labelling=plots.labelling(rounds),
            worst=worst_images(truth, errors, folder, config.worst),
            most_shown=config.worst,
            settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
            command=run.make("all") + (f" AGAINST={against}" if against else ""),
        )
    )
    with files.new_folder(run.report) as partial:
        (partial / "index.html").write_text(html, encoding="utf-8")
    return f"{split} split, {len(html) / 1e6:.1f} MB -> {run.report / 'index.html'}{left_out}"


def _refuse_stale(run: Run, split: str) -> None:
    """Raise DataError if the metrics are of an earlier model or dataset, which only a stage run without make leaves."""
    again = f"`{run.make('validate')}` measures again"
    if metrics_record.is_of_another_model(run):
        raise DataError(f"{run.metrics}: measured another model than {run.model}; {again}")
    dataset, measured = YoloDataset.read(run.dataset / "data.yaml"), split_records.truth(run, split)
    names = sorted(image["file_name"] for image in measured["images"])
    classes = [category["name"] for category in measured["categories"]]
    if names != sorted(path.name for path in dataset.files(split)) or classes != list(dataset.names):
        raise DataError(f"{run.metrics}: measured other images or classes than those in {run.dataset}; {again}")


def _environment() -> jinja2.Environment:
    environment = template.environment(TEMPLATE.parent)
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["signed"] = lambda value: "–" if value is None else f"{value:+.3f}".replace("-", "−")
    environment.filters["interval"] = lambda pair: "–" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
    return environment


def _comparison(run: Run, other: Run) -> Any:
    way_out = f"`{run.make('report')} AGAINST={other.root}` writes it again"
    if not run.comparison.is_file():
        raise DataError(f"{run.comparison}: does not exist; {way_out}")
    comparison: Any = comparison_record.read(run, other)
    if Path(comparison["against"]).resolve() != other.root.resolve():
        raise DataError(f"{run.comparison}: compares with {comparison['against']}, not with {other.root}; {way_out}")
    ours, theirs = (_flat(_settings(compared)) for compared in (run, other))
    comparison["settings"] = {
        key: (ours.get(key), theirs.get(key)) for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)
    }
    return comparison


def _settings(run: Run) -> dict[str, Any]:
    """Return the config of the run, assembled from the slices that its stages depend on."""
    settings: dict[str, Any] = {}
    for stage in STAGES:
        if run.params(stage).is_file():
            settings |= files.read_json(run.params(stage))
    return settings


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Flatten {"train": {"batch": 4}} to {"train.batch": "4"}, so that two configs can be compared key by key."""
    if not isinstance(value, dict):
        return {name: yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{name}.{key}" if name else str(key))
    return flat
