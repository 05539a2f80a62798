"""Paint procedural faces: soft shading in linear light, back to front, no loops.

Every field is [N, 1, H, W], every colour [N, 3, 1, 1] and every parameter [N, 1, 1, 1], so a whole
batch is painted at once. `p` holds the parameters, `head` the coordinates of `_place_head`.

Three planes have coordinates, y downwards: the picture from -1 to 1 (`x, y` of `paint`); the head,
in half widths of it from the middle between the eyes (`head.x, head.y`); and the surface of the
face (`head.fx, head.fy`), an ellipsoid that is turned, which foreshortens the features. A face is
symmetric: `mx` is the distance from its middle line, so that one drawing serves both sides.

The order of the operations is part of the result: another one gives other last bits, and records
rest on these pictures.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

Fields = SimpleNamespace


def paint(p: Fields, size: int) -> Tensor:
    """Paint pictures [N, 3, size, size] of faces with the parameters of `faces.render`."""
    side = (torch.arange(size, dtype=torch.float32, device=p.yaw.device) + 0.5) * (2 / size) - 1
    x = side.view(1, 1, 1, -1)
    y = side.view(1, 1, -1, 1)
    head = _place_head(p, x, y, 2 / size)
    image = _background(p, x, y)
    hair, cover = _hair(p, head)
    image = _over(image, hair * 0.6, cover.back)
    image = _over(image, *_body(p, x, y, head))
    image = _over(image, *_ears(p, head))
    image = _over(image, _face(p, head) * (1 - 0.4 * cover.shade), head.inside)
    image = _over(image, hair, cover.front)
    image = _glasses(p, head, image)
    vignette = 1 - p.vignette * (x.square() + y.square())
    return (image * vignette * p.exposure).clamp_(0, 1).sqrt_()


# --- small tools ------------------------------------------------------------------------------


def _edge(distance: Tensor, width: Tensor | float) -> Tensor:
    """Return 1 inside (negative distance), 0 outside, and a ramp of this width between."""
    return (0.5 - distance / width).clamp_(0, 1)


def _blob(x: Tensor, y: Tensor, across: Tensor | float, along: Tensor | float) -> Tensor:
    """Return a bump like a Gaussian's, but cheap, and with an end."""
    fall = (x / across).square() + (y / along).square()
    return fall.mul_(-0.25).add_(1).clamp_min_(0).square_().square_()


