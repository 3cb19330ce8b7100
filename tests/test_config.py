from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from pydantic import ValidationError

from pipeline import config_reference
from pipeline.config.experiment import Config
from pipeline.config.loading import flow, load
from pipeline.errors import ConfigError

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))  # studies have their own folder


def refused(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(path)
    return str(error.value).replace(f"{path}: ", "").splitlines()


def test_configs_exist() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads(path: Path) -> None:
    load(path)


def test_the_sample_config_explains_every_key() -> None:
    """configs/sample.yaml is the manual: every key of the schema, each line with a comment."""
    path = ROOT / "configs" / "sample.yaml"
    data = yaml.safe_load(path.read_text())
    for section, field in Config.model_fields.items():
        name = field.alias or section
        if name in ("seed", "tiles"):  # not a section; the sample has a comment instead
            continue
        known = set(type(load(path).section(name)).model_fields)
        assert set(data[name]) == known, name
    lines = [
        line
        for line in path.read_text().splitlines()
        if line.startswith("  ") and not line.strip().startswith(("#", "-"))
    ]
    assert all("#" in line or line.rstrip().endswith(":") for line in lines)


def test_the_reference_page_is_generated_from_the_config() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == config_reference.page(), "python -m pipeline.config_reference > docs/config.md"


SECTIONS = dict(config_reference.sections())


def test_the_reference_page_has_every_section() -> None:
    assert {"", "train", "train.phases[].batchnorm", "convert.split", "validate.wanted", "export.targets[]"} < {
        *SECTIONS
    }


@pytest.mark.parametrize("path", SECTIONS)
def test_the_sample_names_every_key_the_reference_explains(path: str) -> None:
    text = (ROOT / "configs" / "sample.yaml").read_text()
    top = re.split(r"[.\[]", path)[0]
    [block] = re.findall(rf"^{top}:.*?(?=^\w|\Z)", text, re.M | re.S) if top else [text]
    rows = config_reference.rows(SECTIONS[path])
    assert rows
    for key, _, _, meaning in rows:
        assert re.search(rf"\b{key}\b", block), key
        assert meaning.endswith("."), key


def test_the_sample_comments_state_the_defaults() -> None:
    """A non-default value has `(default X)` or `(no default)` in its comment."""
    path = ROOT / "configs" / "sample.yaml"
    config, defaults = load(path), Config.model_validate({"convert": {"source": "x"}})
    for section in ("convert", "augment", "train", "validate", "inspect", "report", "export"):
        for key, value in config.section(section):
            marked = any(f"  {key}:" in line and "default" in line for line in path.read_text().splitlines())
            differs = value != getattr(defaults.section(section), key)
            assert differs == marked, f"{section}.{key}"


def test_a_loaded_config_is_immutable() -> None:
    config = load(CONFIGS[0])
    with pytest.raises(ValidationError):
        config.train.imgsz = 32


def test_all_errors_are_reported_at_once_with_suggestions(tmp_path: Path) -> None:
    text = """
convert: {source: x, format: vocc}
train: {epoch: 3, imgsz: 100, phases: [{epochs: 0}, {epoch: 1}], batch: .nan}
exprot: {}
validate: {conf: 2}
"""
    assert refused(tmp_path, text) == [
        "convert.format: 'vocc' is not one of auto, coco, voc, yolo, labelme, cvat, kitti, openimages, csv, createml, labelstudio, via, supervisely, vott, datumaro, labelbox, ultralytics, dota, huggingface, visdrone, widerface, mot, bdd, superannotate, fiftyone:TYPE; did you mean 'voc'?",
        "train.imgsz: input should be a multiple of 32, got 100",
        "train.batch: input should be a finite number, got nan",
        "train.phases.0.epochs: input should be greater than or equal to 1, got 0",
        "train.phases.1.epochs: required key is missing; add it",
        "train.phases.1.epoch: unknown key; did you mean 'epochs'?",
        "train.epoch: unknown key; arguments of Ultralytics go into train.args",
        "validate.conf: input should be less than 1, got 2",
        "exprot: unknown key; did you mean 'export'?",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("convert: {source: x}\ntrain: {epochs: 5}", "train.epochs: unknown key; it belongs to each of train.phases"),
        ("", "has no keys; configs/sample.yaml shows all of them"),
        ("- a", "has no keys; configs/sample.yaml shows all of them"),
        ("convert: {source: x", "not YAML: line 1: expected ',' or '}', but got '<stream end>'; correct that line"),
        ("convert: {source: x}\naugment: {copies: 1, transforms: [{Pad: {value: [1, .nan]}}]}", "augment.transforms.0.Pad.value: must be a finite number, got nan"),
        ("convert: {source: x}\ntrain: {args: {lrf: -.inf}}", "train.args.lrf: must be a finite number, got -inf"),
        ("seed: 1\nconvert: {source: x}\nseed: 2", "not YAML: line 3: key 'seed' appears twice; correct that line"),
        ("convert: {source: x, classes: [yes, no]}", "convert.classes: YAML reads a class as True, not as text; put it in quotes"),
        ("convert: {source: x, classes: {no: a}}", "convert.classes: YAML reads a class as False, not as text; put it in quotes"),
        ("convert: {source: x, classes: {a: 7}}", "convert.classes: YAML reads a class as 7, not as text; put it in quotes"),
        ("convert: {source: x, classes: {a: b, c: ''}}", "convert.classes: a class has an empty name; write a name, or null to drop the class"),
        ("convert: {source: x, classes: ['', a]}", "convert.classes: a class has an empty name; write a name, or null to drop the class"),
        ("convert: {source: x, classes: {a: null}}", "convert.classes: this drops every class; keep at least one"),
        ("convert: {source: x, group_by: '('}", "convert.group_by: '(' is not a regular expression: missing ), unterminated subpattern at position 0; correct it"),
        ("convert: {source: x, group_by: '(a)(b)'}", "convert.group_by: '(a)(b)' has 2 groups; keep one, which names the video, patient or board"),
        ("convert: {source: x, classes: [a, a]}", "convert.classes: a appears twice; keep one"),
        ("convert: {source: x, split: {train: 0.5, val: 0.1}}", "convert.split: train, val and test add up to 0.6, not 1; correct the ratios"),
        ("convert: {source: x}\ntrain: {phases: []}", "train.phases: the list is empty; write at least one item, or remove the key"),
        ("convert: {source: x}\naugment: {copies: 2}", "augment: copies without transforms would only repeat the images; add transforms"),
        ("convert: {source: x}\naugment: {transforms: [{A: {}, B: {}}]}", "augment: transforms.0: 2 names; write one `- Name: {argument: value}` per line"),
        ("convert: {source: x}\nexport: {targets: [{format: onnx}, {format: onnx}]}", "export: targets: the same target appears twice; keep one"),
        ("convert: {source: x}\nexport: {targets: [{format: tflite}]}", "export.targets.0.format: input should be 'onnx', 'openvino', 'ncnn', 'torchscript', 'litert' or 'engine', got 'tflite'; did you mean 'litert'?"),
        ("convert: {source: x}\nexport: {targets: [{format: ncnn, quantize: 8}]}", "export.targets.0: ncnn does not support `quantize: 8`; use null, 16"),
        ("convert: {source: x}\nexport: {targets: [{format: onnx, quantize: 4}]}", "export.targets.0: onnx does not support `quantize: 4`; use null, 16, 8"),
        ("convert: {source: x}\nexport: {targets: [{format: ncnn, dynamic: true}]}", "export.targets.0: ncnn takes no `dynamic`; onnx, engine do"),
        ("convert: {source: x}\nexport: {targets: [{format: litert, nms: false}]}", "export.targets.0: litert takes no `nms`; onnx, openvino, torchscript do"),
        ("convert: {source: x}\nexport: {targets: [{format: onnx, recipe: naive}]}", "export.targets.0: `recipe` is for onnx and openvino with `quantize: 8`"),
        ("convert: {source: x}\nexport: {limits: {int8: {max_ap_dorp: 1}}}", "export.limits.int8.max_ap_dorp: unknown key; did you mean 'max_ap_drop'?"),
        ("convert: {source: !!python/object/apply:os.system [true]}", "not YAML: line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'; correct that line"),
    ],
)  # fmt: skip
def test_each_error_is_one_sentence(tmp_path: Path, text: str, line: str) -> None:
    assert line in refused(tmp_path, text)


