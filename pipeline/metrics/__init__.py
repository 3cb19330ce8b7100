"""Compute detection metrics, in one place for all stages.

iou                 intersection over union of boxes
matching            matches predictions with objects, as COCO does
precision_recall    precision-recall curves and average precision
bootstrap           confidence intervals by resampling images
coco                COCO's figures, computed by faster-coco-eval
"""
