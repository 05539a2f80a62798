"""Bad input of any kind: an error of ours, one clear sentence, and nothing started or changed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.prior import Recipe
from lipkit.testing import tiny_image, tiny_prior

CLEAN = tiny_image()
NAN = CLEAN.clone()
NAN[0, 3, 3] = torch.nan
OP = lk.physics.Denoise(0.1)
NET = tiny_prior().net
SCORES = {n: p.detach().abs() for n, p in NET.named_parameters() if p.ndim == 4}
OTHER_MASK = lk.Mask.random(lk.models.build("dip", levels=1, down=8, up=8, skip=2), 0.5)
WIDER_MASK = lk.Mask.random(tiny_prior(channels=4).net, 0.5)


def assert_one_clear_sentence(error: BaseException, match: str) -> None:
    text = str(error)
    assert isinstance(error, lk.Error), f"{type(error).__name__}: {text}"
    assert match in text, text
    assert "\n" not in text and 20 < len(text) < 500
    assert "object at 0x" not in text and "Traceback" not in text


def refused(call, match: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  the type is what is checked
        call()
    assert_one_clear_sentence(caught.value, match)
    assert isinstance(caught.value, ValueError)  # also for those who do not know lipkit's own


# --- priors -------------------------------------------------------------------------------------

PRIORS = {
    "unknown prior": (
        dict(name="dipp"),
        "unknown network 'dipp'; the networks are: dip, dip-snail",
    ),
    "no name": (dict(name=None), "unknown network None"),
    "unknown option": (
        dict(name="oes", level=3),
        "'oes' has no option 'level' (did you mean 'levels'?)",
    ),
    "option of another": (dict(name="deep-decoder", skip=4), "'deep-decoder' has no option 'skip'"),
    "too many levels": (dict(levels=9), "levels=9 needs 9 channel widths"),
    "no levels": (dict(levels=0), "levels must be a whole number of at least 1, got 0"),
    "width 0": (dict(down=0), "down takes whole numbers of at least 1"),
    "width as text": (dict(name="deep-decoder", width="big"), "width must be a whole number"),
    "even kernel": (dict(kernel_down=4), "kernel_down must be 1, 3, 5 or 7, got 4"),
    "unknown upsampling": (dict(upsample="cubic"), "upsample must be one of bilinear, nearest"),
    "unknown padding": (dict(pad="wrap"), "pad must be one of reflect, zeros, got 'wrap'"),
    "1x1": (dict(size=(1, 1)), "size must be (height, width), each a whole number from 2 to"),
    "40,000 px wide": (dict(size=(64, 40_000)), "from 2 to 16384, got (64, 40000)"),
    "negative size": (dict(size=-5), "size must be (height, width)"),
    "three sides": (dict(size=(3, 16, 16)), "size must be (height, width)"),
    "size 2.5": (dict(size=2.5), "got 2.5"),
    "size as text": (dict(size="big"), "got 'big'"),
    "no size": (dict(size=None), "got None"),
    "negative seed": (dict(seed=-1), "seed must be a whole number of at least 0, got -1"),
    "seed 1.5": (dict(seed=1.5), "seed must be a whole number of at least 0, got 1.5"),
    "unknown code": (dict(code="perlin"), "code must be one of uniform, normal, meshgrid"),
    "meshgrid for 32": (dict(code="meshgrid"), "has 2 channels, but this network takes 32"),
    "code scale 0": (dict(code_scale=0), "code_scale must be a number above 0, got 0"),
    "code scale text": (dict(code_scale="big"), "code_scale must be a number above 0"),
}


@pytest.mark.parametrize(("arguments", "match"), PRIORS.values(), ids=PRIORS)
def test_priors(arguments, match):
    state = torch.get_rng_state()
    refused(lambda: lk.Prior(**arguments), match)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "data",
    [
        {}, [], 5, "dip", None, {"name": "dip"},
        {"name": "dip", "size": 5}, {"name": "dip", "size": [16, 16], "colour": 1},
        {"name": "dip", "size": [16, 16], "options": None},
    ],
    ids=str,
)  # fmt: skip
def test_recipes(data):
    refused(lambda: Recipe.from_dict(data), "this is no recipe of a prior")


# --- operators ----------------------------------------------------------------------------------

inpaint, sr = lk.physics.Inpaint, lk.physics.SuperResolution
OPERATORS = {
    "sigma < 0": (lambda: lk.physics.Denoise(sigma=-0.1), "must be at least 0, got -0.1"),
    "sigma NaN": (lambda: lk.physics.Denoise(sigma=float("nan")), "must be at least 0, got nan"),
    "sigma as text": (lambda: lk.physics.Denoise(sigma="big"), "must be at least 0, got 'big'"),
    "peak 0": (lambda: lk.physics.Poisson(0), "peak is a photon count and must be above 0, got 0"),
    "amount 1.5": (lambda: lk.physics.SaltAndPepper(1.5), "0 to 1, got 1.5"),
    "inpaint density 0": (lambda: inpaint.random((3, 8, 8), 0), "between 0 and 1, got 0"),
    "inpaint density 1.5": (lambda: inpaint.random((3, 8, 8), 1.5), "between 0 and 1, got 1.5"),
    "inpaint density -1": (lambda: inpaint.random((3, 8, 8), -1), "between 0 and 1, got -1"),
    "inpaint shape": (
        lambda: inpaint.random((8, 8), 0.5),
        "shape must be (channels, height, width)",
    ),
    "mask of greys": (lambda: inpaint(torch.rand(8, 8)), "holds only 0 (lost) and 1 (kept)"),
    "mask of 255": (
        lambda: inpaint(torch.full((8, 8), 255)),
        "lipkit.data.mask reads and thresholds",
    ),
    "mask of NaN": (lambda: inpaint(torch.full((8, 8), torch.nan)), "holds only 0 (lost)"),
    "mask of one row": (
        lambda: inpaint(torch.ones(8)),
        "tensor [H, W] or [C, H, W], got shape (8,)",
    ),
    "mask as text": (lambda: inpaint("mask.png"), "[H, W] or [C, H, W], got a str"),
    "empty mask": (lambda: inpaint(torch.ones(0, 8)), "got shape (0, 8)"),
    "mask of another size": (
        lambda: inpaint(torch.ones(8, 9)).measure(CLEAN),
        "the inpainting mask is (1, 8, 9), the picture (3, 16, 16)",
    ),
    "mask of other channels": (
        lambda: inpaint(torch.ones(2, 16, 16)).measure(CLEAN),
        "the inpainting mask is (2, 16, 16), the picture (3, 16, 16)",
    ),
    "factor 3": (lambda: sr(3), "factor must be 2, 4 or 8, got 3"),
    "factor 4.0": (lambda: sr(4.0), "factor must be 2, 4 or 8, got 4.0"),
    "unknown kernel": (lambda: sr(2, "cubic"), "kernel must be lanczos2 or lanczos3, got 'cubic'"),
    "unknown source": (lambda: sr(2, source="cv2"), "source must be operator or pil, got 'cv2'"),
    "odd picture": (lambda: sr(2).measure(torch.rand(3, 15, 16)), "15x16 cannot be reduced by 2"),
    "odd picture, PIL": (
        lambda: sr(2, source="pil").measure(torch.rand(3, 15, 16)),
        "15x16 cannot be reduced by 2; crop its sides to multiples of 2",
    ),
    "integer picture": (
        lambda: OP.measure(torch.zeros(3, 8, 8, dtype=torch.uint8)),
        "must be a floating-point tensor in [0, 1], got torch.uint8; lipkit.data.image",
    ),
    "array": (
        lambda: OP.measure(np.zeros((3, 8, 8))),
        "floating-point tensor in [0, 1], got ndarray",
    ),
}


@pytest.mark.parametrize(("call", "match"), OPERATORS.values(), ids=OPERATORS)
def test_operators(call, match):
    refused(call, match)


# --- fits ---------------------------------------------------------------------------------------

FITS = {
    "steps 0": (dict(steps=0), "steps must be a whole number of at least 1, got 0"),
    "steps -5": (dict(steps=-5), "steps must be a whole number of at least 1, got -5"),
    "steps 2.5": (dict(steps=2.5), "steps must be a whole number of at least 1, got 2.5"),
    "every 0": (dict(every=0), "every must be a whole number of at least 1, got 0"),
    "lr 0": (dict(lr=0), "lr must be a number above 0, got 0"),
    "lr NaN": (dict(lr=float("nan")), "lr must be a number above 0, got nan"),
    "lr True": (dict(lr=True), "lr must be a number above 0, got True"),
    "input noise < 0": (dict(input_noise=-0.1), "input_noise must be a number of at least 0"),
    "langevin < 0": (dict(langevin=-0.1), "langevin must be a number of at least 0, got -0.1"),
    "weight decay < 0": (dict(weight_decay=-1), "weight_decay must be a number of at least 0"),
    "average 1": (dict(average=1), "the weight of an EMA lies between 0 and 1, got 1"),
    "average as text": (dict(average="ema"), "average must be a weight between 0 and 1"),
    "backtrack 0": (dict(backtrack=0), "backtrack is a drop in dB above 0, got 0"),
    "backtrack as text": (dict(backtrack="5"), "backtrack is a drop in dB above 0, got '5'"),
    "stop by name": (dict(stop="WMV"), "stop must be a rule of lipkit.stop such as WMV()"),
    "stop by class": (dict(stop=lk.stop.WMV), "stop must be a rule of lipkit.stop such as WMV()"),
    "precision": (dict(precision="fp8"), "precision must be one of auto, fp32, bf16, got 'fp8'"),
    "seed < 0": (dict(seed=-1), "seed must be a whole number of at least 0, got -1"),
    "seed as text": (dict(seed="a"), "seed must be a whole number of at least 0, got 'a'"),
    "callback": (dict(callback=3), "callback must be a function of one argument, got a int"),
    "prior by name": (dict(prior="dip"), "prior must be a lipkit.Prior, got a str"),
    "bare network": (dict(prior=NET), "prior must be a lipkit.Prior, got a Hourglass"),
    "no operator": (dict(op=None), "op must be an operator with a method A"),
    "no measurement": (dict(y=None), "the measurement must be a floating-point tensor, got None"),
    "array": (
        dict(y=CLEAN.numpy()),
        "the measurement must be a floating-point tensor, got a ndarray",
    ),
    "integers": (dict(y=(255 * CLEAN).byte()), "floating-point tensor, got torch.uint8"),
    "NaN": (dict(y=NAN), "the measurement holds NaN or infinite values"),
    "infinite": (dict(y=CLEAN / 0), "the measurement holds NaN or infinite values"),
    "1x1": (dict(y=torch.rand(3, 1, 1)), "the measurement has shape (3, 1, 1)"),
    "wrong channels": (
        dict(y=CLEAN[:1]),
        "has shape (1, 16, 16), but the operator makes (3, 16, 16)",
    ),
    "wrong size": (
        dict(y=CLEAN[..., :8]),
        "has shape (3, 16, 8), but the operator makes (3, 16, 16)",
    ),
    "two pictures": (dict(y=torch.rand(2, 3, 16, 16)), "the measurement has shape (2, 3, 16, 16)"),
    "wrong operator": (dict(op=sr(2)), "but the operator makes (3, 8, 8)"),
    "reference size": (
        dict(reference=CLEAN[..., :8]),
        "the reference has shape (3, 16, 8), the picture (3, 16, 16)",
    ),
    "reference channels": (dict(reference=CLEAN[:1]), "the reference has shape (1, 16, 16)"),
    "reference of two": (dict(reference=torch.rand(2, 3, 16, 16)), "has shape (2, 3, 16, 16)"),
    "reference plane": (dict(reference=CLEAN[0]), "the reference has shape (16, 16)"),
    "reference NaN": (dict(reference=NAN), "the reference holds NaN"),
    "reference name": (dict(reference="camera"), "the reference must be a floating-point tensor"),
    "mask of another network": (dict(mask=OTHER_MASK), "it belongs to another"),
    "mask of another size": (dict(mask=WIDER_MASK), "the mask of 'head.weight' has shape"),
    "mask as tensor": (dict(mask=torch.ones(9)), "mask must be a lipkit.Mask, got a Tensor"),
    "no folder": (dict(checkpoint="/no/such/folder/c"), "there is no folder /no/such/folder"),
}


@pytest.mark.parametrize(("change", "match"), FITS.values(), ids=FITS)
def test_fits(change, match, capsys):
    prior = tiny_prior()
    before, state = copy.deepcopy(prior.state_dict()), torch.get_rng_state()
    arguments = dict(prior=prior, op=OP, y=CLEAN, steps=4, progress=False) | change
    with pytest.raises(Exception) as caught:  # noqa: PT011
        lk.fit(**arguments)
    assert_one_clear_sentence(caught.value, match)
    assert all(torch.equal(before[k], v) for k, v in prior.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: lk.EMA(1.0), "lies between 0 and 1, got 1.0"),
        (lambda: lk.EMA("big"), "lies between 0 and 1, got 'big'"),
        (lambda: lk.PosteriorMean(burn_in=-1), "needs burn_in >= 0 and every >= 1"),
        (lambda: lk.PosteriorMean(every=0), "needs burn_in >= 0 and every >= 1"),
        (lambda: lk.stop.WMV(window=0), "window must be a whole number of at least 1, got 0"),
        (lambda: lk.stop.WMV(patience=2.5), "patience must be a whole number of at least 1"),
        (lambda: lk.stop.EMV(weight=1.5), "weight must lie between 0 and 1, got 1.5"),
        (lambda: lk.stop.EMV(weight="big"), "weight must lie between 0 and 1, got 'big'"),
        (lambda: lk.stop.EMV(warmup=-1), "warmup must be a whole number of at least 0, got -1"),
        (lambda: lk.stop.MaxSteps(0), "steps must be a whole number of at least 1, got 0"),
    ],
)
def test_rules_and_averages(make, match):
    refused(make, match)


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0, 0.0, 1.5, -1, float("nan"), "half", None, True])
@pytest.mark.parametrize(
    "make",
    [lambda d: lk.Mask.random(NET, d), lambda d: lk.Mask.top(SCORES, d)],
    ids=["random", "top"],
)
def test_densities(make, density):
    refused(
        lambda: make(density), f"must be above 0 and at most 1 (0.05 keeps 5 %), got {density!r}"
    )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: lk.Mask.random(NET, 1e-9), "keeps none of"),
        (
            lambda: lk.Mask.random(NET, 0.5, scope="bias"),
            "scope must be one of conv, all, got 'bias'",
        ),
        (lambda: lk.Mask.full(NET).shuffled(0, within="net"), "within must be 'layer' or 'filter'"),
        (lambda: lk.Mask.from_flat(torch.ones(7), NET), "has 3,879 entries (all parameters) or"),
    ],
)
def test_masks(make, match):
    refused(make, match)


# --- metrics ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: lk.metrics.psnr(CLEAN, CLEAN[:1]), "differ in shape: (3, 16, 16) and (1, 16, 16)"),
        (
            lambda: lk.metrics.psnr(CLEAN.numpy(), CLEAN),
            "floating-point tensor [C, H, W], got ndarray",
        ),
        (lambda: lk.metrics.psnr(CLEAN.byte(), CLEAN.byte()), "got torch.uint8"),
        (lambda: lk.metrics.ssim(CLEAN[..., :9], CLEAN[..., :9]), "at least 11x11 pixels"),
        (lambda: lk.metrics.psnr_y(CLEAN[:1], CLEAN[:1]), "needs 3 colour channels, got 1"),
        (lambda: lk.metrics.psnr_y(CLEAN, CLEAN, border=8), "leaves nothing of a picture of 16x16"),
        (
            lambda: lk.metrics.radial_spectrum(CLEAN, bins=9),
            "bins must be between 1 and 8 for 16x16",
        ),
        (lambda: lk.metrics.noise_psnr(-1), "must be above 0, got -1"),
        (lambda: lk.metrics.noise_psnr(0), "must be above 0, got 0"),
    ],
)
def test_metrics(call, match):
    refused(call, match)
