"""The base class of all sections of a config."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    # Not strict, because YAML has lists and text where sections have tuples and paths.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _without_nan(value: Any) -> Any:
    """Refuse NaN and infinity in arguments that another library checks."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {value}")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _without_nan(part)
    return value


Argument = Annotated[Any, AfterValidator(_without_nan)]
