"""The arithmetic of detection, once for all stages.

iou                 overlap of boxes
matching            which prediction found which object
precision_recall    curves, and the area under them
bootstrap           how far figures move by chance
coco                COCO's figures, through faster-coco-eval
"""
