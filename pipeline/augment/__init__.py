from pipeline.augment.stage import main as main
