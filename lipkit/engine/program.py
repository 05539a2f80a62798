"""The step written down for one picture size: tables, and the list of tasks."""

from __future__ import annotations

import itertools

import numpy as np

from ._codes import (  # fmt: skip
    ACTIVATIONS,
    BACKWARD,
    COLUMNS,
    COMBINE,
    CORRELATE,
    CROP,
    DOUBLE,
    FORWARD,
    GATHER,
    LANES,
    LOAD,
    MAXIMUM,
    NORM,
    OUT,
    PHASES,
    PLAIN,
    SCATTER,
    WRITE,
)
from ._layout import Index, Layouts, Memory
from ._taps import round_up, starts, tiles
from .plan import Chain, Double, Norm, Out, Plan, Write

PLANES_AT_HAND = 64  # of which the rows that a sum reads stay in the fastest cache
LEAST_TAPS = 16  # of an output plane in a block of input planes
NUMBERS_AT_HAND = 8192  # of input planes, while a weight gradient is summed up
LEAST_GROUPS = 2  # of taps of an output plane in a block of input channels
AT_ONCE = 16  # vectors of pixels that a weight gradient sums up before it goes to the next tap


class Program:
    """Tables for the compiled function, for codes of one shape.

    The parameters of the norms and the output's bias come as one dense list: where each module's
    start is in `vector_starts`. `widths` are the numbers of vectors that a weighted sum can make.
    """

    def __init__(
        self,
        plan: Plan,
        shape: tuple[int, int, int, int],
        weight_starts: dict[str, int],
        vector_starts: dict[str, int],
        team: int,
        into_code: bool,
        widths: tuple[int, ...],
    ) -> None:
        self.plan, self.shape, self.team, self.into_code = plan, shape, team, into_code
        self.weight_starts, self.vector_starts, self.widths = weight_starts, vector_starts, widths
        self.at, self.index = Layouts(plan, shape, into_code), Index()
        self.memory, self.images = self.at.memory, self.at.images
        self.rows: dict[str, tuple[np.ndarray, ...]] = {}  # where the taps of each plane start
        self.convs, self.matrices = self._conv_tables()
        self.chains, self.ops, self.scratch_size = self._chain_tables()
        self.scratch = self.memory.take(team * self.scratch_size)
        self.load_code = self._pack([self._chain(FORWARD, "")])
        self.forward = self._pack(self._forward())
        self.backward = self._pack(self._backward())

    # --- tables -----------------------------------------------------------------------------

    def _conv_tables(self) -> tuple[np.ndarray, np.ndarray]:
        convs, matrices = [], []
        for name in self.plan.convs:
            conv, forward, back = self._conv_rows(name)
            convs.append(conv)
            matrices += [forward, back]
        return table(convs), table(matrices)

    def _conv_rows(self, name: str) -> tuple[list[int], list[int], list[int]]:
        """Rows of the tables for one convolution: as a whole, forward, and backward."""
        at, taps, add, take = self.at.of[name], self.at.taps[name], self.index.add, self.memory.take
        n_out = int(self.plan.chains[name].alive.sum()) * at.g.planes_out
        n_in = int(self.at.planes[name].max(initial=-1) + 1) * at.g.planes_in
        offsets = taps.source * at.u_stride + taps.shift
        offsets_back = taps.out * at.gz_stride - taps.shift
        # the same by output plane, in groups of eight
        rows, rows8 = starts(taps.out, n_out), starts(taps.out, n_out, 8)
        place = np.arange(taps.count) - rows[taps.out] + rows8[taps.out]
        offsets8 = np.zeros(rows8[-1], np.int64)
        offsets8[place] = offsets
        high = np.unique(taps.shift // at.g.pitch).size
        near = min(high * AT_ONCE * LANES, AT_ONCE * LANES + taps.reach)
        cuts = group_cuts(taps.source // at.g.planes_in, place, rows8, near * at.g.planes_in)
        w, w_grad = take(taps.count), take(offsets8.size)
        slots = add(taps.slot) if at.g.doubled else -1
        places = add(place[taps.slot]) if at.g.doubled else -1
        vectors = round_up(at.g.written) // LANES
        kept = int(self.plan.convs[name].keep.sum())
        order, ahead, many = blocks(taps.source, taps.out, n_in, n_out, high)
        order_back, back, many_back = blocks(taps.out, taps.source, n_out, n_in, high)
        w_ahead, w_back = take(taps.count), take(taps.count)
        conv = [
            self.weight_starts[name], kept, taps.count, w, w_ahead, add(order), slots, places,
            w_grad, at.u, add(rows8), add(offsets8), at.gz, at.gz_stride, vectors, AT_ONCE,
            add(rows), n_out, w_back, add(order_back), add(cuts.ravel()), len(cuts) - 1,
        ]  # fmt: skip
        forward = [at.u, add(ahead), add(offsets[order]), w_ahead, at.z, at.z_stride, many, n_out]
        back = [at.gz, add(back), add(offsets_back[order_back]), w_back, at.gu, at.u_stride,
                many_back, n_in]  # fmt: skip
        self.rows[name] = rows, starts(np.sort(taps.source), n_in), rows8
        return conv, forward, back

    def _chain_tables(self) -> tuple[np.ndarray, np.ndarray, int]:
        chains, ops, largest = [], [], 0
        for chain in self.plan.chains.values():
            first, scratch = len(ops), Memory()
            sizes = self.at.walk(chain)
            most = self.images * max(h * w for h, w in sizes)
            scratch.take(2 * max(w for _, w in sizes) + 64)  # a padded line
            rows = self._op_rows(chain, sizes, scratch)
            norms = [i for i, row in enumerate(rows) if row[0] == NORM]
            again = first + (norms[-1] if norms else 1)  # what backward has to compute again
            ops += rows
            buffers = scratch.take(most), scratch.take(most)
            h, w = sizes[-1]
            chains.append([first, len(ops), self.images, again, *buffers, self.images * h * w])
            largest = max(largest, scratch.size)
        return table(chains), table(ops), largest

    def _op_rows(self, chain: Chain, sizes: list, scratch: Memory) -> list[list[int]]:
        current = scratch.take(self.images * sizes[0][0] * sizes[0][1])
        rows = [self._load_row(chain, current)]
        for i, op in enumerate(chain.ops):
            (h0, w0), (h, w) = sizes[i], sizes[i + 1]
            if isinstance(op, Double) and self.at.skipped(chain, i):
                continue
            if isinstance(op, Write):
                rows.append(self._write_row(op, current, h, w))
                continue
            if isinstance(op, Out):
                rows.append(self._out_row(current, h, w))
                continue
            source, current = current, scratch.take(self.images * h * w)
            if isinstance(op, Norm):
                rows.append(self._norm_row(op, current, source, self.images * h * w))
            elif isinstance(op, Double):
                rows.append([DOUBLE, current, source, op.mode == "bilinear", h0, w0])
            else:
                top, left = (h0 - h) // 2, (w0 - w) // 2
                rows.append([CROP, current, source, h0, w0, top, left, h, w])
        return rows

    def _load_row(self, chain: Chain, into: int) -> list[int]:
        h, w = self.at.sizes[chain.source]
        if not chain.source:
            image = chain.channels * h * w
            return [LOAD, into, 0, PLAIN, self.at.code, h * w, 0, w, image, h, w,
                    self.at.code_grad, h * w, 0, 1]  # fmt: skip
        at, pool = self.at.of[chain.source], self.plan.convs[chain.source].pool
        mode = PHASES if at.g.doubled else MAXIMUM if pool == "max" else PLAIN
        n = at.g.planes_out
        return [LOAD, into, 0, mode, at.z, n * at.z_stride, at.z_stride, at.g.pitch, at.g.image,
                h, w, at.gz, n * at.gz_stride, at.gz_stride, 0, at.lead]  # fmt: skip

    def _norm_row(self, op: Norm, into: int, source: int, n: int) -> list[int]:
        row = [NORM, into, source, bool(op.name), ACTIVATIONS[op.activation], 0, 0, 0, n]
        if op.name:
            scale, shift = (self.vector_starts[f"{op.name}.{p}"] for p in ("weight", "bias"))
            first = self.vector_starts[f"{op.name}.weight"]
            row[5:8] = scale + op.first, shift + op.first, first + op.first
        return row

    def _write_row(self, op: Write, source: int, h: int, w: int) -> list[int]:
        at = self.at.of[op.conv]
        g, n = at.g, at.g.planes_in
        before = self.at.planes[op.conv][: op.first]
        first = int((before >= 0).sum()) * n * at.u_stride
        return [WRITE, 0, source, g.split, at.u + first, n * at.u_stride, at.u_stride, g.pitch,
                g.image, g.pad, g.padding, g.box, h, w, 0, at.gu + first]  # fmt: skip

    def _out_row(self, source: int, h: int, w: int) -> list[int]:
        head = self.plan.convs["head"].module
        self.output = (self.images, head.out_channels, h, w)
        bias = self.vector_starts.get("head.bias", -1)
        return [OUT, 0, source, 0, bias, 0, 0, h * w, head.out_channels]

    # --- tasks ------------------------------------------------------------------------------

    def _forward(self) -> list[list[list[int]]]:
        stages = [self._all_convs(GATHER)]
        for name in self.plan.convs:
            stages += [self._combine(name, False), self._chain(FORWARD, name)]
        return stages

    def _backward(self) -> list[list[list[int]]]:
        stages = []
        for i, name in reversed(list(enumerate(self.plan.convs))):
            stages.append(self._chain(BACKWARD, name))
            back = self._combine(name, True) if self.at.sends_back(name) else []
            stages.append(self._correlate(name, i) + back)  # long tasks first
        if self.into_code:
            stages.append(self._chain(BACKWARD, ""))
        return [*stages, self._all_convs(SCATTER)]

    def _all_convs(self, kind: int) -> list[list[int]]:
        """One task for each convolution, long ones first."""
        counts = [taps.count for taps in self.at.taps.values()]
        return [[kind, int(i)] for i in np.argsort(counts)[::-1]]

    def _chain(self, kind: int, source: str) -> list[list[int]]:
        which = list(self.plan.chains).index(source)
        alive = np.flatnonzero(self.plan.chains[source].alive)
        return [[kind, which, k, int(c)] for k, c in enumerate(alive)]

    def _combine(self, name: str, back: bool) -> list[list[int]]:
        which = 2 * list(self.plan.convs).index(name) + back
        rows, g = self.rows[name][int(back)], self.at.of[name].g
        pieces = tiles(g.read if back else g.written, self.widths)
        parts = 1 if len(pieces) >= 8 * self.team else 4 * self.team
        cuts = even_cuts(rows, parts)
        return [
            [COMBINE, which, start, n, a, b]
            for start, n in pieces
            for a, b in itertools.pairwise(cuts)
        ]

    def _correlate(self, name: str, which: int) -> list[list[int]]:
        cuts = even_cuts(self.rows[name][2], self.team)
        return [[CORRELATE, which, a, b] for a, b in itertools.pairwise(cuts)]

    def _pack(self, stages: list[list[list[int]]]) -> tuple[np.ndarray, np.ndarray]:
        """All tasks as one table, and where each stage starts."""
        stages = [stage for stage in stages if stage]
        bounds = np.cumsum([0] + [len(stage) for stage in stages])
        return table([task for stage in stages for task in stage]), bounds.astype(np.int64)


def blocks(
    source: np.ndarray, out: np.ndarray, sources: int, outs: int, high: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Taps block by block of input planes: their order, the start of each output's, the blocks.

    What sums read of the planes of a block, `high` rows of each, stays in the fastest cache while
    all outputs are summed. With few taps nothing is read often, and one block is enough.
    """
    most = -(-sources * high // PLANES_AT_HAND)
    count = max(1, min(most, source.size // (LEAST_TAPS * max(1, outs))))
    size = -(-sources // count)
    order = np.lexsort((source, out, source // size))
    row = (source // size * outs + out)[order]
    return order, starts(row, count * outs), count


def group_cuts(channel: np.ndarray, place: np.ndarray, rows: np.ndarray, near: int) -> np.ndarray:
    """Where the groups of eight of each output plane go over to the next block of input channels.

    Weight gradients go block by block, so that the `near` numbers that are read of every channel
    before the next group can stay in the fastest cache.
    """
    outs, heads = rows.size - 1, np.flatnonzero(place % 8 == 0)
    channels = int(channel.max(initial=0)) + 1
    most = -(-channels * near // NUMBERS_AT_HAND)
    count = max(1, min(most, heads.size // (LEAST_GROUPS * max(1, outs))))
    block = channel[heads] * count // channels
    out = np.searchsorted(rows, place[heads], side="right") - 1
    cuts = np.zeros((count + 1, outs), np.int64)
    np.add.at(cuts, (block + 1, out), 8)
    cuts[0] += rows[:-1]
    return cuts.cumsum(axis=0)


def table(rows: list[list[int]]) -> np.ndarray:
    """Rows of different lengths, filled up with zeros."""
    out = np.zeros((max(1, len(rows)), COLUMNS), np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def even_cuts(rows: np.ndarray, parts: int) -> list[int]:
    """Cut planes into runs with about equally many taps each."""
    planes = rows.size - 1
    # an empty plane costs a little too
    weight = rows + np.arange(rows.size)
    cuts = np.searchsorted(weight, np.linspace(0, weight[-1], min(parts, planes) + 1))
    return sorted({0, planes, *(int(c) for c in cuts[1:-1])})
