from pipeline.report.stage import main as main
