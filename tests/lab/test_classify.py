"""Labelled pictures, and the hourglass as a classifier that shares masks with priors."""

from __future__ import annotations

import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.data import labels, registry
from lipkit.find import FIRST_CONVS
from lipkit.lab import classifier as classify


@pytest.fixture(scope="module")
def lessons():
    return lk.data.labelled("digits", first=200)


def pupil(**options) -> classify.Classifier:
    return classify.Classifier(lk.testing.tiny_prior(), (1, 8, 8), **options)


# --- labelled pictures --------------------------------------------------------------------------


def test_digits_are_split_in_order_and_look_like_their_classes():
    images, what = lk.data.digits()
    train, test = (lk.data.labelled("digits", part) for part in ("train", "test"))
    assert torch.equal(torch.cat([train[0], test[0]]), images)
    assert torch.equal(torch.cat([train[1], test[1]]), what)
    assert images.dtype == torch.float32 and (images.min(), images.max()) == (0, 1)
    assert torch.bincount(what).min() >= 174  # every digit about as often
    means = torch.stack([train[0][train[1] == d].mean(0) for d in range(10)])
    nearest = torch.cdist(test[0].flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == test[1]).float().mean() > 0.8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mnist",), "the labelled sets are 'digits' and 'cifar10'"),
        (("digits", "validation"), "part must be 'train' or 'test'"),
        (("digits", "test", 0), "first must be a whole number of at least 1"),
    ],
)
def test_bad_requests(arguments, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        lk.data.labelled(*arguments)


def archive(path, content: bytes, kind=tarfile.REGTYPE) -> None:
    """An archive with the members of CIFAR-10's, and one that would leave its folder."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name in ["../outside.bin", *labels._BATCHES["train"], *labels._BATCHES["test"]]:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A made-up archive of the real shape, in the cache and in the registry."""
    monkeypatch.setenv(registry.CACHE_VARIABLE, str(tmp_path / "cache"))
    path = tmp_path / "cache" / labels._ARCHIVE
    path.parent.mkdir(parents=True)

    def place(content: bytes, kind=tarfile.REGTYPE) -> None:
        archive(path, content, kind)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(
            registry, "entries", lambda: {labels._ARCHIVE: {"url": "https://", "sha256": sha256}}
        )

    return place


def test_cifar10_is_read_as_published(cifar, tmp_path):
    records = np.zeros((10_000, labels._RECORD), np.uint8)
    records[:, 0] = np.arange(10_000) % 10
    records[1, 1 + 1024 + 33] = 255  # green, second row, second column
    cifar(records.tobytes())
    images, what = lk.data.labelled("cifar10", "test", first=2)
    assert images.shape == (2, 3, 32, 32) and what.tolist() == [0, 1]
    assert images[1, 1, 1, 1] == 1 and images.sum() == 1
    assert lk.data.labelled("cifar10", "train", first=10_001)[0].shape[0] == 10_001
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("content", [b"short", b""])
def test_another_archive_is_refused(cifar, content):
    cifar(content, tarfile.REGTYPE if content else tarfile.SYMTYPE)
    with pytest.raises(lk.FileError, match="is not the CIFAR-10 archive of binary files"):
        lk.data.labelled("cifar10", "test")


def test_the_registry_holds_the_binary_archive_of_its_makers():
    entry = registry.entries()[labels._ARCHIVE]
    assert entry["url"] == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert entry["sha256"].startswith("c4a38c50a1bc") and entry["bytes"] == 170_052_171
    assert "www.cs.toronto.edu" in lk.data.names()[labels._ARCHIVE]


# --- the classifier -----------------------------------------------------------------------------


def test_it_has_the_priors_initial_weights_but_where_the_input_differs():
    prior, weights = lk.testing.tiny_prior(), pupil().net.state_dict()
    own = prior.net.state_dict()
    other = [n for n in own if own[n].shape != weights[n].shape]
    assert set(other) == set(FIRST_CONVS) & set(own)
    assert all(torch.equal(own[n], weights[n]) for n in own if n not in other)
    again = pupil()
    assert all(torch.equal(x, again.state_dict()[n]) for n, x in pupil().state_dict().items())


def test_masks_go_both_ways():
    prior, classifier = lk.testing.tiny_prior(), pupil()
    mask = lk.find.random(prior, density=0.3, seed=1)
    there = classify.carried(mask, classifier.net)
    back = classify.carried(there, prior.net)
    for name in mask.names:
        dense = name in FIRST_CONVS
        assert back[name].all() if dense else torch.equal(back[name], mask[name])
        assert not dense or there[name].all()
    lk.fit(prior, lk.physics.Denoise(), lk.testing.tiny_image(), steps=2, mask=back)


def test_published_squashes_and_takes_the_nearest_pixel(lessons):
    images = lessons[0][:3]
    standard, published = pupil(side=20), pupil(side=20, variant="published")
    with torch.no_grad():
        scores = published(images)
        assert scores.min() > 0 and scores.max() < 1
        rows = torch.nn.functional.interpolate(images, (20, 20), mode="nearest")
        torch.testing.assert_close(scores, standard(rows).sigmoid())
        assert not torch.allclose(scores, standard(images).sigmoid(), atol=1e-4)


def test_training_keeps_pruned_weights_at_zero_and_its_argument_as_it_was(lessons):
    classifier = pupil()
    before = {n: x.clone() for n, x in classifier.state_dict().items()}
    mask = lk.find.random(lk.testing.tiny_prior(), density=0.3)
    trained = classify.train(classifier, *lessons, mask=mask, steps=5)
    carried = classify.carried(mask, trained.net)
    for name, weight in trained.net.named_parameters():
        if name in carried.names:
            assert torch.equal(weight != 0, carried[name])
    assert all(torch.equal(before[n], x) for n, x in classifier.state_dict().items())
    again = classify.train(classifier, *lessons, mask=mask, steps=5)
    assert trained.loss == again.loss
    assert trained.loss != classify.train(classifier, *lessons, mask=mask, steps=5, seed=1).loss


def test_digits_are_learned():
    train, test = (lk.data.labelled("digits", part) for part in ("train", "test"))
    trained = classify.train(pupil(), *train, steps=120)
    assert classify.accuracy(trained, *test) > 0.7


@pytest.mark.parametrize("variant", classify.VARIANTS)
def test_imp_rewinds_unless_published(lessons, variant, monkeypatch):
    starts, train = [], classify.train
    monkeypatch.setattr(
        classify, "train", lambda start, *a, **k: starts.append(start) or train(start, *a, **k)
    )
    classifier = pupil(variant=variant)
    found = classify.imp(classifier, *lessons, rounds=3, steps=2, progress=False)
    assert len(found.masks) == 3 and len({id(s) for s in starts}) == (
        1 if variant == "standard" else 3
    )
    free = [n for n in found.mask.names if n not in FIRST_CONVS]
    kept, total = (
        sum(getattr(found.mask.per_layer()[n], k) for n in free) for k in ("kept", "total")
    )
    assert kept == int(0.8**3 * total)
    for before, after in zip(found.masks, found.masks[1:], strict=False):
        assert (before & after) == after
    assert all(found.mask[n].all() for n in FIRST_CONVS if n in found.mask.names)


def test_bad_arguments(lessons):
    prior = lk.testing.tiny_prior()
    for sentence, call in {
        "made from a prior with an hourglass": lambda: classify.Classifier(
            lk.Prior("deep-decoder", 32, levels=2, width=4), (1, 8, 8)
        ),
        "variant must be one of standard, published": lambda: pupil(variant="paper"),
        "takes a side of": lambda: pupil(side=1),
        "200 images for 3 labels": lambda: classify.train(pupil(), lessons[0], lessons[1][:3]),
        "steps is at least 1": lambda: classify.train(pupil(), *lessons, steps=0),
        "too many for": lambda: classify.imp(pupil(), *lessons, rounds=100, rate=0.9),
        "no layer in common": lambda: classify.carried(
            lk.find.random(prior, density=0.5), torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
        ),
    }.items():
        with pytest.raises(lk.InputError, match=sentence):
            call()


def test_too_fast_a_training_says_so(lessons):
    with pytest.raises(lk.Error, match="diverged; try a smaller learning rate"):
        classify.train(pupil(), *lessons, steps=30, lr=1e4)
