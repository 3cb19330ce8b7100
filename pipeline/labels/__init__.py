"""Labels that people made with `make label`, in `data/labels/`: `content` is their data model, `file` their format."""
