from pipeline.inspect.stage import main as main
from pipeline.inspect.stage import save_fixes as save_fixes
