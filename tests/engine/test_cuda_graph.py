"""A step as one graph: what is captured fits into one, and replaying it gives the same fit."""

from __future__ import annotations

import gc
import re
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lipkit as lk
from lipkit.engine import cuda_graph
from lipkit.fitting.descent import _Run
from lipkit.fitting.settings import Settings
from lipkit.testing import tiny_prior
from tests.support.tiny_fit import CLEAN, MASK, Y, assert_same_fit, quick

FIT = sys.modules["lipkit.fitting.descent"]  # of that name there is a function too


class Rerun(cuda_graph.CudaGraph):
    """Stands in for a CUDA graph where there is none: replays by doing the step again.

    Like a graph it writes what it gives to the same memory every time, and it wants weights and
    moments to stay where they were when it was captured.
    """

    def __init__(self, generator):
        self.generator, self.outputs, self.warm_ups, self.replays = generator, (), 0, 0
        self.graph = SimpleNamespace(replay=self.rerun)

    def warm_up(self, step):
        self.warm_ups += 1
        return step()

    def capture(self, step):
        self.step, self.places = step, self.find_places(step)

    def find_places(self, step):
        adam = step.func.__self__.adam
        moments = [t for entry in adam.state.values() for t in entry.values()]
        return [t.data_ptr() for t in (*adam.state, *moments)]

    def rerun(self):
        assert self.places == self.find_places(self.step)
        self.replays += 1
        fresh = self.step()
        if not self.outputs:
            self.outputs = tuple(t.clone() for t in fresh)
        for static, t in zip(self.outputs, fresh, strict=True):
            static.copy_(t)


@pytest.fixture
def stand_in(monkeypatch):
    """Lets fits on the CPU use a kind of graph; returns the graphs they make."""
    made = []

    def use(kind=Rerun):
        def make(generator):
            made.append(kind(generator))
            return made[-1]

        monkeypatch.setitem(cuda_graph.GRAPHS, "cpu", make)
        monkeypatch.setattr(FIT, "WORTH", 0)
        return made

    return use


# --- what is captured fits into a graph ---------------------------------------------------------


class Waits(TorchDispatchMode):
    """The operations for which the host waits for the device, on any device."""

    ALWAYS = (
        *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_static"),
        *("masked_select", "masked_scatter", "_unique2", "unique_dim", "unique_consecutive"),
        *("bincount", "repeat_interleave", "_pin_memory"),
    )

    def __init__(self):
        super().__init__()
        self.seen, self.all = [], set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        by_flags = "index" in name and any(t.dtype == torch.bool for t in tensors)
        elsewhere = str((kwargs or {}).get("device") or "cpu") != "cpu"
        if name in self.ALWAYS or by_flags or elsewhere:
            self.seen.append(name)
        self.all.add(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 1),
        lambda x: x[x > 0.5],
        lambda x: x.index_put_((x > 0.5,), torch.zeros(1)),
        lambda x: x.nonzero(),
        lambda x: x.unique(),
    ],
)
def test_the_watchers_see_a_host_that_waits(wait):
    with Waits() as waits, cuda_graph.Watch() as watch:
        wait(torch.rand(4))
    assert waits.seen and watch.waits


def test_the_watch_sees_numbers_that_go_from_device_to_device():
    here, there = torch.rand(3), torch.rand(3, device="meta")
    number = torch.rand(())
    crosses = cuda_graph._crosses
    assert (
        crosses([here], [there]) and crosses([there, here], [there]) and crosses([number], [there])
    )
    assert not crosses([there, number], [there]) and not crosses([], [there])


PRIORS = {
    "oes": lambda c: lk.Prior("oes", (16, 16), levels=2, out_channels=c),
    "dip": lambda c: tiny_prior(channels=c),
    "dip cropped": lambda c: tiny_prior((18, 14), channels=c),
    "deep-decoder": lambda c: lk.Prior("deep-decoder", (16, 16), levels=2, width=8, out_channels=c),
}
OPERATORS = {
    "denoise": lambda shape: lk.physics.Denoise(0.1),
    "inpaint": lambda shape: lk.physics.Inpaint.random(shape, 0.5),
    "inpaint each channel": lambda shape: lk.physics.Inpaint.random(shape, 0.5, per_channel=True),
    "super-resolution": lambda shape: lk.physics.SuperResolution(2),
    "compressed sensing": lambda shape: lk.physics.CompressedSensing(shape, m=40, corrupted=4),
    "mri": lambda shape: lk.physics.MRI(
        torch.ones(3, *shape[1:]), lk.physics.sampling_mask(shape[1:], 2)
    ),
}


