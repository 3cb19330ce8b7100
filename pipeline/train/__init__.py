from pipeline.train.stage import main as main
