"""What `train` and `starter` use of `upstream`, under one name."""

from pipeline.upstream.checkpoints import COCO, HOME, STARTER, find, imgsz_of, load, locate
from pipeline.upstream.environment import check_device, device_name, is_gpu, prepare

__all__ = [
    "COCO",
    "HOME",
    "STARTER",
    "check_device",
    "device_name",
    "find",
    "imgsz_of",
    "is_gpu",
    "load",
    "locate",
    "prepare",
]
