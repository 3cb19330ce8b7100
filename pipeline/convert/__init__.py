from pipeline.convert.stage import main as main
