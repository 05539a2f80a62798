"""Pictures, masks and measured data: by name, from a file, or from an array.

Names of scikit-image's pictures (``"camera"``, ``"coffee"``) need no network. Names with a slash
(``"set5/baby"``) are fetched once, checked against a recorded sha256 and kept in a folder that
the environment variable ``LIPKIT_DATA`` can choose.
"""

from __future__ import annotations

from .faces import faces
from .images import image, mask, save
from .labels import digits, labelled
from .registry import file, names
from .scans import Scan, scan, scans

__all__ = [
    "Scan",
    "digits",
    "faces",
    "file",
    "image",
    "labelled",
    "mask",
    "names",
    "save",
    "scan",
    "scans",
]
