"""Set up Jinja for pages: text is escaped, and an undefined name is an error."""

from __future__ import annotations

from pathlib import Path

import jinja2

from pipeline.report import words


def environment(folder: Path) -> jinja2.Environment:
    """Return an environment for the templates in a folder."""
    created = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    created.filters["counted"] = words.counted
    return created
