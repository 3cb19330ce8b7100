"""Plot a training: losses, validation mAP and learning rates over all epochs, with the borders of its phases."""

from __future__ import annotations

from pipeline import files, history
from pipeline.run import Run

PANELS = {
    "loss (solid: train, dashed: val)": ("train/", "val/"),
    "mAP on val": ("metrics/mAP",),
    "learning rate": ("lr/",),
}


def draw(run: Run) -> None:
    """Write `curves.png` into `run.train`. Val figures are those of the epochs that were validated."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs, borders = history.read(run)
    figure = Figure(figsize=(8, 9), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (label, starts) in zip(figure.subplots(len(PANELS), sharex=True), PANELS.items(), strict=True):
        columns = dict.fromkeys(key for row in epochs for key in row if key.startswith(starts))
        for column in columns:
            if points := history.points(epochs, column):
                dash = "--" if column.startswith("val/") else "-"
                name = column.removeprefix("metrics/").removesuffix("(B)")
                axes.plot(*zip(*points, strict=True), dash, marker="o", markersize=3, label=name)
        for border in borders:
            axes.axvline(border, color="0.5", linewidth=0.9, linestyle=":")
        axes.set(ylabel=label, xlim=(0.5, len(epochs) + 0.5))
        axes.grid(alpha=0.2)
        if len(axes.lines) > len(borders):
            axes.legend(frameon=False, fontsize=8, ncols=3)
    axes.set(xlabel="epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    target = run.train / "curves.png"
    with files.replacing(target) as partial:
        figure.savefig(partial, dpi=110)
