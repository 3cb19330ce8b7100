"""The files of a run that no record describes: name, what writes it, and content, in Markdown."""

OTHERS = (
    (
        "`dataset/`",
        "`make convert`",
        "`images/SPLIT/`, `labels/SPLIT/` with YOLO's text, and `data.yaml`, which Ultralytics reads",
    ),
    (
        "`augmented/`",
        "`make augment`",
        "what training reads, in the same layout: training images with their copies, and tiles of train and val; "
        "its `data.yaml` takes the other splits from `dataset/`",
    ),
    (
        "`augmented/augment.json`",
        "`make augment`",
        "each training image with its copies: boxes by class, and `lost` boxes with their visible share; with "
        "totals, and the factor by which images of a class are repeated",
    ),
    (
        "`augmented/preview.jpg`",
        "`make augment`",
        "some training images beside their copies; missing without copies",
    ),
    (
        "`features/`",
        "`make train`",
        "outputs of frozen layers, computed once per image: `.bin` in half precision, and `.json` with shapes and "
        "sizes; safe to delete",
    ),
    (
        "`train/look.json`",
        "`make train`",
        "`accuracy` of a linear probe on the source's layers, by number, and `kept`, that of the backbone's last "
        "layer as a share of the best; missing if the recipe does not look at the images",
    ),
    (
        "`train/minutes.json`",
        "`make train`",
        "with `train.minutes`: how many `epochs` of all layers fit, and the `epoch_seconds` of one",
    ),
    (
        "`train/curves.png`",
        "`make train`",
        "losses, mAP on val and learning rates over the epochs of all phases",
    ),
    (
        "`train/phaseN/results.csv`",
        "`make train`",
        "Ultralytics' table of the epochs; figures of val are 0 in epochs that were not validated",
    ),
    (
        "`train/phaseN/phase.json`",
        "`make train`",
        "the phase's part of `train.json`",
    ),
    (
        "`train/phaseN/model.pt`",
        "`make train`",
        "the weights that the phase keeps",
    ),
    (
        "`train/phaseN/`",
        "`make train`",
        "also Ultralytics' `args.yaml` and plots; `digests.json` for the proof, `matches.npz` for the gain; and "
        "`progress.json`, `precision.json` and `features.json`, whose content `phase.json` repeats",
    ),
    (
        "`train/unfinished.json`, `train/phaseN/resume*.pt`",
        "`make train`",
        "what a killed training needs to resume; deleted when it has finished",
    ),
    (
        "`train/finished.json`",
        "`make train`",
        "what the training depended on: config, weights, code, images and labels; if all is as before, the next "
        "`make train` keeps the model",
    ),
    (
        "`model.pt`",
        "`make train`",
        "the model: an Ultralytics checkpoint, a copy of the best phase's",
    ),
    (
        "`export/`",
        "`make export`",
        "the exported models, the bundles for the device (`.zip`), and engines that were built on this machine",
    ),
    (
        "`export_refused.json`",
        "`make export`",
        "the manifest of an export with a refused target, described as `export/manifest.json`; the next export that "
        "passes deletes it",
    ),
    (
        "`report/index.html`",
        "`make report`",
        "the page, with all its images and plots inside",
    ),
    (
        "`embeddings.npz`",
        "`make inspect`",
        "`vectors`, a row for each image from the end of the model's backbone, and `made_from`; safe to delete",
    ),
    (
        "`label/sheet.jpg`",
        "`make label`",
        "the batch as one image, at most its first 100 images",
    ),
    (
        "`label/seen.sqlite`",
        "`make label`",
        "a cache of what the model saw in each image; safe to delete",
    ),
    (
        "`label/shown/`",
        "`make label`",
        "the PNGs that `shown` in `label/next.json` names",
    ),
    (
        "`label/TOOL/`, `label/TOOL.json`",
        "`make label AS=TOOL`",
        "images and boxes in the layout of the tool, and the batch as in `label/next.json`",
    ),
    (
        "`logs/STAGE.log`",
        "each stage",
        "what libraries wrote when it last ran without `VERBOSE=1`; errors name it; missing without output",
    ),
    (
        "`params/STAGE.json`",
        "`make`",
        "the part of the config that the stage depends on",
    ),
    (
        "`params/made_by.json`",
        "`make`",
        "the config file that made the run, so that another one of the same name does not overwrite it",
    ),
    (
        "`params/`",
        "`make`",
        "also the state of the other inputs, by which make knows what to run again: `source.json`, `beside.json` "
        "(fixes, splits, labels), `weights.json`, `retention.json`, `against.json`",
    ),
)
