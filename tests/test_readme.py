"""The README tells the truth about commands, files and links."""

from __future__ import annotations

import re

import yaml
from conftest import ROOT

from pipeline.__main__ import STAGES
from pipeline.config import Config

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    code = re.findall(r"```.*?```|`[^`\n]+`|^    make .*$", README, re.S | re.M)
    named = {name for block in code for name in re.findall(r"(?:^|`|\$ |    )make ([a-z-]+)", block, re.M)}
    assert len(named) > 5 and named <= targets, named - targets


def test_every_pipeline_command_named_exists() -> None:
    named = re.findall(r"python -m pipeline ([a-z]+)", README)
    assert set(named) <= {*STAGES, "params", "sample"}


def test_every_config_named_exists() -> None:
    named = set(re.findall(r"configs/([\w-]+\.yaml)", README)) - {"NAME.yaml", "mine.yaml"}
    assert named and all((ROOT / "configs" / name).is_file() for name in named)


def test_the_map_names_real_files() -> None:
    [block] = [block for block in re.findall(r"```text\n(.*?)```", README, re.S) if "pipeline/" in block]
    folder, named = "", set()
    for line in block.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            named.add(name)
        else:
            named.add(folder + name)
    assert not [name for name in named if not (ROOT / name).exists()]
    entries = [path for path in (ROOT / "pipeline").iterdir() if path.name not in ("__pycache__", "__init__.py")]
    assert {f"pipeline/{path.name}{'/' if path.is_dir() else ''}" for path in entries} <= named


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_yaml_in_the_readme_is_a_config() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        Config.model_validate({"convert": {"source": "x"}, **yaml.safe_load(block)})
