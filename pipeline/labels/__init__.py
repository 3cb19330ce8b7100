"""Labels that people made with `make label`, in `data/labels/`: `content` is what they say, `file` how it is kept."""
