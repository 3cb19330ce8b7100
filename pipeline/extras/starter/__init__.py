from pipeline.extras.starter.training import main as main
