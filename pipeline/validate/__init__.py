from pipeline.validate.stage import main as main
