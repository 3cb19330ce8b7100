from pipeline.rank.stage import main as main