ONE_LINE = {
    "train: {phases: [{epochs: 1, freeze: bakbone}]}": "train.phases.0.freeze: 'bakbone' is not one of backbone, all-but-head, none, a number of layers or a list; did you mean 'backbone'?",
    "train: {phases: [{epochs: 1, freeze: 23.cv3}]}": "train.phases.0.freeze: '23.cv3' is not one of backbone, all-but-head, none, a number of layers or a list; a part of a layer goes into a list: ['23.cv3']",
    "train: {phases: [{epochs: 1, freeze: '10'}]}": "train.phases.0.freeze: '10' is text; write the number without quotes",
    "train: {phases: [{epochs: 1, freeze: []}]}": "train.phases.0.freeze: the list is empty; name layers, or write none",
    "train: {phases: [{epochs: 1, freeze: [1.5]}]}": "train.phases.0.freeze: 1.5 in the list is neither the number nor the name of a layer",
    "train: {phases: [{epochs: 1, freeze: -1}]}": "train.phases.0.freeze: write backbone, all-but-head, none, a number of layers or a list, not -1",
    "train: {phases: [{epochs: 1, freeze: true}]}": "train.phases.0.freeze: write backbone, all-but-head, none, a number of layers or a list, not True",
    "train: {phases: {epochs: 1}}": "train.phases: write a list, one item per line beginning with `- `, not {'epochs': 1}",
    "train: {phases: [backbone]}": "train.phases.0: write {key: value} here (keys are epochs, freeze, lr, ...), not 'backbone'",
    "train: {cache_features: yse}": "train.cache_features: input should be 'auto', True or False, got 'yse'",
    "train: {recipe: atuo}": "train.recipe: input should be 'auto', 'quick', 'thorough' or 'ultralytics', got 'atuo'; did you mean 'auto'?",
    "train: {recipe: quick, phases: [{epochs: 1}]}": "train: `phases` and `recipe: quick` both say how long to train; keep one of them",
    "train: {recipe: thorough, phases: [{epochs: 1}]}": "train: `phases` and `recipe: thorough` both say how long to train; keep one of them",
    "export: {targets: onnx}": "export.targets: write a list, one item per line beginning with `- `, not 'onnx'",
    "export: {targets: [onnx]}": "export.targets.0: write {key: value} here (keys are format, quantize, nms, ...), not 'onnx'",
    "export: {targets: []}": "export.targets: the list is empty; write at least one item, or remove the key",
    "export: {targets: [{format: onxx}]}": "export.targets.0.format: input should be 'onnx', 'openvino', 'ncnn', 'torchscript', 'litert' or 'engine', got 'onxx'; did you mean 'onnx'?",
    "validate_: {conf: 0.5}": "validate_: unknown key; did you mean 'validate'?",
    "validate: conf:0.5": "validate: write {key: value} here (keys are conf, iou, max_det, ...), not 'conf:0.5'; a space is missing after the colon",
    "validate: 0.5": "validate: write {key: value} here (keys are conf, iou, max_det, ...), not 0.5",
}
ONE_LINE_OF_CONVERT = {
    "split: givn": "convert.split: input should be 'given', got 'givn'; did you mean 'given'?",
    "split: 0.8": "convert.split: input should be 'given', got 0.8; or shares: {train: 0.8, val: 0.2}",
    "split: 70": "convert.split: input should be 'given', got 70; or shares: {train: 0.7, val: 0.15, test: 0.15}",
    "split: {train: 0.7, val: 0.2}": "convert.split: train, val and test add up to 0.9, not 1; correct the ratios",
    "split: {train: 0.7, vla: 0.1, val: 0.3}": "convert.split.vla: unknown key; did you mean 'val'?",
    "split: {train: a, val: 0.3}": "convert.split.train: input should be a valid number, unable to parse string as a number, got 'a'",
    "leaks: reprot": "convert.leaks: input should be 'report', 'move' or 'error', got 'reprot'; did you mean 'report'?",
    "classes: cell": "convert.classes: write a list of names, or {name: our name, other: null}, not 'cell'",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *((f"convert: {{source: x}}\n{text}", line) for text, line in ONE_LINE.items()),
        *((f"convert: {{source: x, {text}}}", line) for text, line in ONE_LINE_OF_CONVERT.items()),
    ],
)
def test_an_error_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    assert refused(tmp_path, text) == [line]


def test_a_missing_file_suggests_a_similar_name() -> None:
    with pytest.raises(ConfigError, match=r"no such file; did you mean '.*bccd.yaml'"):
        load(ROOT / "configs" / "bcd.yaml")


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "convert: {source: x, classes: ['1e5', 1e, e5, 0x1e5g]}\n"
        "train: {lr0: 1e-3, args: {weight_decay: 1e-4, box: 5E3, cls: -1e+2, dfl: 1.5e1, dis: '1e-4'}}"
    )
    config = load(path)
    assert config.train.lr0 == 0.001
    assert config.train.args == {"weight_decay": 1e-4, "box": 5000.0, "cls": -100.0, "dfl": 15.0, "dis": "1e-4"}
    assert config.convert.classes == ("1e5", "1e", "e5", "0x1e5g")


def test_text_that_looks_like_a_number_is_written_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"convert: {{source: x, classes: {flow(['1e5', 'a', '7'])}}}")
    assert load(path).convert.classes == ("1e5", "a", "7")
