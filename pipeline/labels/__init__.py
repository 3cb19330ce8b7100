"""Labels that people made with `make label`, in `data/labels/`: `content` is what they say, `file` how it is kept."""

from pipeline.labels.content import *  # noqa: F403
from pipeline.labels.file import *  # noqa: F403
