"""Annotation formats: one module each, found by name in `reading`."""

from pipeline.formats.reading import MODULES as MODULES
from pipeline.formats.reading import read as read
from pipeline.formats.reading import recognise as recognise
from pipeline.formats.reading import without_collection as without_collection
