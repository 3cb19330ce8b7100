"""What to label next, with boxes drawn beforehand, and the corrections back."""

from pipeline.label.correct import open_app as open_app
from pipeline.label.stage import main as main
from pipeline.label.tools import lay_out as lay_out
from pipeline.label.tools import take_back as take_back
