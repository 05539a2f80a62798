"""Where everything is: sizes of pictures and planes, and places in one long array."""

from __future__ import annotations

import numpy as np

from .opcodes import LANES
from .read import Chain, Conv, Crop, Double, NetworkGraph, Norm, NotSupported, Write
from .taps import Geometry, Taps, can_double, round_up


class Memory:
    """Places in one long array, each starting at a cache line."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, n: int) -> int:
        start = self.size
        self.size += round_up(n)
        return start


def spaced(n: int) -> int:
    """A distance between planes that does not map all of them to the same cache lines."""
    n = round_up(n)
    return n + 144 if (4 * n) % 4096 < 512 else n


class Index:
    """All lists of small whole numbers, one after the other."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.size = 0

    def add(self, numbers: np.ndarray) -> int:
        if numbers.size and numbers.max() >= 2**31:
            raise NotSupported("the picture is too large for the sparse step")
        start = self.size
        self.parts.append(numbers.astype(np.int32))
        self.size += numbers.size
        return start

    def array(self) -> np.ndarray:
        return np.concatenate(self.parts)


def packed(uses: list[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Places for buffers (first use, last use, size) that share memory, and its size.

    >>> packed([(0, 1, 64), (1, 2, 32), (2, 3, 48)])
    ([0, 64, 0], 96)
    """
    places: list[int] = []
    for first, last, size in uses:
        others = zip(uses, places, strict=False)
        taken = sorted((at, at + n) for (a, b, n), at in others if a <= last and first <= b)
        start = 0
        for low, high in taken:
            if start + size <= low:
                break
            start = max(start, high)
        places.append(start)
    ends = (at + n for (_, _, n), at in zip(uses, places, strict=True))
    return places, max(ends, default=0)


class Layout:
    """Where the input planes, the output planes and their gradients of a convolution are."""

    gu = gz = 0  # given when the order of the backward pass is known

    def __init__(self, g: Geometry, planes_in: int, planes_out: int, reach: int, memory: Memory):
        self.g = g
        self.u_stride = spaced(max(g.read, g.written) + reach + LANES)
        self.z_stride = spaced(g.written + LANES)
        # gradients have zeros before and behind: taps then need not look whether they fall outside
        self.lead = round_up(reach + 1)
        self.gz_stride = spaced(self.lead + max(g.read, g.written) + LANES)
        self.u = memory.take(planes_in * g.planes_in * self.u_stride)
        self.gu_size = round_up(planes_in * g.planes_in * self.u_stride)
        self.z = memory.take(planes_out * g.planes_out * self.z_stride)
        self.gz_size = round_up(planes_out * g.planes_out * self.gz_stride)


class Layouts:
    """Sizes and places of all convolutions of a network, for codes of one shape."""

    def __init__(
        self, graph: NetworkGraph, shape: tuple[int, int, int, int], into_code: bool
    ) -> None:
        self.graph = graph
        self.into_code = into_code
        self.memory = Memory()
        self.of: dict[str, Layout] = {}
        self.taps: dict[str, Taps] = {}
        self.planes: dict[str, np.ndarray] = {}  # input channel of a convolution -> number or -1
        self.sizes: dict[str, tuple[int, int]] = {}  # picture behind each chain's source
        self.images, channels, h, w = shape
        size = self.images * channels * h * w
        self.code = self.memory.take(size)
        self.code_grad = self.memory.take(size * into_code)
        self._follow(h, w)
        self._share_gradients()

    def _follow(self, h: int, w: int) -> None:
        """Follow the picture's size through the network."""
        self.sizes[""] = (h, w)
        self.doubled = self._which_doubled()
        for conv in self.graph.convs.values():
            h, w = self._input_size(conv)
            g = Geometry.of(conv, self.images, h, w, conv.name in self.doubled)
            reach = conv.kernel // 2 if conv.module.padding_mode == "reflect" else 0
            if min(h, w) * (2 if g.doubled else 1) <= reach or min(g.h_out, g.w_out) < 1:
                raise NotSupported(f"pictures of {h} x {w} are too small for {conv.name!r}")
            alive = self.graph.chains[conv.name].alive
            plane, planes_in = self._number_planes(conv)
            row = np.cumsum(alive) - 1
            taps = Taps.of(conv.keep, plane, row, g)
            self.planes[conv.name] = plane
            self.taps[conv.name] = taps
            planes_out = int(alive.sum())
            self.of[conv.name] = Layout(g, planes_in, planes_out, taps.reach, self.memory)
            size = (g.h_out, g.w_out)
            if g.doubled:
                size = (2 * g.h_out, 2 * g.w_out)
            elif conv.pool == "max":
                size = (g.h_out // 2, g.w_out // 2)
            self.sizes[conv.name] = size

    def _share_gradients(self) -> None:
        """Place the gradients: few are in use at a time, and memory just used is fast memory."""
        order = list(reversed(self.graph.convs))
        when = {name: i for i, name in enumerate(order)} | {"": len(order)}
        uses = []
        for name in order:
            last = max(when[chain.source] for chain, _ in self.graph.parts_of(name))
            uses.append((when[name], when[name], self.of[name].gz_size))
            sent = self.of[name].gu_size if self.sends_back(name) else 0
            uses.append((when[name], last, sent))
        places, size = packed(uses)
        start = self.memory.take(size)
        for name, gz, gu in zip(order, places[::2], places[1::2], strict=True):
            at = self.of[name]
            at.gz = start + gz + at.lead
            at.gu = start + gu

    def _which_doubled(self) -> set[str]:
        """Convolutions that read the small picture in the place of a doubled one."""
        found = set()
        for chain in self.graph.chains.values():
            for i, op in enumerate(chain.ops):
                if isinstance(op, Double) and op.mode == "nearest":
                    rest = [o for o in chain.ops[i + 1 :] if not isinstance(o, Norm)]
                    conv = self.graph.convs[rest[0].conv] if isinstance(rest[0], Write) else None
                    if conv and can_double(conv, len(self.graph.parts_of(conv.name))):
                        found.add(conv.name)
        return found

    def _input_size(self, conv: Conv) -> tuple[int, int]:
        """The size of the picture that the convolution's planes hold."""
        ends = [self.walk(chain, write)[-1] for chain, write in self.graph.parts_of(conv.name)]
        if len(set(ends)) != 1:
            raise NotSupported(f"the parts that {conv.name!r} reads differ in size")
        return ends[0]

    def walk(self, chain: Chain, until: object = None) -> list[tuple[int, int]]:
        """The picture's size after each step of a chain, up to and with the step `until`."""
        h, w = self.sizes[chain.source]
        out = [(h, w)]
        for i, op in enumerate(chain.ops):
            if isinstance(op, Double) and not self.skipped(chain, i):
                h = 2 * h
                w = 2 * w
            elif isinstance(op, Crop):
                h, w = self._cropped(op)
            out.append((h, w))
            if op is until:
                break
        return out

    def skipped(self, chain: Chain, i: int) -> bool:
        """Whether the doubling at step i is left to the convolution behind it."""
        later = [op for op in chain.ops[i:] if isinstance(op, Write)]
        return later[0].conv in self.doubled

    def _cropped(self, op: Crop) -> tuple[int, int]:
        """The smaller of the sizes of all parts that meet at a level, before they are cropped."""
        sides = []
        for chain in self.graph.chains.values():
            if op in chain.ops and chain.source in self.sizes:
                h, w = self.sizes[chain.source]
                scale = 2 if any(isinstance(o, Double) for o in chain.ops) else 1
                sides.append((scale * h, scale * w))
        return min(h for h, _ in sides), min(w for _, w in sides)

    def _number_planes(self, conv: Conv) -> tuple[np.ndarray, int]:
        """The number of each input channel among those in use."""
        alive = np.concatenate(
            [chain.alive for chain, _ in sorted(self.graph.parts_of(conv.name), key=_first)]
        )
        return np.where(alive, np.cumsum(alive) - 1, -1), int(alive.sum())

    def sends_back(self, name: str) -> bool:
        """Whether somebody asks for the gradient of a convolution's input."""
        parts = self.graph.parts_of(name)
        return self.into_code or any(chain.source for chain, _ in parts)


def _first(part: tuple[Chain, Write]) -> int:
    return part[1].first
