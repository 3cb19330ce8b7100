"""Compute detection metrics, in one place for all stages.

iou                 computes the intersection over union of boxes
matching            matches predictions with objects, as COCO does
precision_recall    computes precision-recall curves and average precision
bootstrap           computes confidence intervals by resampling images
coco                computes COCO's figures with faster-coco-eval
"""
