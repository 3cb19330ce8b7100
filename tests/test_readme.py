"""The README and docs/ tell the truth about commands, files, links and figures."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from pipeline.config.experiment import Config
from pipeline.config.study import Study
from pipeline.options import OTHERS, STAGES

PAGES = [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
ALL = "\n\n".join(TEXTS.values())
of_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    code = [
        code for text in TEXTS.values() for code in re.findall(r"```.*?```|`[^`\n]+`|^    make .*$", text, re.S | re.M)
    ]
    named = {name for block in code for name in re.findall(r"(?:^|`|\$ |    )make ([a-z-]+)", block, re.M)}
    assert len(named) > 5 and named <= targets, named - targets


def test_every_pipeline_command_named_exists() -> None:
    named = re.findall(r"python -m pipeline ([a-z]+)", ALL)
    assert set(named) <= {*STAGES, *OTHERS}


def test_every_config_named_exists() -> None:
    named = set(re.findall(r"configs/([\w-]+\.yaml)", ALL)) - {"NAME.yaml", "mine.yaml"}
    assert named and all((ROOT / "configs" / name).is_file() for name in named)


def test_the_project_map_names_real_files() -> None:
    [block] = [block for block in re.findall(r"```text\n(.*?)```", ALL, re.S) if "pipeline/" in block]
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


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub generates them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@of_each_page
def test_every_link_has_a_target(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", TEXTS[page]):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_every_page_is_linked_from_the_readme() -> None:
    named = {(ROOT / target).resolve() for target in re.findall(r"\]\(([^)#]+\.md)", TEXTS[ROOT / "README.md"])}
    assert set(PAGES) - {ROOT / "README.md"} <= named


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_every_page_starts_with_its_purpose(page: Path) -> None:
    assert re.match(r"# .+\n\nThis page ", TEXTS[page])


def test_yaml_in_the_documentation_is_valid_config() -> None:
    blocks = [block for text in TEXTS.values() for block in re.findall(r"^ *```yaml\n(.*?)```", text, re.S | re.M)]
    assert len(blocks) > 2
    for block in blocks:
        keys = yaml.safe_load(textwrap.dedent(block))
        if "rows" in keys:
            Study.model_validate(keys)
        else:
            Config.model_validate({"convert": {"source": "x"}, **keys})


# --- Figures: benchmark figures come from the files that the benchmarks wrote ----------------------------
#
# `<!-- figures: FILE, ... -->` above a table, a fenced block or a paragraph names its sources. Lines of tables and fenced
# blocks must occur in a source verbatim; numbers in a paragraph must be numbers in a source.

SOURCES = re.compile(r"<!-- figures: (.+) -->")
NUMBER = re.compile(r"(?<![\w.,:/-])\d[\d,]*(?:\.\d+)?(?![\w.]*\d)")
# What counts as a measurement: a decimal number, or one with a unit.
MEASURED = re.compile(r"(?<![\w./-])\d+\.\d+(?![\w.]*\d)|\b\d[\d,]* (?:s|ms|MB|points|times|hours?)\b")
VERSION = re.compile(r"\b(?:Python|Ultralytics|torch) \d+(?:\.\d+)+(?: to \d+(?:\.\d+)+)?")


def blocks(text: str) -> list[tuple[list[str], str]]:
    """Each table, fenced block and paragraph with the sources named in the comment above it."""
    found, lines, fenced = [], [""], False
    for line in [*text.splitlines(), ""]:
        fenced ^= line.lstrip().startswith("```")
        if line.strip() or fenced:
            lines.append(line)
        elif lines:
            [sources] = SOURCES.findall(lines[0]) or [""]
            found.append((re.split(r", ", sources) if sources else [], "\n".join(lines[bool(sources) :])))
            lines = []
    return found


def words(text: str) -> str:
    """The text without code, URLs and versions."""
    return VERSION.sub("", re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text))


def is_literal(block: str) -> bool:
    return block.startswith(("|", "```"))


def is_measured(block: str) -> bool:
    """Whether its figures need a source: code other than console output does not."""
    return block.lstrip().startswith("```console") or not (block.startswith("    ") or block.lstrip().startswith("```"))


def complaints(text: str) -> list[str]:
    """Figures not found in their sources, and figures without a source."""
    said = []
    for sources, block in blocks(text):
        known = "\n".join((ROOT / source).read_text(encoding="utf-8") for source in sources)
        if is_literal(block) and sources:
            lines = {line.strip() for line in known.splitlines()}
            said += [line for line in block.splitlines() if line.strip() and line.strip() not in lines]
        elif sources:
            said += [
                f"{number} in: {block}"
                for number in NUMBER.findall(words(block))
                if number not in NUMBER.findall(known)
            ]
        elif is_measured(block) and (figures := MEASURED.findall(words(block))):
            said.append(f"no source for {', '.join(figures)} in: {block}")
    return said


@of_each_page
def test_every_figure_matches_its_source(page: Path) -> None:
    assert complaints(TEXTS[page]) == []


def test_a_changed_digit_in_any_figure_is_noticed() -> None:
    """Raise a digit of every number in every sourced table and console block, one at a time."""
    noticed = 0
    for sources, block in (found for text in TEXTS.values() for found in blocks(text)):
        comment = f"<!-- figures: {', '.join(sources)} -->\n"
        for number in NUMBER.finditer(block) if sources and is_literal(block) else ():
            digit = str((int(block[number.start()]) + 1) % 10)
            assert complaints(comment + block[: number.start()] + digit + block[number.start() + 1 :])
            noticed += 1
    assert noticed > 100


@pytest.mark.parametrize("text", ["It takes 8.7 s.", "It is 12 times faster.", "| a | b |\n|---|---|\n| x | 0.595 |"])
def test_a_figure_without_a_source_is_noticed(text: str) -> None:
    [complaint] = complaints(text)
    assert complaint.startswith("no source for ")


def test_config_comments_state_no_accuracy() -> None:
    """Such figures would go stale; tables have them."""
    for path in (ROOT / "configs").glob("*.yaml"):
        assert not re.findall(r"#.*\b0\.[1-9]\d\d\b", path.read_text(encoding="utf-8")), path


def test_training_tables_are_printed_from_their_records() -> None:
    script = ROOT / "benchmarks" / "train_table.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "benchmarks" / "train.md").read_text(encoding="utf-8")
