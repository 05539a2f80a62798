"""Trained generators as priors: search their range, prune them to tickets, train one.

A picture is explained by the latent vector whose picture fits the measurement best. What the
generator cannot make, no search can find: `project` shows how close its range comes. `generator`
gives one by name; `python -m lipkit.gan.train` trains one on procedural faces.
"""

from __future__ import annotations

from .baselines import total_variation, wavelet
from .files import load, save
from .generators import critic, generator
from .quality import judge, sliced_wasserstein
from .search import Found, picture, project, search
from .tickets import Tickets, imp, magnitude, masked, random
from .training import Training, TrainingPlan
from .wgan import Duel

Plan = TrainingPlan  # its name of before

__all__ = [
    "Duel",
    "Found",
    "Plan",
    "Tickets",
    "Training",
    "TrainingPlan",
    "critic",
    "generator",
    "imp",
    "judge",
    "load",
    "magnitude",
    "masked",
    "picture",
    "project",
    "random",
    "save",
    "search",
    "sliced_wasserstein",
    "total_variation",
    "wavelet",
]
