"""An experiment: what is restored, by which network, with which mask, fitted how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..errors import InputError
from ..find.schedule import rounds_to
from .kinds import kind_of
from .settings import METHODS, VERSIONS, Settings, check_names, names

__all__ = ["METHODS", "VERSIONS", "Experiment"]


class Experiment(Settings):
    """One restoration; only `image` and `size` have to be given.

    Args:
        image: a name of `lipkit.data.names()`, for MRI of `lipkit.data.scans()`; for `find_on`
            also a list of them.
        size: side of the square picture; cropped to it, or with `stretch` resized as it is. Of
            a scan, the longer side.
        task: "denoise", "inpaint", "sr", "sensing" or "mri"; or "classify" the pictures of a
            labelled set, with the `variant`, `side` and `batch` of `lipkit.lab.classifier`.
        strength: standard deviation of the noise on the scale to 255; fraction of pixels known;
            factor; number of measurements; acceleration; number of pictures to learn from.
        prior: the network's name, with its `options`; "pgan" is a generator, its `weights` by name,
            whose range is searched for several `pictures` (of `task_options`) at once: of "faces"
            or of a folder.
        initial: {law, scale} of the convolutions' initial weights: "xavier" in place of the
            network's own law, and a factor.
        method: how the mask is found: a name of `lipkit.find`, with options `find`; or "dense".
            Beside those, {until_oracle = true} ends each round of "imp" at the step at which the
            dense fit is nearest to the clean picture.
        find_on: fields in which the search differs: other pictures, another task or strength
            (0 is the clean picture).
        control: instead of the mask found, "shuffled" within layers, "random" with equal layers,
            or the mask with "fresh" initial weights; of a generator, which starts from trained
            weights, the mask with those "finetuned" under it.
        fit: options of `lipkit.fit`, or of `lipkit.gan.search`; of a fit, `average` is a weight or
            {burn_in, every}.
        stop: window and patience of a `WMV` rule that picks a picture without ending the fit.
        every: steps between two points of the curve; by default a hundredth of the steps.

    >>> one = Experiment("astronaut", 64, method="snip", density=0.2, options={"levels": 4})
    >>> one.digest, one == Experiment.of({"image": "astronaut", "size": 64} | one.given())
    ('238bd6674581ea5e', True)
    """

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Make an experiment from plain data, checked.

        >>> Experiment.of({"image": "coffee", "size": 64, "gray": 1})
        Traceback (most recent call last):
            ...
        lipkit.errors.InputError: gray of an experiment must be bool, got 1
        """
        made = super().of(given)
        made.check()
        return made

    def check(self) -> None:
        """Refuse what cannot be run, before anything is."""
        self.check_types()
        check_names("experiment field", self.find_on, names())
        kind = kind_of(self)
        kind.check(self)
        if self.find_on:
            search = self.search()
            masks = kind_of(search).MASKS_ARE_OF
            if masks != kind.MASKS_ARE_OF:
                raise InputError(
                    f"a mask found on {masks} is not for {kind.MASKS_ARE_OF}, nor the other way"
                )
            search.check()

    @property
    def work(self) -> int:
        """Count the optimizer steps of fit and search; time is estimated from them."""
        searching = 0
        if self.method == "oes":
            searching = self.find.get("steps", 1000)
        elif self.method.startswith("imp"):
            rounds = self.find.get("rounds") or rounds_to(self.density, self.find.get("rate", 0.2))
            searching = rounds * self.find.get("steps", 3000)
        return self.steps + searching
