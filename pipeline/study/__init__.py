from pipeline.study.stage import main as main
