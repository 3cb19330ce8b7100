from pipeline.extras.sample.dataset import main as main
