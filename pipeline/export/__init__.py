from pipeline.export.stage import main as main
