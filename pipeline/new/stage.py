"""Take a first look at a folder: print what is in it, and write a config to start from."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pipeline import files, logs
from pipeline.config.experiment import Config
from pipeline.errors import ConfigError
from pipeline.new import choices, contents, words


def main(source: Path, config: Path | None = None, format_name: str = "auto") -> str:
    """Print what `source` holds, and write a config for it, by default `configs/FOLDER.yaml`.

    Raises DataError, with what to do, if the folder cannot be read as labelled images, and ConfigError if the config
    exists already: nothing is overwritten.
    """
    target = config or config_for(source)
    seen = contents.look(source, format_name)
    chosen = choices.choose(seen)
    for line in words.lines(seen, chosen):
        logs.say(line)
    if target.exists():
        raise ConfigError(
            f"{target}: already exists and was not changed; delete it, or name another file: CONFIG=configs/OTHER.yaml"
        )
    text = words.config(seen, chosen, target)
    Config.model_validate(yaml.safe_load(text))
    files.write_text(target, text)
    after = "do what is listed under `to do`, then run" if words.to_do(seen) else "next:"
    return f"wrote {target}; {after} make all CONFIG={target}"


def config_for(source: Path) -> Path:
    """Return `configs/NAME.yaml` for a folder, with dashes for spaces, which make does not accept in a file name."""
    name = re.sub(r"[^\w.-]+", "-", source.absolute().name).strip("-.")
    return Path("configs") / f"{name or 'new'}.yaml"
