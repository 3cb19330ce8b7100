"""Write what a bundle tells its user: README.txt and requirements.txt."""

from __future__ import annotations

from pipeline.device.runner import Spec

README = """Object detector {name}: {format}, {precision}.

    pip install -r requirements.txt                        Python 3.8 or newer
    python run.py --selftest                               check that this device gives the proven results
    python run.py photo.jpg folder/ film.mp4               python run.py --help lists all options

Each image gives a line of JSON. A `bbox` is x, y, width and height in pixels of the upright image, from its upper left
corner.

{engine}SHA256SUMS lists every file (`sha256sum -c SHA256SUMS`); model.json describes the model's input and output.
"""
REQUIREMENTS = """# Python 3.8 or newer, as far as the runtime supports it. The model was proven with:{proven}
numpy
# Leave this out where `import cv2` already works, as on a Jetson. For images alone, pillow is enough.
opencv-python-headless
{packages}
"""
ENGINE = """An engine runs only on the kind of GPU it was built on, so build it from this bundle on the device:

    python build.py        (with TensorRT's Python package)      or      sh build.sh      (with trtexec)

It needs TensorRT 10 or later. On a Jetson, JetPack 6.1 or later has it, with OpenCV: install nothing from
requirements.txt there, and use its Python, or `python3 -m venv --system-site-packages .venv`.

"""
# No line for pip, which would put another build beside the one of a Jetson.
TENSORRT = "# TensorRT 10 or later. JetPack 6.1 or later has it; for another NVIDIA GPU: pip install tensorrt"


def readme(spec: Spec, name: str) -> str:
    engine = ENGINE if spec["format"] == "engine" else ""
    return README.format(name=name, format=spec["format"], precision=spec["precision"], engine=engine)


def requirements(packages: list[str], versions: dict[str, str]) -> str:
    """Return requirements.txt; `versions` are those with which the model was proven."""
    proven = "".join(f"\n#   {name} {versions[name]}" for name in versions if name in packages)
    lines = [TENSORRT if name == "tensorrt" else name for name in packages]
    return REQUIREMENTS.format(proven=proven or " none", packages="\n".join(lines))
