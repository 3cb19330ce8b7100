"""What to label next, with boxes drawn beforehand."""

from pipeline.label.stage import main as main
