"""Make one target, from the checkpoint to its bundle: write, quantise, judge, bundle."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files, parallel
from pipeline.boxes import YoloDataset
from pipeline.config.export import Export, Limits, Target
from pipeline.device import runner
from pipeline.device.runner import Spec
from pipeline.errors import ExportError
from pipeline.export import alone, artefacts, bundle, calibration, int8, record, settings, targets, tensorrt
from pipeline.export.calibration import Chosen
from pipeline.export.gate import Gate, Seen, Verdict
from pipeline.records.manifest import Artefact, CalibrationImages, Draw, Draws, HandedOut, TriedRecipe
from pipeline.run import Run

# Recipes in the order in which they are tried; the first one that passes is used.
RECIPES = {
    "onnx": tuple(int8.FIRST_LAYERS),
    "engine": tuple(int8.FIRST_LAYERS),
    "openvino": ("plain", "accuracy-aware"),
    "litert": tuple(targets.LITERT_RECIPES),
}


@dataclass(slots=True)
class Exporter:
    """The shared state of all targets of one export."""

    config: Export
    run: Run
    seed: int
    folder: Path
    dataset: YoloDataset
    judge: Gate
    thresholds: dict[str, float]
    imgsz: int
    calibration: CalibrationImages | None = None
    draws: dict[int, Chosen] = field(default_factory=dict)

    @property
    def temporary(self) -> Path:
        return self.folder / ".temporary"

    def make(self, target: Target) -> tuple[Artefact, Verdict]:
        """Write, quantise, judge and bundle one target; return its entry in the manifest and the verdict."""
        imgsz = target.imgsz or self.imgsz
        limits: Limits = getattr(self.config.limits, target.precision)
        shutil.rmtree(self.temporary, ignore_errors=True)
        chosen = self.calibration_images(0) if target.quantize == 8 else {}
        source = self._write(target, self.temporary / "source", imgsz, chosen, "static")
        artefact = self.folder / targets.file_name(self.run.name, target)
        if target.quantize == 8:
            verdict, seen, tried, spec = self._eight_bits(target, source, artefact, imgsz, limits)
        else:
            os.replace(source, artefact)
            spec, tried = self._spec(target, artefact, imgsz), []
            verdict, seen = self._judge(target, spec, limits)
        validated, other = self.judge.reference(None, self.imgsz), target.nms is False or imgsz != self.imgsz
        if other or tried:  # the scores are not those for which validation chose the thresholds
            spec["thresholds"] = int8.refit(validated.seen.single, seen.single, self.thresholds)
        before = self.judge.figures(validated.matches)["map50_95"] if other else None
        entry = record.entry(target, artefact, imgsz, verdict, self.thresholds, spec["thresholds"], before)
        if tried:
            entry["tried"] = tried
            entry["calibration"] = self._sensitivity(target, source, spec, tried[0])
        if verdict.outcome == "passed":
            entry = self._hand_out(target, artefact, spec, seen, entry, verdict)
        if entry["verdict"] != "passed":  # only proven artefacts are handed out
            artefacts.remove(artefact)
        return entry, verdict

    def _write(self, target: Target, place: Path, imgsz: int, chosen: Chosen, recipe: str) -> Path:
        names, validated, shown = self.dataset.names, self.judge.settings, []
        if target.format == "litert":  # its converter quantises, and reads files
            shown = calibration.as_files(chosen, self.dataset, validated.tiling, self.temporary / "shown")
        return targets.write(target, self.run.model, place, imgsz, names, shown, recipe, validated)

    def _spec(self, target: Target, artefact: Path, imgsz: int) -> Spec:
        names, validated = self.dataset.names, self.judge.settings
        return targets.spec(target, artefact, self.folder, names, imgsz, self.thresholds, validated)

    def _judge(self, target: Target, spec: Spec, limits: Limits) -> tuple[Verdict, Seen]:
        return self.judge.judge(self._model(spec), target.nms, limits, f"export: {spec['model']}")

    def _model(self, spec: Spec) -> runner.Model:
        # onnxruntime judges an engine's ONNX model; the engine itself is built later, on the device.
        through: Spec = {**spec, "format": "onnx"} if spec["format"] == "engine" else spec
        try:
            return runner.Model(self.folder, through, parallel.half_of_the_cores())
        except runner.RunnerError as error:
            raise ExportError(str(error)) from None

    # --- Eight bits ---

    def calibration_images(self, draw: int) -> Chosen:
        """Return the calibration images of a numbered draw, proven to be in neither val nor test."""
        if draw not in self.draws:
            chosen = calibration.choose(self.dataset, self.config.calibration, self.seed + draw)
            proof = calibration.prove_disjoint(chosen, self.dataset)
            self.calibration = self.calibration or proof
            self.draws[draw] = chosen
        return self.draws[draw]

    def _eight_bits(
        self, target: Target, source: Path, artefact: Path, imgsz: int, limits: Limits
    ) -> tuple[Verdict, Seen, list[TriedRecipe], Spec]:
        """Try recipes until one passes; return its results, or those of the best one if none does."""
        recipes = ("naive",) if target.recipe == "naive" else RECIPES[target.format]
        tried: list[TriedRecipe] = []
        attempts = []
        for number, recipe in enumerate(recipes):
            candidate = self.folder / f".{number}" / artefact.name
            candidate.parent.mkdir()
            spec = self._quantise(target, source, candidate, recipe, 0, imgsz)
            verdict, seen = self._judge(target, spec, limits)
            drop = verdict.figures["ap"]["drop"]
            after = verdict.figures["ap"]["artefact"]["map50_95"]
            tried.append({"recipe": recipe, "breaches": verdict.breaches, "map50_95": after, "ap_drop": drop})
            points = drop["points"] if drop["points"] is not None else 100.0
            attempts.append((bool(verdict.breaches), points, candidate, verdict, seen))
            if not verdict.breaches:
                break
        _, _, candidate, verdict, seen = min(attempts, key=lambda attempt: attempt[:2])
        os.replace(candidate, artefact)
        for number in range(len(attempts)):
            shutil.rmtree(self.folder / f".{number}")
        return verdict, seen, tried, self._spec(target, artefact, imgsz)

    def _quantise(self, target: Target, source: Path, artefact: Path, recipe: str, draw: int, imgsz: int) -> Spec:
        spec = self._spec(target, artefact, imgsz)
        chosen = self.calibration_images(draw)
        if target.format == "litert":
            if recipe != "static":  # `source` is static already: the converter exports and quantises
                source = self._write(target, self.temporary / recipe, imgsz, chosen, recipe)
            shutil.copyfile(source, artefact)
            return spec
        shown = calibration.Tensors(chosen, self.dataset, spec)
        if target.format == "openvino":
            allowed = self.config.limits.int8.max_ap_drop
            watch = (calibration.watched(self.dataset, chosen), self.dataset, spec)
            # Half of the allowed drop, because training images lose less than unseen ones.
            int8.quantise_openvino(source, artefact, shown, recipe, watch, (1.0 if allowed is None else allowed) / 2)
        else:
            int8.quantise_onnx(source, artefact, shown, recipe)
        return spec

    def _sensitivity(self, target: Target, source: Path, spec: Spec, first: TriedRecipe) -> Draws:
        """Measure average precision with other draws of calibration images, using the first recipe."""
        before = self.judge.figures(self.judge.reference(target.nms, spec["input"]["size"]).matches)["map50_95"]
        figures = [first["map50_95"]]
        # One draw for LiteRT, whose converter would take a minute for each.
        for draw in range(1, self.config.calibration.draws if target.format != "litert" else 1):
            folder = self.folder / ".draw"
            folder.mkdir()
            try:
                artefact = folder / targets.file_name(self.run.name, target)
                drawn = self._quantise(target, source, artefact, first["recipe"], draw, spec["input"]["size"])
                seen = self.judge.see(self._model(drawn), f"export: draw {draw + 1}")
            finally:
                shutil.rmtree(folder)
            figures.append(self.judge.figures(self.judge.match(seen))["map50_95"])
        draws: list[Draw] = [
            {
                "seed": self.seed + draw,
                "map50_95": after,
                "ap_drop": None if before is None or after is None else round(100 * (before - after), 4),
            }
            for draw, after in enumerate(figures)
        ]
        return {"seed": self.seed, "recipe": first["recipe"], "draws": draws}

    # --- What is handed out ---

    def _hand_out(
        self, target: Target, artefact: Path, spec: Spec, seen: Seen, entry: Artefact, verdict: Verdict
    ) -> Artefact:
        """Return the entry with its bundle. If that fails, the verdict becomes `refused`, and there is no bundle."""
        try:
            handed: HandedOut = self._bundle(target, artefact, spec, seen, entry)
        except (ExportError, runner.RunnerError) as error:  # TensorRT or its engine
            verdict.breaches.append(str(error))
            for engine in self.folder.glob(f"*-{entry['sha256'][:8]}.engine"):
                engine.unlink()
            return {**entry, "verdict": verdict.outcome}
        archive = self.folder / handed["bundle"]
        if target.format != "engine" and (failure := alone.selftest(archive, spec)):
            verdict.breaches.append(
                f"its bundle fails its self-test with only the packages of its requirements.txt: {failure}"
            )
            archive.unlink()
            return {**entry, "verdict": verdict.outcome}
        return {**entry, **handed}

    def _bundle(self, target: Target, artefact: Path, spec: Spec, seen: Seen, entry: Artefact) -> HandedOut:
        goldens = self.temporary / "golden"
        conf = entry["parity"]["from_score"]
        images = bundle.most_to_see(seen.single, self.judge.images, conf)
        received = settings.received(self.run, images)
        # Start from a score that the first image reaches: a self-test without boxes would pass on any device.
        bundle.golden(self._model(spec), images, goldens, min([conf, *spec["thresholds"].values()]), received)
        name = f"{self.run.name}-{target.format}-{target.precision}{target.variant}.zip"
        more: HandedOut = {}
        extra: dict[str, str] = {}
        if target.format == "engine":
            more, extra, spec = self._engine(target, artefact, spec, entry["sha256"][:8])
        provenance: bundle.Provenance = {
            "run": self.run.name,
            "source": {"file": self.run.model.name, "sha256": files.sha256(self.run.model)},
            "artefact_sha256": entry["sha256"],
            "proven": {
                "images": entry["parity"]["images"],
                "map50_95": entry["ap"]["artefact"]["map50_95"],
                "map50_95_of_model": entry["ap"]["model"]["map50_95"],
            },
            "versions": record.versions(),
        }
        bundle.write(self.folder / name, artefact, spec, provenance, goldens, extra)
        return {"bundle": name, "bundle_bytes": (self.folder / name).stat().st_size, **more}

    def _engine(self, target: Target, onnx: Path, spec: Spec, digest: str) -> tuple[HandedOut, dict[str, str], Spec]:
        """Check the ONNX model and make the device's build files; with a GPU and TensorRT, build and judge here too.

        Raises ExportError if TensorRT refuses the model, or if its engine gives other results.
        """
        shapes = tensorrt.profile(spec["input"]["size"], target.dynamic)
        checked = tensorrt.preflight(onnx, shapes)
        # The digest of the model, so that a bundle unpacked over an older one does not run the older engine.
        engine, exact = f"{onnx.stem}-{digest}.engine", target.precision == "fp32"
        more: HandedOut = {"preflight": checked, "built": "on the device, by the bundle's build.py or build.sh"}
        if tensorrt.can_build_here():
            tensorrt.build_here(onnx, self.folder / engine, shapes, exact)
            built: Spec = {**spec, "model": engine}
            limits: Limits = getattr(self.config.limits, target.precision)
            model = runner.Model(self.folder, built)
            verdict, _ = self.judge.judge(model, target.nms, limits, f"export: {engine}")
            if verdict.breaches:
                raise ExportError(f"{engine}: {verdict.in_a_line()}")
            more["built"] = {"file": engine, "sha256": files.sha256(self.folder / engine), **verdict.figures}
        spec = {**spec, "model": engine, "engine": tensorrt.facts(onnx, shapes, checked)}
        return more, tensorrt.device_files(onnx, engine, shapes, exact, checked), spec
