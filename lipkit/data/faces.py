"""Procedural faces: as many as one likes, of known parameters, and nobody's.

The parameters are listed in faces.csv. One of law "bell" is normal, of mean `first` and standard
deviation `second`, cut at two of these; one of law "even" lies anywhere from `first` to `second`.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import check_whole
from ..workers import parallel
from . import portrait

# from the first colour to the last, as a viewer sees them
_SKIN = [
    (0.97, 0.83, 0.75), (0.92, 0.73, 0.61), (0.80, 0.60, 0.46),
    (0.60, 0.41, 0.29), (0.38, 0.25, 0.18),
]  # fmt: skip
_HAIR = [
    (0.09, 0.07, 0.07), (0.20, 0.13, 0.10), (0.38, 0.24, 0.16),
    (0.60, 0.43, 0.26), (0.85, 0.70, 0.46),
]  # fmt: skip
_IRIS = [
    (0.20, 0.12, 0.08), (0.36, 0.22, 0.12), (0.45, 0.42, 0.24),
    (0.36, 0.50, 0.42), (0.38, 0.55, 0.70),
]  # fmt: skip


def faces(
    n: int, size: int = 64, seed: int = 0, parameters: bool = False
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Paint `n` faces: a float32 tensor [n, 3, size, size] with values in [0, 1].

    Face i of a seed is the same whatever `n` and, resolution apart, whatever `size`. With
    `parameters` also the numbers that each was painted from: a dict of tensors [n].

    >>> import lipkit as lk
    >>> pictures, known = lk.data.faces(2, size=32, seed=1, parameters=True)
    >>> pictures.shape, known["smile"].shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2]))
    """
    check_whole("n", n)
    check_whole("size", size, least=4)
    check_whole("seed", seed)
    known = draw(n, seed)
    pictures = torch.empty(n, 3, size, size)
    chunk = max(1, 2**16 // size**2)  # a field of a chunk stays in the cache

    def paint_chunk(start: int) -> None:
        some = {name: value[start : start + chunk] for name, value in known.items()}
        pictures[start : start + chunk] = render(some, size)

    # threads with a chunk each wait for one another once, threads that share one at every line
    parallel(paint_chunk, range(0, n, chunk), label="faces")
    return (pictures, known) if parameters else pictures


def draw(n: int, seed: int = 0) -> dict[str, Tensor]:
    """Draw the parameters of `n` faces: a dict of tensors [n].

    Each face is a row of one random stream, so that it does not depend on `n`.

    >>> sorted(draw(3))[:3]
    ['age', 'back_angle', 'back_change']
    """
    laws = _laws()
    stream = np.random.Generator(np.random.Philox(key=seed))
    columns = torch.from_numpy(stream.random((n, len(laws)))).float().unbind(1)
    tail = 0.02275  # beyond two standard deviations
    known = {}
    for (name, law, first, second), u in zip(laws, columns, strict=True):
        if law == "bell":
            known[name] = first + second * torch.special.ndtri(tail + (1 - 2 * tail) * u)
        else:
            known[name] = first + (second - first) * u
    return known


@functools.cache
def _laws() -> list[tuple[str, str, float, float]]:
    """Read, once, how each parameter is drawn: name, law and two numbers."""
    with Path(__file__).with_name("faces.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(r["name"], r["law"], float(r["first"]), float(r["second"])) for r in rows]


def render(known: dict[str, Tensor], size: int = 64) -> Tensor:
    """Paint faces from parameters, drawn or changed by hand, on the device they are on.

    >>> known = draw(1, seed=3)
    >>> render(known | {"smile": torch.ones(1)}, size=16).shape
    torch.Size([1, 3, 16, 16])
    """
    device = known["yaw"].device
    p = SimpleNamespace(**{name: value.cpu().view(-1, 1, 1, 1) for name, value in known.items()})
    _shape_hair(p)
    _light_and_colours(p)
    _details(p)
    return portrait.paint(
        SimpleNamespace(**{name: v.to(device) for name, v in vars(p).items()}), size
    )


def _shape_hair(p: SimpleNamespace) -> None:
    """Add what long and short cuts, fringes, partings and bald heads look like."""
    long = ((p.long - 0.45) / 0.1).clamp(0, 1)
    bald = (p.bald > 0.93) * (1 - long)
    p.hair_length = torch.lerp(0.1 + 0.25 * p.hair_end, 1.0 + 1.3 * p.hair_end, long)
    p.side_volume = p.side_volume * (0.45 + 0.55 * long) * (1 - bald) - 0.01 * bald
    p.top_volume = p.top_volume * (1 - bald)
    bangs = ((p.bangs - 0.72) / 0.1).clamp(0, 1)
    p.hairline = torch.lerp(-0.98 + 0.22 * p.forehead, -0.5 + 0.12 * p.forehead, bangs)
    p.hairline = torch.lerp(p.hairline, torch.full_like(p.hairline, -1.4), bald)
    p.opening = torch.lerp(torch.full_like(long, 0.97), 0.84 + 0.1 * p.forehead, long)
    p.fringe = 0.45 + 0.5 * bangs
    p.part = p.part * (1 - 0.8 * bangs) * (1 - bald)
    p.curl = 0.05 * ((p.curly - 0.4) / 0.6).clamp_min(0)
    p.short = 1 - long


def _light_and_colours(p: SimpleNamespace) -> None:
    """Add colours in linear light, and the direction of the light."""
    p.skin = _between(_SKIN, p.skin_tone) * _rgb(1.0, 0.97, 0.92) ** (2 * p.skin_warmth)
    p.flush = _rgb(1.05, 0.72, 0.68)
    # darker skin comes with darker hair; age turns it grey
    hair = _between(_HAIR, p.hair_tone * (1 - 0.75 * p.skin_tone.square()))
    hair = hair * _rgb(1.25, 0.9, 0.75) ** (1.5 * p.hair_red.square())
    grey = ((p.age - 0.8) / 0.2).clamp(0, 1)
    p.hair = torch.lerp(hair, _rgb(0.5, 0.5, 0.5).expand_as(hair), 0.9 * grey)
    # the key light, and halfway from it to the viewer, where surfaces shine
    light = torch.cat([p.light * 0.75, -p.light_height, torch.full_like(p.light, 0.75)], 1)
    light = light / light.norm(dim=1, keepdim=True)
    p.light_x, p.light_y, p.light_z = light.split(1, 1)
    half = light + _rgb(0.0, 0.0, 1.0)
    p.half_x, p.half_y, p.half_z = (half / half.norm(dim=1, keepdim=True)).split(1, 1)
    # two colours and a spot behind the head; what is behind tints the ambience
    tint = _rgb(1.1, 1.0, 0.88) ** p.warmth
    back = _hsv(p.back_hue, p.back_saturation, p.back_value)
    other = _hsv(
        p.back_hue + p.back_change, p.back_saturation, (p.back_value + p.back_slope).clamp(0.05, 1)
    )
    spot = (p.back_value + p.spot_value).clamp(0.04, 1)
    p.back_a = back * tint
    p.back_b = other * tint
    p.spot = _hsv(p.back_hue - p.back_change, p.back_saturation * 0.8, spot) * tint
    p.ambient = (0.42 - 0.2 * p.contrast) * (0.85 + 0.3 * back) / tint
    p.key = (0.62 + 0.28 * p.contrast) * tint


def _details(p: SimpleNamespace) -> None:
    """Add eyes, lips, beard, spectacles and clothes, and what a smile does to them."""
    p.iris = _between(_IRIS, p.iris_tone * (1 - 0.8 * p.skin_tone.square())) * 1.15
    p.pupil = _rgb(0.02, 0.02, 0.02)
    p.white = _rgb(0.88, 0.88, 0.88)
    p.teeth = _rgb(0.92, 0.92, 0.92)
    p.makeup = p.short.neg().add(1) * ((p.made_up - 0.35) / 0.65).clamp(0, 1)
    p.lid = torch.lerp(p.skin, _hsv(p.cloth_hue, 0.4 * p.makeup, 0.5 * p.makeup), 0.45)
    natural = p.skin * _rgb(0.9, 0.58, 0.55)
    p.lips = torch.lerp(natural, _rgb(0.62, 0.1, 0.13) * (0.6 + 0.4 * p.skin), 0.8 * p.makeup)
    p.mouth_inside = _rgb(0.12, 0.03, 0.03)
    p.open = 0.17 * (p.laugh * p.smile.clamp_min(0)).clamp_min(0)
    p.beard = p.short * ((p.bearded - 0.55) / 0.45).clamp(0, 1).sqrt() * 0.85
    p.brow_thick = p.brow_thick * (0.85 + 0.4 * p.short)
    p.lines = 0.06 + 0.26 * p.age + 0.12 * p.smile.clamp_min(0)
    p.mouth_width = p.mouth_width * (1 + 0.14 * p.smile)
    p.eye_open = p.eye_open * (1 - 0.12 * p.smile.clamp_min(0))
    p.glasses = (p.spectacles > 0.76).float()
    dark = (p.sunglasses > 0.8).float()
    p.lens_dark = 0.03 + 0.87 * dark
    p.lens_tint = _rgb(0.02, 0.02, 0.03)
    p.frame = _between([(0.06, 0.05, 0.05), (0.25, 0.12, 0.07), (0.62, 0.55, 0.42)], p.frame_tone)
    p.cloth = _hsv(p.cloth_hue, p.cloth_saturation, p.cloth_value)
    p.stripes = 0.4 * (p.striped > 0.8)


def _rgb(*colour: float) -> Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1)


def _between(stops: list[tuple[float, ...]], at: Tensor) -> Tensor:
    """Return a colour on a scale of stops, in linear light (gamma 2)."""
    table = torch.tensor(stops).square()
    where = at.view(-1).clamp(0, 1) * (len(stops) - 1)
    low = where.long().clamp_max(len(stops) - 2)
    return torch.lerp(table[low], table[low + 1], (where - low).unsqueeze(1))[..., None, None]


def _hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return hue, saturation and value as a colour in linear light."""
    turn = (6 * hue + torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)) % 6
    return (value * (1 - saturation * torch.minimum(turn, 4 - turn).clamp(0, 1))).square()


def paint_faces(n: int, size: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Paint faces as bytes [n, 3, size, size] on the device that will hold them.

    >>> paint_faces(2, 16, seed=0).dtype
    torch.uint8
    """
    if torch.device(device).type == "cpu":
        return (faces(n, size, seed) * 255).round_().byte()
    known = {name: value.to(device) for name, value in draw(n, seed).items()}
    out = torch.empty(n, 3, size, size, dtype=torch.uint8, device=device)
    for i in range(0, n, 512):
        some = {name: value[i : i + 512] for name, value in known.items()}
        out[i : i + 512] = (render(some, size) * 255).round_().byte()
    return out


def reduced(pictures: Tensor, side: int) -> Tensor:
    """Shrink faces of bytes to a smaller side, by averaging.

    >>> reduced(paint_faces(2, 16, seed=0), 8).shape
    torch.Size([2, 3, 8, 8])
    """
    factor = pictures.shape[-1] // side
    if factor == 1:
        return pictures
    parts = (F.avg_pool2d(part.float(), factor).round_().byte() for part in pictures.split(1024))
    return torch.cat(list(parts))
