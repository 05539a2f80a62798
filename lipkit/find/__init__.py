"""Finding masks: `lipkit.find.METHOD(prior, op, y, density=0.05, ...)` returns a `Mask`.

Methods at initialisation (`random`, `magnitude`, `snip`, `grasp`, `synflow`) share their arguments:

- `scope`: rank the weights of convolutions ("conv") or every parameter ("all").
- `variant`: "paper" is the method as its authors defined it; "published" is what the scripts
  behind published comparisons on image priors do instead. Those of "Optimal Eye Surgeon" rank
  scope "all"; those of "Lottery Image Prior" rank scope "conv".
- `per_layer`: apply the density to each layer instead of to all at once.
- `seed`: of random draws. Scores need none: they belong to the prior's initial weights, so
  repeats want priors of other seeds.

The prior itself stays as it is, ties are broken by order, and a layer that loses every weight is
named in a warning.

Iterative magnitude pruning (`imp`, and `imp_multi` for several images) trains before each pruning
and returns an `Imp`, which holds the masks of all rounds. Optimal Eye Surgeon (`oes`, and
`oes_multi`) learns a mask for the initial weights by gradients, without training them. `universal`
keeps random weights, in each layer as many as such masks do, and needs no search.
"""

from __future__ import annotations

from .at_init import grasp, magnitude, random, snip, synflow
from .imp import imp
from .latents import image_codes
from .multi import imp_multi
from .oes import KEPT_PER_VALUE, Oes, auto_density, oes, oes_multi
from .rounds import Imp, Round
from .schedule import FIRST_CONVS, densities, rounds_to
from .scores import grasp_scores, snip_scores, synflow_scores
from .universal import universal

__all__ = [
    "FIRST_CONVS",
    "KEPT_PER_VALUE",
    "Imp",
    "Oes",
    "Round",
    "auto_density",
    "densities",
    "grasp",
    "grasp_scores",
    "image_codes",
    "imp",
    "imp_multi",
    "magnitude",
    "oes",
    "oes_multi",
    "random",
    "rounds_to",
    "snip",
    "snip_scores",
    "synflow",
    "synflow_scores",
    "universal",
]