def under_way(prior, op, mask=None, **options) -> _Run:
    clean = prior().detach()[0].clamp(0, 1)
    numbers = dict(
        steps=100, lr=0.01, input_noise=0.03, average=None, stop=None, langevin=0.0,
        weight_decay=1e-4, backtrack=None, every=50, seed=0, precision="auto", engine="auto",
    )  # fmt: skip
    settings = Settings(**(numbers | options))
    return _Run(prior, op, op.measure(clean), mask, settings, clean)


@pytest.mark.parametrize("precision", ["auto", "bf16"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_what_is_captured_never_asks_the_device(monkeypatch, prior, op, masked, precision):
    monkeypatch.setattr("lipkit.engine.choose.SMALL", 0)  # the network that a GPU would train
    monkeypatch.setattr("lipkit.engine.choose.why_not_sparse", lambda *_: "on a GPU")
    channels = 2 if op == "mri" else 3
    prior = PRIORS[prior](channels)
    mask = lk.Mask.random(prior.net, 0.3, seed=1) if masked else None
    run = under_way(prior, OPERATORS[op]((channels, *prior.size)), mask, precision=precision)
    run._train()  # masks of operators move to the device of the picture at the first step
    with Waits() as waits, cuda_graph.Watch() as watch:
        run._train()
    assert {"_fused_adam_", "convolution_backward"} <= waits.all
    assert waits.seen == [] and watch.waits == ""


# --- the same fit -------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"input_noise": 0.03, "seed": 4},
    {"langevin": 0.01},
    {"weight_decay": 0.1, "mask": MASK},
    {"average": 0.9, "every": 3},
    {"average": lk.PosteriorMean(2, 2), "input_noise": 0.02},
    {"stop": lk.stop.WMV(3, 4), "lr": 0.3, "langevin": 0.1, "steps": 60},
    {"stop": lk.stop.EMV(0.3, 4, 2), "lr": 0.3, "langevin": 0.1, "steps": 60},
    {"precision": "bf16"},
    {"op": lk.physics.SuperResolution(2), "y": lk.physics.SuperResolution(2).A(CLEAN)},
]
NAMES = ["plain", "noise", "langevin", "masked", "ema", "mean", "wmv", "emv", "bf16", "small"]


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_replaying_gives_the_same_bits(stand_in, tmp_path, options):
    options = {"steps": 20, "reference": CLEAN} | options
    plain = quick(checkpoint=tmp_path / "plain", **options)
    made = stand_in()
    graphed = quick(checkpoint=tmp_path / "graphed", **options)
    assert_same_fit(graphed, plain)
    assert graphed.engine == f"{plain.engine}; the step is one CUDA graph"
    # the step that was done both ways is one of the fit's own
    assert made[-1].replays == plain.steps - cuda_graph.WARM_UP
    assert made[-1].warm_ups == 3  # the fewest that PyTorch asks for
    one, other = (load_file(tmp_path / name) for name in ("plain", "graphed"))
    assert one.keys() == other.keys()  # weights, moments, averages, oracle, rule, generator
    for name in one:
        np.testing.assert_array_equal(other[name], one[name], err_msg=name)


@pytest.mark.parametrize("steps", range(1, 7))
def test_no_step_before_the_replays_is_lost_or_done_twice(stand_in, steps):
    options = dict(steps=steps, input_noise=0.03, average=0.9)
    plain = quick(**options)
    stand_in()
    assert_same_fit(quick(**options), plain)


def test_what_a_callback_keeps_is_not_overwritten(stand_in):
    def seen(**options):
        kept = []
        quick(steps=12, callback=lambda s: kept.append((s.loss, s.image)), **options)
        return kept

    plain = seen()
    stand_in()
    for (loss, image), (want, picture) in zip(seen(), plain, strict=True):
        assert loss == want and torch.equal(image, picture)


def test_what_a_replay_gives_stays_as_it_is():
    static = torch.zeros(3)
    replaying = object.__new__(cuda_graph.CudaGraph)
    replaying.graph, replaying.outputs = SimpleNamespace(replay=lambda: static.add_(1)), (static,)
    first, second = replaying.replay(), replaying.replay()
    assert first[0].tolist() == [1, 1, 1] and second[0].tolist() == [2, 2, 2]


def test_an_interrupted_fit_is_captured_anew(stand_in, tmp_path):
    def interrupt(snapshot):
        if snapshot.step == 8:
            raise KeyboardInterrupt

    options = dict(steps=20, input_noise=0.03, average=0.9, reference=CLEAN, mask=MASK)
    plain = quick(**options)
    made = stand_in()
    part = quick(checkpoint=tmp_path / "c", callback=interrupt, **options)
    assert part.interrupted and made[-1].replays == 8 - cuda_graph.WARM_UP
    assert_same_fit(quick(checkpoint=tmp_path / "c", **options), plain)
    assert made[-1].replays == 20 - 8 - cuda_graph.WARM_UP


# --- a graph that is not the step ---------------------------------------------------------------


def weights_of(self):
    return list(self.step.func.__self__.adam.state)


class CannotCapture(Rerun):
    def capture(self, step):
        step()  # what was done until then is undone
        raise RuntimeError("operation not permitted when stream is capturing\nand many lines more")


class CannotReplay(Rerun):
    def rerun(self):
        super().rerun()
        raise RuntimeError("no more memory")


class OtherLoss(Rerun):
    def rerun(self):
        super().rerun()
        self.outputs[2].mul_(1.1)


class OtherPicture(Rerun):
    def rerun(self):
        super().rerun()
        self.outputs[0].mul_(1.1)


class NotANumber(Rerun):
    def rerun(self):
        super().rerun()
        self.outputs[2].fill_(torch.nan)


class TrainsNothing(Rerun):
    def rerun(self):
        before = [p.detach().clone() for p in weights_of(self)]
        super().rerun()
        with torch.no_grad():
            for p, was in zip(weights_of(self), before, strict=True):
                p.copy_(was)


class TrainsHalfAsMuch(Rerun):
    def rerun(self):
        before = [p.detach().clone() for p in weights_of(self)]
        super().rerun()
        with torch.no_grad():
            for p, was in zip(weights_of(self), before, strict=True):
                p.lerp_(was, 0.5)


class CountsNoSteps(Rerun):
    def rerun(self):
        super().rerun()
        for entry in self.step.func.__self__.adam.state.values():
            entry["step"] -= 1


class OldNoise(Rerun):
    """Draws what it drew before, as a graph that does not know of the generator."""

    def capture(self, step):
        super().capture(step)
        self.old = torch.Generator().manual_seed(99).get_state()

    def rerun(self):
        self.generator.set_state(self.old)
        super().rerun()


class ForgetsItDrew(Rerun):
    def rerun(self):
        state = self.generator.get_state()
        super().rerun()
        self.generator.set_state(state)


class ForgetsTheMask(Rerun):
    def rerun(self):
        run = self.step.args[0].__self__
        engine = run.engine
        run.engine = replace(engine, pairs=[])
        super().rerun()
        run.engine = engine


WRONG = {
    CannotCapture: "RuntimeError: operation not permitted when stream is capturing",
    CannotReplay: "RuntimeError: no more memory",
    OtherLoss: "the graph's loss is off by ",
    OtherPicture: "the graph's picture is off by ",
    NotANumber: "the graph's loss is off by nan",
    TrainsNothing: "the graph's weights is off by ",
    TrainsHalfAsMuch: "the graph's weights is off by ",
    CountsNoSteps: "the graph's step is off by ",
    OldNoise: "the graph's .* is off by ",
    ForgetsItDrew: "the graph's noise is off by ",
    ForgetsTheMask: "the graph's .* is off by ",
}


@pytest.mark.parametrize(("kind", "reason"), WRONG.items(), ids=[k.__name__ for k in WRONG])
def test_a_graph_that_is_not_the_step_is_not_used(stand_in, tmp_path, kind, reason):
    options = dict(steps=12, input_noise=0.05, mask=MASK, reference=CLEAN)
    plain = quick(checkpoint=tmp_path / "plain", **options)
    made = stand_in(kind)
    fit = quick(checkpoint=tmp_path / "graphed", **options)
    assert_same_fit(fit, plain)
    sentence = fit.engine.removeprefix(f"{plain.engine}; steps one by one: ")
    assert sentence != fit.engine and "\n" not in sentence
    assert re.match(reason, sentence)
    assert made[-1].replays <= 1
    one, other = (load_file(tmp_path / name)["random.state"] for name in ("plain", "graphed"))
    assert torch.equal(one, other)


class RoundsOtherwise(Rerun):
    """Adds up in another order; a bias before a norm, which has no slope, then goes elsewhere."""

    def rerun(self):
        super().rerun()
        net = self.step.func.__self__.net
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.mul_(1 + 1e-7)
                if name.endswith("conv.bias"):
                    p.add_(0.01)


def test_a_graph_that_only_rounds_otherwise_is_used(stand_in):
    made = stand_in(RoundsOtherwise)
    assert quick(steps=12).engine.endswith("; the step is one CUDA graph")
    assert made[-1].replays > 1


def test_a_capture_that_fails_leaves_stream_and_generators_in_order(monkeypatch):
    """By PyTorch's calls alone: a capture that was spoilt cannot end, and ends nothing else."""

    class SpoiltCapture:
        def __init__(self, *_, **how):
            assert how == {"stream": stream, "capture_error_mode": "thread_local"}

        def __enter__(self):
            cuda.current = stream

        def __exit__(self, *_):
            raise RuntimeError("operation failed due to a previous error during capture")

    def generator():
        return Mock(clone_state=Mock(return_value="usable"), device=torch.device("cuda", 0))

    stream, ours, default = Mock(device=torch.device("cuda", 0)), generator(), generator()
    cuda = Mock(
        current="usual", graph=SpoiltCapture, default_generators=[default],
        Stream=Mock(return_value=stream),
    )  # fmt: skip
    cuda.current_stream = lambda *_: cuda.current
    cuda.set_stream = lambda to: setattr(cuda, "current", to)
    monkeypatch.setattr(torch, "cuda", cuda)
    with pytest.raises(RuntimeError, match="previous error"):
        cuda_graph.CudaGraph(ours).capture(lambda: ())
    assert cuda.current == "usual"
    cuda.CUDAGraph().register_generator_state.assert_called_once_with(ours)
    for each in (ours, default):
        each.graphsafe_set_state.assert_called_once_with("usable")


# --- operators that a graph cannot hold ---------------------------------------------------------


class Asks(lk.physics.Denoise):
    def A(self, x):
        return x * (1.0 if float(x.detach().mean()) < 9 else 0.0)


class Selects(lk.physics.Denoise):
    """Keeps some pixels, named by flags or by numbers."""

    def __init__(self, flags: bool):
        super().__init__(0.1)
        kept = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
        self.kept = kept if flags else kept.flatten().nonzero()[:, 0]

    def A(self, x):
        return x[..., self.kept] if self.kept.ndim == 2 else x.flatten(-2)[..., self.kept]


@pytest.mark.parametrize(
    ("op", "operation"), [(Asks(), "_local_scalar_dense"), (Selects(flags=True), "index")]
)
def test_an_operator_that_asks_the_device_is_not_captured(stand_in, op, operation):
    options = dict(op=op, y=op.A(Y[None])[0], steps=12)
    plain = quick(**options)
    made = stand_in()
    fit = quick(**options)
    assert_same_fit(fit, plain)
    assert f"; steps one by one: {operation}" in fit.engine and "makes the host wait" in fit.engine
    assert not hasattr(made[-1], "step")  # not even tried


def test_an_operator_that_selects_by_numbers_is_captured(stand_in):
    op = Selects(flags=False)
    stand_in()
    fit = quick(op=op, y=op.A(Y), steps=12)
    assert fit.engine.endswith("; the step is one CUDA graph")


def test_the_memory_that_a_graph_reads_is_held_and_no_other(stand_in):
    stand_in()
    op = lk.physics.Inpaint.random((3, 16, 16), 0.5)
    run = under_way(tiny_prior(), op, MASK)
    for _ in range(cuda_graph.WARM_UP + 2):
        run.advance()
    moments = [t for entry in run.adam.state.values() for t in entry.values()]
    masks = [m for _, m in run.engine.pairs]
    outside = [*run.prior.state_dict().values(), *moments, *masks, run.y, op.mask]
    assert run.train.watch.read.keys() == {t.untyped_storage().data_ptr() for t in outside}


# --- when there is none -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "plain"}, "as asked for"),
        ({"backtrack": 5.0}, "backtracking looks at the loss in the middle of one"),
        ({"steps": cuda_graph.WORTH - 1}, "there are fewer than 50"),
    ],
)
def test_a_fit_that_is_not_for_a_graph_says_why(stand_in, monkeypatch, options, reason):
    plain = quick(**options)
    made = stand_in()
    monkeypatch.setattr(FIT, "WORTH", cuda_graph.WORTH if "steps" in options else 0)
    fit = quick(**options)
    assert_same_fit(fit, plain)
    assert fit.engine == f"{plain.engine}; steps one by one: {reason}"
    assert all(g.replays == 0 for g in made)


