from pipeline.new.stage import main as main