def _over(image: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """Paint a colour over the image where `cover` is 1."""
    return torch.lerp(image, colour, cover)


def _capsule(x: Tensor, y: Tensor, across: Tensor, above: Tensor, square: Tensor | float) -> Tensor:
    """Return the distance from an arch: a (squared) half ellipse on straight sides."""
    u = (x / across).square()
    v = (y.clamp_max(0) / above).square()
    return ((u + v - square * u.clamp_max(1) * v.clamp_max(1)).clamp_min_(1e-6).sqrt_() - 1) * 0.9


def _light(p: Fields, nx: Tensor, ny: Tensor, nz: Tensor, bleed: bool = False) -> Tensor:
    """Return the light on a surface of this normal; `bleed` wraps red around, as skin does."""
    facing = nx * p.light_x + ny * p.light_y + nz * p.light_z
    wrap = torch.tensor([0.5, 0.3, 0.24] if bleed else [0.3] * 3, device=nx.device).view(1, 3, 1, 1)
    return p.ambient + p.key * ((facing + wrap) / (1 + wrap)).clamp_min_(0)


# --- the parts, back to front -----------------------------------------------------------------


def _place_head(p: Fields, x: Tensor, y: Tensor, pixel: float) -> Fields:
    """Return the coordinates of the head: `x, y` in the picture, `fx, fy` on its surface.

    `nx, ny, nz` is the surface's normal, `radius` is 1 at the outline, `inside` is 1 on the face,
    and `pixel` is the width of an antialiased edge.
    """
    # turned by the roll, in half widths
    dx = x - p.centre_x
    dy = y - p.centre_y
    cos = p.roll.cos()
    sin = p.roll.sin()
    hx = (dx * cos + dy * sin) / p.width
    hy = (dy * cos - dx * sin) / p.width
    # narrower towards the chin
    down = (hy / p.length).clamp(0, 1.2)
    nx = hx / (1 - p.taper * down.square())
    ny = hy / p.length
    # the product fills the corners of the jaw
    full = p.jaw * nx.square().clamp_max(1.2) * ny.square().clamp_max(1.2) * (down > 0)
    radius = nx.square() + ny.square() - full
    nz = (1 - radius).clamp_min_(0).sqrt_()
    return Fields(
        pixel=1.5 * pixel / p.width,
        x=hx,
        y=hy,
        nx=nx,
        ny=ny,
        nz=nz,
        radius=radius,
        fx=nx * p.yaw.cos() - nz * p.yaw.sin(),
        fy=(ny * p.pitch.cos() - nz * p.pitch.sin()) * p.length,
        inside=_edge(radius.clamp_min(1e-6).sqrt() - 1, 1.5 * pixel / p.width),
    )


def _background(p: Fields, x: Tensor, y: Tensor) -> Tensor:
    """Paint a slope between two colours and a spot of light."""
    slope = 0.5 + 0.45 * (x * p.back_angle.cos() + y * p.back_angle.sin())
    image = p.back_a + (p.back_b - p.back_a) * slope
    away = ((x - p.spot_x).square() + (y - p.spot_y).square()).sqrt()
    return _over(image, p.spot, 0.6 * _edge(away - p.spot_size, p.spot_blur))


def _hair(p: Fields, head: Fields) -> tuple[Tensor, Fields]:
    """Return the colour of the hair, and where it is: behind, before, and its shade on the skin."""
    x = head.x
    y = head.y
    wave = p.curl * (torch.sin(9 * y + p.phase) + 0.6 * torch.sin(14 * x + 7 * y + 2 * p.phase))
    outer = _capsule(x, y + 0.1, 1 + p.side_volume, p.length - 0.1 + p.top_volume, 0.12) + wave
    end = y - p.hair_length + 0.12 * x.square() + wave
    # the opening shows the face: below the hairline, parted, with or without a fringe
    soft = head.pixel + 0.035
    opening = _capsule(
        head.fx - p.part * 0.2, head.fy - 0.35, p.opening, 0.35 - p.hairline, p.fringe
    )
    opening = opening - p.part * 0.13 * head.fx + 0.5 * wave
    shape = _edge(outer, soft) * _edge(end, soft + 0.1)
    front = shape * _edge(-opening, soft)
    shade = _edge(-0.12 - opening, 0.3) * _edge(end - 0.1, 0.3)
    # strands fan out from the parting; the light shines on them
    strand = (x - 0.4 * p.part) / (0.55 + (y + p.length).clamp_min(0))
    streak = torch.sin(11 * strand + p.phase + 6 * wave) + 0.7 * torch.sin(
        27 * strand + 3 * p.phase + 2 * y
    )
    nx = x / (1 + p.side_volume)
    ny = (y + 0.1) / (p.length + p.top_volume)
    nz = (1 - nx.square() - ny.square()).clamp_min_(0.05).sqrt_()
    shine = _blob(x - 0.6 * p.light_x, y + 0.95 * p.length - 0.25, 0.9, 0.2) * (1 + 0.3 * streak)
    lit = _light(p, nx, ny, nz) * (0.9 + 0.14 * streak)
    return p.hair * lit + p.shine * shine * p.key, Fields(back=shape, front=front, shade=shade)


def _body(p: Fields, x: Tensor, y: Tensor, head: Fields) -> tuple[Tensor, Tensor]:
    """Return colour and cover of neck, shoulders and clothes, with the shadow of the chin."""
    bx = (x - 0.75 * p.centre_x) / p.width
    by = (y - p.centre_y) / p.width
    flare = p.neck + 0.25 * (by - 1.55).clamp_min(0).square()
    neck = _edge(bx.abs() - flare, head.pixel)
    collar = p.shoulder + 0.16 * bx.square() / p.build
    shoulders = _edge(collar - by, head.pixel)
    cut = (1 - p.vneck) * (bx / (p.neck + p.neckline)).square() + p.vneck * bx.abs() * 1.3
    cloth = shoulders * _edge(p.shoulder + 0.1 + p.neckline * (1 - cut) - by, head.pixel)
    # cloth: round over the chest, with folds and stripes
    round_ = (bx / (2.0 * p.build)).clamp(-0.95, 0.95)
    lit = _light(p, round_, torch.full_like(by, -0.35), (1 - round_.square()).sqrt())
    fold = 1 + 0.07 * torch.sin(5 * bx + 3 * by + p.phase) + 0.05 * torch.sin(13 * bx - 4 * by)
    stripes = 1 + p.stripes * torch.sin(p.stripe_rate * (by + 0.05 * bx.square()))
    # skin of the neck, dark under the chin
    skin_round = (bx / (p.neck + 0.35)).clamp(-0.95, 0.95)
    skin = p.skin * _light(p, skin_round, torch.zeros_like(by), (1 - skin_round.square()).sqrt())
    under = _blob(bx + 0.3 * p.light_x, by - p.length - 0.02, 0.75, 0.33)
    colour = torch.lerp(skin * (1 - 0.62 * under), p.cloth * lit * fold * stripes, cloth)
    return colour, torch.maximum(neck * (by > 0.4), shoulders)


def _ears(p: Fields, head: Fields) -> tuple[Tensor, Tensor]:
    """Return colour and cover of the ears."""
    x = head.x.abs() - 0.98
    y = head.y - 0.14 - 0.2 * p.pitch
    radius = (x / 0.15).square() + ((y - 0.2 * x) / 0.3).square()
    hollow = 1 - 0.4 * _blob(x - 0.045, y, 0.06, 0.17)
    lit = _light(p, head.x.sign() * 0.6, torch.full_like(y, 0.1), torch.full_like(y, 0.6), True)
    return p.skin * hollow * lit * p.flush.sqrt(), _edge((radius.sqrt() - 1) * 0.15, head.pixel)


def _face(p: Fields, head: Fields) -> Tensor:
    """Paint the skin with its features, lit."""
    mx = head.fx.abs()
    fy = head.fy
    blush = _blob(mx - 0.52, fy - 0.42, 0.3, 0.26) + 0.7 * _blob(mx, fy - 0.45, 0.16, 0.16)
    albedo = torch.lerp(p.skin.expand(-1, 3, *mx.shape[2:]), p.skin * p.flush, p.blush * blush)
    albedo = _beard(p, mx, fy, albedo)
    albedo = albedo * (1 - p.lines * _lines(p, mx, fy))
    albedo = _mouth(p, head, mx, fy, albedo)
    albedo = _eyes(p, head, mx, fy, albedo)
    albedo = _brows(p, head, mx, fy, albedo)
    nostrils = _blob(mx - 0.1 * p.nose_width, fy - p.nose + 0.005, 0.065, 0.035)
    albedo = albedo * (1 - 0.62 * nostrils)
    lit, glint = _relief(p, head, mx, fy)
    return albedo * lit + glint * p.key


def _relief(p: Fields, head: Fields, mx: Tensor, fy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the light on the bumps of a face (nose, cheeks, sockets, chin), and its glint."""
    nx = head.nx.clamp(-1, 1)
    ny = head.ny.clamp(-1, 1)
    side = head.fx.sign()
    wide = p.nose_width
    bumps = (  # centre, radii, height
        (0.0, p.nose - 0.28, 0.17 * wide, 0.4, 0.085),  # bridge of the nose
        (0.0, p.nose - 0.1, 0.19 * wide, 0.14, 0.075),  # its tip
        (0.17 * wide, p.nose - 0.05, 0.08, 0.09, 0.03),  # its wings
        (0.55, 0.34, 0.3, 0.25, 0.05 + 0.03 * p.smile),  # cheeks
        (p.eye_gap, -0.03, 0.28, 0.2, -0.075),  # sockets
        (0.0, p.length - 0.2, 0.24, 0.16, 0.04),  # chin
        (0.0, p.mouth + 0.2, 0.26, 0.07, -0.025),  # hollow above it
    )
    for cx, cy, rx, ry, height in bumps:
        dx = mx - cx
        dy = fy - cy
        slope = (2 * height * p.relief) * _blob(dx, dy, rx, ry)
        nx = nx + side * (slope * dx / rx**2)
        ny = ny + slope * dy / ry**2
    scale = (nx.square() + ny.square() + head.nz.square() + 1e-4).rsqrt_()
    nx = nx * scale
    ny = ny * scale
    nz = head.nz * scale
    gloss = (nx * p.half_x + ny * p.half_y + nz * p.half_z).clamp_min_(0).pow(24)
    shadow = 1 - 0.3 * _blob(head.fx + 0.12 * p.light_x, fy - p.nose - 0.07, 0.17 * wide, 0.08)
    return _light(p, nx, ny, nz, True) * shadow, p.gloss * gloss


def _beard(p: Fields, mx: Tensor, fy: Tensor, albedo: Tensor) -> Tensor:
    """Paint a beard along the jaw and around the mouth."""
    jaw = (fy - 0.95 + 0.75 * (mx - 0.35).clamp_min(0) - 1.2 * (mx - 0.62).clamp_min(0)) / 0.3
    lip = _blob(mx - 0.1, fy - p.mouth + 0.14, 0.26, 0.07)
    around = _blob(mx - 0.42, fy - p.mouth - 0.05, 0.11, 0.3)
    cover = (torch.sigmoid(6 * jaw) + lip + around).clamp_max(1)
    bare = _blob(mx, fy - p.mouth - 0.02, 0.22, 0.09)
    return torch.lerp(albedo, p.hair * 0.8, p.beard * cover * (1 - 0.8 * bare))


def _lines(p: Fields, mx: Tensor, fy: Tensor) -> Tensor:
    """Return how dark smile folds and the shadows under the eyes are."""
    fold = mx - 0.25 - 0.33 * (fy - p.nose + 0.05) - 0.06 * p.smile
    fold = 0.7 * _blob(fold, fy - 0.5 * (p.nose + p.mouth), 0.05, 0.15)
    return fold + 0.8 * _blob(mx - p.eye_gap + 0.03, fy - 0.16, 0.17, 0.045)


def _mouth(p: Fields, head: Fields, mx: Tensor, fy: Tensor, albedo: Tensor) -> Tensor:
    """Paint lips, teeth in an open mouth, the line of a closed one, and the corners."""
    across = mx / p.mouth_width
    arch = (1 - across.square()).clamp_min_(0)
    y = fy - p.mouth + p.smile * 0.14 * across.square().clamp_max(1.5)
    bow = 1 - 0.3 * _blob(mx, 0 * mx, 0.06, 1) + 0.12 * _blob(mx - 0.1, 0 * mx, 0.07, 1)
    gap = p.open * arch
    top = -p.upper_lip * arch.sqrt() * bow - 0.35 * gap
    bottom = p.lower_lip * arch + gap
    width = head.pixel
    lips = _edge(torch.maximum(top - y, y - bottom), width) * (arch > 0)
    round_ = 1 + 0.3 * _blob(mx, y - 0.6 * bottom, 0.16, 0.05)
    albedo = _over(albedo, p.lips * round_ * torch.where(y < 0, 0.78, 1.0), 0.92 * lips)
    inner = _edge(torch.maximum(-0.3 * gap - y, y - gap), width) * (arch > 0.02)
    teeth = _edge(y - 0.62 * gap, width + 0.02) * (1 - 0.55 * across.square())
    inside = torch.lerp(p.mouth_inside, p.teeth, teeth)
    albedo = _over(albedo, inside, inner * (p.open / 0.03).clamp_max(1))
    line = _blob(torch.zeros_like(y), y - gap * (p.open > 0.02), 1, 0.022 + 0.3 * width) * arch
    corner = _blob(mx - p.mouth_width, y, 0.05, 0.04)
    return albedo * (1 - 0.6 * line.clamp_max(1) * (p.open < 0.03)) * (1 - 0.4 * corner)


def _eyes(p: Fields, head: Fields, mx: Tensor, fy: Tensor, albedo: Tensor) -> Tensor:
    """Paint lids, eyeballs with iris, pupil and glint, lashes and creases."""
    ex = mx - p.eye_gap
    ey = fy + p.eye_tilt * ex
    w = p.eye_width
    width = head.pixel
    u = (ex / w).square()
    arch = 1 - u
    upper = -p.eye_open * arch * (1 - 0.25 * ex / w)
    lower = 0.55 * p.eye_open * arch * (1 + 0.2 * ex / w)
    lid = _blob(ex, ey + 1.1 * p.eye_open, 1.15 * w, 0.1)
    albedo = torch.lerp(albedo, p.lid, p.makeup * lid)
    shape = _edge(torch.maximum(upper - ey, ey - lower), width) * (u < 1)
    # the iris looks the same way in both eyes, so its x is not mirrored
    ix = ex * head.fx.sign() - p.gaze_x
    iy = ey + 0.15 * p.eye_open - p.gaze_y
    radius = (ix.square() + iy.square()).clamp_min(1e-6).sqrt()
    iris = p.iris * (0.55 + 0.9 * (radius / p.iris_size).clamp_max(1).square())
    iris = _over(iris, p.iris * 0.25, _edge(p.iris_size * 0.86 - radius, width))
    iris = _over(iris, p.pupil, _edge(radius - 0.45 * p.iris_size, width))
    ball = torch.lerp(p.white * (1 - 0.25 * u), iris, _edge(radius - p.iris_size, width))
    ball = ball * (1 - 0.45 * _edge(ey - upper - 0.35 * p.eye_open, 0.6 * p.eye_open))
    glint_x = ix - 0.4 * p.iris_size * p.light_x.sign()
    glint_y = iy + 0.4 * p.iris_size
    away = glint_x.square().add(glint_y.square()).sqrt()
    ball = _over(ball, p.teeth * 1.1, 0.9 * _edge(away - 0.3 * p.iris_size, width))
    albedo = _over(albedo, ball, shape)
    near = (u < 1.25).float()
    thick = 0.022 + 0.018 * p.makeup + 0.25 * width
    lash = _blob(torch.zeros_like(ey), ey - upper, 1, thick) * near
    crease = _blob(ex / (1.2 * w), ey - upper + 0.075, 1, 0.03)
    rim = _blob(ex / (1.1 * w), ey - lower, 1, 0.025) * near
    return albedo * (1 - 0.85 * lash) * (1 - 0.35 * crease) * (1 - 0.3 * rim)


def _brows(p: Fields, head: Fields, mx: Tensor, fy: Tensor, albedo: Tensor) -> Tensor:
    """Paint eyebrows, tilted, arched and thinner outwards."""
    bx = mx - p.eye_gap - 0.02
    along = (bx / (1.3 * p.eye_width)).clamp(-1.3, 1.3)
    y = fy - p.brow + p.brow_tilt * bx - p.brow_arch * (1 - along.square())
    thick = p.brow_thick * (1 - 0.35 * along) * (1.25 - along.square()).clamp_min(0).sqrt()
    cover = _edge(y.abs() - thick, head.pixel + 0.04) * (along.abs() < 1.1)
    return _over(albedo, p.hair * 0.55, 0.85 * cover)


def _glasses(p: Fields, head: Fields, image: Tensor) -> Tensor:
    """Paint lenses with a glare, then the frame with bridge and temples."""
    mx = head.fx.abs()
    fy = head.fy - 0.03
    rx = p.lens_width
    ry = p.lens_height
    u = ((mx - p.eye_gap - 0.02) / rx).square()
    v = (fy / ry).square()
    radius = (u + v - p.lens_square * u.clamp_max(1.2) * v.clamp_max(1.2)).clamp_min(1e-4).sqrt()
    distance = (radius - 1) * torch.minimum(rx, ry)
    soft = head.pixel
    lens = _edge(distance, soft) * head.inside * p.glasses
    image = _over(image, p.lens_tint, p.lens_dark * lens)
    glare = _blob(head.fx * 0.7 + fy * 0.7 - 0.25 * p.light_x, torch.zeros_like(fy), 0.1, 1)
    image = image + 0.16 * lens * glare * p.key
    frame = _edge(distance.abs() - p.frame_thick, soft)
    between = (mx < p.eye_gap + 0.02 - rx).float()
    beside = ((mx > p.eye_gap + 0.02 + rx) & (head.x.abs() < 1.02)).float()
    bar = _edge((fy + 0.25 * ry).abs() - 0.8 * p.frame_thick, soft) * (between + beside)
    cover = torch.maximum(frame, bar) * torch.maximum(head.inside, beside) * p.glasses
    return _over(image, p.frame * (0.6 + 0.5 * p.key), cover)