def test_a_fit_is_forgotten_at_once():
    """Without waiting for the garbage collector, which knows nothing of a GPU's memory."""
    op = lk.physics.Denoise(0.1)
    gone = weakref.ref(op)
    gc.disable()
    try:
        quick(op=op)
        del op
        assert gone() is None
    finally:
        gc.enable()


def test_how_many_steps_are_worth_a_graph(stand_in, monkeypatch, tmp_path):
    stand_in()
    monkeypatch.setattr(FIT, "WORTH", cuda_graph.WORTH)
    path = tmp_path / "c"
    first = quick(steps=cuda_graph.WORTH, every=50, checkpoint=path)
    assert first.engine.endswith("; the step is one CUDA graph")
    more = quick(steps=2 * cuda_graph.WORTH - 1, every=50, checkpoint=path)
    assert more.engine.endswith("; steps one by one: there are fewer than 50")  # left


def test_on_the_cpu_nothing_is_said_of_graphs():
    assert quick(steps=60, every=60).engine == "dense: the network is small"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("options", [{}, {"input_noise": 0.03}, {"langevin": 0.01}, {"mask": MASK}])
def test_on_a_gpu_the_graph_gives_the_fit_of_the_steps(options):
    options = {"steps": 60, "every": 20, "reference": CLEAN} | options
    graphed = quick(tiny_prior().cuda(), **options)
    steps = quick(tiny_prior().cuda(), engine="plain", **options)
    assert graphed.engine.endswith("; the step is one CUDA graph")
    assert steps.engine == "plain: asked for; steps one by one: as asked for"
    assert graphed.history["loss"] == pytest.approx(steps.history["loss"], rel=0.05)
    assert graphed.history["psnr"] == pytest.approx(steps.history["psnr"], abs=0.3)
    state = torch.cuda.get_rng_state()
    torch.randn(3, device="cuda")  # the capture left the global generator usable
    assert not torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
def test_on_a_gpu_a_capture_that_fails_leaves_no_disorder(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_asks", lambda *_: False)  # so that it is tried
    monkeypatch.setattr(cuda_graph, "_crosses", lambda *_: False)
    fit = quick(tiny_prior().cuda(), op=Asks(), steps=60, every=20, input_noise=0.03)
    assert "; steps one by one: " in fit.engine and fit.steps == 60
    assert torch.randn(3, device="cuda").isfinite().all()
    after = quick(tiny_prior().cuda(), steps=60, every=20, input_noise=0.03)
    assert after.engine.endswith("; the step is one CUDA graph")
