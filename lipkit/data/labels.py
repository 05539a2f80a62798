"""Small pictures with labels, for transfer to and from classification."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import FileError, InputError, check_whole
from . import registry

_TRAINING_DIGITS = 1297  # of 1,797; the other 500 are for testing
_ARCHIVE = "cifar10/cifar-10-binary.tar.gz"
_BATCHES = {
    "train": [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)],
    "test": ["cifar-10-batches-bin/test_batch.bin"],
}
_RECORD = 1 + 3 * 32 * 32  # a label, then red, green and blue
_BATCH_BYTES = 10_000 * _RECORD


def digits() -> tuple[Tensor, Tensor]:
    """Return 1,797 handwritten digits [N, 1, 8, 8] in [0, 1] and what they are [N].

    The test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI
    Machine Learning Repository, 1998; CC BY 4.0), in its order.

    >>> import lipkit as lk
    >>> images, labels = lk.data.digits()
    >>> images.shape, labels[:3]
    (torch.Size([1797, 1, 8, 8]), tensor([0, 1, 2]))
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        table = torch.from_numpy(file["digits"])
    return table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].long()


def labelled(name: str, part: str = "train", first: int | None = None) -> tuple[Tensor, Tensor]:
    """Return pictures [N, C, H, W] in [0, 1] and labels [N] of a part of a set, in fixed order.

    Args:
        name: "digits" (1,297 to train and 500 to test, 8 × 8, grey), or "cifar10" (50,000 and
            10,000, 32 × 32, colour), which is fetched once: 170 MB.
        part: "train" or "test".
        first: only so many.

    >>> import lipkit as lk
    >>> lk.data.labelled("digits", "test")[0].shape
    torch.Size([500, 1, 8, 8])
    """
    if part not in _BATCHES:
        raise InputError(f"part must be 'train' or 'test', got {part!r}")
    if first is not None:
        check_whole("first", first, least=1)
    if name == "digits":
        half = slice(_TRAINING_DIGITS) if part == "train" else slice(_TRAINING_DIGITS, None)
        return tuple(x[half][:first] for x in digits())
    if name == "cifar10":
        return _read_cifar10(registry.file(_ARCHIVE), _BATCHES[part], first)
    raise InputError(f"the labelled sets are 'digits' and 'cifar10', got {name!r}")


def _read_cifar10(path: Path, batches: list[str], first: int | None) -> tuple[Tensor, Tensor]:
    """Read records of the archive in memory: nothing in it decides where a file is written."""
    enough = batches if first is None else batches[: -(-first // 10_000)]
    try:
        with tarfile.open(path, "r:gz") as archive:
            data = b"".join(_member(archive, name) for name in enough)
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise FileError(
            f"{path} is not the CIFAR-10 archive of binary files ({error}); "
            "move it away and it will be fetched again."
        ) from error
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)[:first]
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255
    return torch.from_numpy(pixels), torch.from_numpy(records[:, 0].astype(np.int64))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(name)
    file = archive.extractfile(member) if member.isreg() else None
    if file is None or member.size != _BATCH_BYTES:
        raise tarfile.TarError(f"{name} is not a file of 10,000 pictures")
    return file.read(_BATCH_BYTES)
