"""The step written down for one picture size: tables, and the list of tasks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from . import opcodes
from .layout import Index, Layouts, Memory
from .opcodes import LANES, ChainRow, ConvRow, OpRow, ProductRow, TaskRow, table
from .read import Chain, Double, NetworkGraph, Norm, Out, Write
from .taps import round_up, starts, tiles

PLANES_AT_HAND = 64  # of which the rows that a sum reads stay in the fastest cache
LEAST_TAPS = 16  # of an output plane in a block of input planes
NUMBERS_AT_HAND = 8192  # of input planes, while a weight gradient is summed up
LEAST_GROUPS = 2  # of taps of an output plane in a block of input channels
AT_ONCE = 16  # vectors of pixels that a weight gradient sums up before it goes to the next tap


@dataclass
class Program:
    """Tables for the compiled function, for codes of one shape.

    The parameters of the norms and the output's bias come as one dense list.
    """

    graph: NetworkGraph
    shape: tuple[int, int, int, int]
    weight_starts: dict[str, int]  # where the kept values of each convolution start
    vector_starts: dict[str, int]  # where each parameter starts in the dense list
    team: int  # of so many threads
    into_code: bool  # whether somebody asks for the gradient of the code
    widths: tuple[int, ...]  # numbers of vectors that a weighted sum can make

    def __post_init__(self) -> None:
        self.at = Layouts(self.graph, self.shape, self.into_code)
        self.index = Index()
        self.memory = self.at.memory
        self.images = self.at.images
        self.rows: dict[str, tuple[np.ndarray, ...]] = {}  # where the taps of each plane start
        self.convs, self.products = self._conv_tables()
        self.chains, self.ops, self.scratch_size = self._chain_tables()
        self.scratch = self.memory.take(self.team * self.scratch_size)
        self.load_code = self._pack([self._chain(opcodes.FORWARD, "")])
        self.forward = self._pack(self._forward())
        self.backward = self._pack(self._backward())

    # --- tables -----------------------------------------------------------------------------

    def _conv_tables(self) -> tuple[np.ndarray, np.ndarray]:
        convs: list[ConvRow] = []
        products: list[ProductRow] = []
        for name in self.graph.convs:
            conv, forward, back = self._conv_rows(name)
            convs.append(conv)
            products += [forward, back]
        return table(ConvRow, convs), table(ProductRow, products)

    def _conv_rows(self, name: str) -> tuple[ConvRow, ProductRow, ProductRow]:
        """One convolution as a whole, and the sums that it makes forward and backward."""
        at = self.at.of[name]
        taps = self.at.taps[name]
        add = self.index.add
        take = self.memory.take
        n_out = int(self.graph.chains[name].alive.sum()) * at.g.planes_out
        n_in = int(self.at.planes[name].max(initial=-1) + 1) * at.g.planes_in
        offsets = taps.source * at.u_stride + taps.shift
        offsets_back = taps.out * at.gz_stride - taps.shift
        # the same by output plane, in groups of eight
        rows = starts(taps.out, n_out)
        rows8 = starts(taps.out, n_out, 8)
        place = np.arange(taps.count) - rows[taps.out] + rows8[taps.out]
        offsets8 = np.zeros(rows8[-1], np.int64)
        offsets8[place] = offsets
        high = np.unique(taps.shift // at.g.pitch).size
        near = min(high * AT_ONCE * LANES, AT_ONCE * LANES + taps.reach)
        cuts = group_cuts(taps.source // at.g.planes_in, place, rows8, near * at.g.planes_in)
        order, ahead, many = blocks(taps.source, taps.out, n_in, n_out, high)
        order_back, back, many_back = blocks(taps.out, taps.source, n_out, n_in, high)
        conv = ConvRow(
            values=self.weight_starts[name],
            kept=int(self.graph.convs[name].keep.sum()),
            taps=taps.count,
            slots=add(taps.slot) if at.g.doubled else -1,
            weights=take(taps.count),
            ahead=take(taps.count),
            ahead_order=add(order),
            back=take(taps.count),
            back_order=add(order_back),
            grad=take(offsets8.size),
            grad_slots=add(place[taps.slot]) if at.g.doubled else -1,
            rows=add(rows),
            rows8=add(rows8),
            offsets8=add(offsets8),
            cuts=add(cuts.ravel()),
            blocks=len(cuts) - 1,
            planes=n_out,
            u=at.u,
            gz=at.gz,
            gz_stride=at.gz_stride,
            vectors=round_up(at.g.written) // LANES,
            at_once=AT_ONCE,
        )
        forward = ProductRow(
            source=at.u,
            rows=add(ahead),
            offsets=add(offsets[order]),
            weights=conv.ahead,
            out=at.z,
            stride=at.z_stride,
            blocks=many,
            planes=n_out,
        )
        backward = ProductRow(
            source=at.gz,
            rows=add(back),
            offsets=add(offsets_back[order_back]),
            weights=conv.back,
            out=at.gu,
            stride=at.u_stride,
            blocks=many_back,
            planes=n_in,
        )
        self.rows[name] = rows, starts(np.sort(taps.source), n_in), rows8
        return conv, forward, backward

    def _chain_tables(self) -> tuple[np.ndarray, np.ndarray, int]:
        chains: list[ChainRow] = []
        ops: list[OpRow] = []
        largest = 0
        for chain in self.graph.chains.values():
            scratch = Memory()
            sizes = self.at.walk(chain)
            most = self.images * max(h * w for h, w in sizes)
            scratch.take(2 * max(w for _, w in sizes) + 64)  # a padded line
            rows = self._op_rows(chain, sizes, scratch)
            norms = [i for i, row in enumerate(rows) if row.code == opcodes.NORM]
            chains.append(
                ChainRow(
                    first=len(ops),
                    last=len(ops) + len(rows),
                    again=len(ops) + (norms[-1] if norms else 1),
                    images=self.images,
                    g=scratch.take(most),
                    other=scratch.take(most),
                )
            )
            ops += rows
            largest = max(largest, scratch.size)
        return table(ChainRow, chains), table(OpRow, ops), largest

    def _op_rows(self, chain: Chain, sizes: list, scratch: Memory) -> list[OpRow]:
        current = scratch.take(self.images * sizes[0][0] * sizes[0][1])
        rows = [self._load_row(chain, current)]
        for i, op in enumerate(chain.ops):
            h0, w0 = sizes[i]
            h, w = sizes[i + 1]
            if isinstance(op, Double) and self.at.skipped(chain, i):
                continue
            if isinstance(op, Write):
                rows.append(self._write_row(op, current, h, w))
                continue
            if isinstance(op, Out):
                rows.append(self._out_row(current, h, w))
                continue
            source = current
            current = scratch.take(self.images * h * w)
            if isinstance(op, Norm):
                rows.append(self._norm_row(op, current, source, self.images * h * w))
                continue
            before = dict(into=current, source=source, h=h0, w=w0)
            if isinstance(op, Double):
                rows.append(OpRow(opcodes.DOUBLE, **before, bilinear=int(op.mode == "bilinear")))
            else:
                corner = dict(top=(h0 - h) // 2, left=(w0 - w) // 2)
                rows.append(OpRow(opcodes.CROP, **before, **corner, new_h=h, new_w=w))
        return rows

    def _load_row(self, chain: Chain, into: int) -> OpRow:
        h, w = self.at.sizes[chain.source]
        if not chain.source:
            return OpRow(
                opcodes.LOAD,
                into=into,
                h=h,
                w=w,
                planes=self.at.code,
                grads=self.at.code_grad,
                channel=h * w,
                pitch=w,
                image=chain.channels * h * w,
                mode=opcodes.PLAIN,
                grads_channel=h * w,
                all_there=1,
            )
        at = self.at.of[chain.source]
        mode = opcodes.PLAIN
        if at.g.doubled:
            mode = opcodes.PHASES
        elif self.graph.convs[chain.source].pool == "max":
            mode = opcodes.MAXIMUM
        return OpRow(
            opcodes.LOAD,
            into=into,
            h=h,
            w=w,
            planes=at.z,
            grads=at.gz,
            channel=at.g.planes_out * at.z_stride,
            phase=at.z_stride,
            pitch=at.g.pitch,
            image=at.g.image,
            mode=mode,
            grads_channel=at.g.planes_out * at.gz_stride,
            grads_phase=at.gz_stride,
            lead=at.lead,
        )

    def _norm_row(self, op: Norm, into: int, source: int, size: int) -> OpRow:
        activation = opcodes.ACTIVATIONS[op.activation]
        row = OpRow(opcodes.NORM, into=into, source=source, size=size, activation=activation)
        if not op.name:
            return row
        scale = self.vector_starts[f"{op.name}.weight"] + op.first
        shift = self.vector_starts[f"{op.name}.bias"] + op.first
        return row._replace(normed=1, scale=scale, shift=shift, stats=scale)

    def _write_row(self, op: Write, source: int, h: int, w: int) -> OpRow:
        at = self.at.of[op.conv]
        before = self.at.planes[op.conv][: op.first]
        channel = at.g.planes_in * at.u_stride
        first = int((before >= 0).sum()) * channel
        return OpRow(
            opcodes.WRITE,
            source=source,
            h=h,
            w=w,
            planes=at.u + first,
            grads=at.gu + first,
            channel=channel,
            phase=at.u_stride,
            pitch=at.g.pitch,
            image=at.g.image,
            split=int(at.g.split),
            box=int(at.g.box),
            pad=at.g.pad,
            padding=at.g.padding,
        )

    def _out_row(self, source: int, h: int, w: int) -> OpRow:
        channels = self.graph.convs["head"].module.out_channels
        self.output = (self.images, channels, h, w)
        bias = self.vector_starts.get("head.bias", -1)
        return OpRow(opcodes.OUT, source=source, size=h * w, bias=bias, channels=channels)

    # --- tasks ------------------------------------------------------------------------------

    def _forward(self) -> list[list[TaskRow]]:
        stages = [self._all_convs(opcodes.GATHER)]
        for name in self.graph.convs:
            stages += [self._combine(name, False), self._chain(opcodes.FORWARD, name)]
        return stages

    def _backward(self) -> list[list[TaskRow]]:
        stages = []
        for i, name in reversed(list(enumerate(self.graph.convs))):
            stages.append(self._chain(opcodes.BACKWARD, name))
            back = self._combine(name, True) if self.at.sends_back(name) else []
            stages.append(self._correlate(name, i) + back)  # long tasks first
        if self.into_code:
            stages.append(self._chain(opcodes.BACKWARD, ""))
        return [*stages, self._all_convs(opcodes.SCATTER)]

    def _all_convs(self, kind: int) -> list[TaskRow]:
        """One task for each convolution, long ones first."""
        counts = [taps.count for taps in self.at.taps.values()]
        return [TaskRow(kind, int(i)) for i in np.argsort(counts)[::-1]]

    def _chain(self, kind: int, source: str) -> list[TaskRow]:
        which = list(self.graph.chains).index(source)
        alive = np.flatnonzero(self.graph.chains[source].alive)
        return [TaskRow(kind, which, plane=k, channel=int(c)) for k, c in enumerate(alive)]

    def _combine(self, name: str, back: bool) -> list[TaskRow]:
        which = 2 * list(self.graph.convs).index(name) + back
        rows = self.rows[name][int(back)]
        g = self.at.of[name].g
        pieces = tiles(g.read if back else g.written, self.widths)
        parts = 1 if len(pieces) >= 8 * self.team else 4 * self.team
        cuts = even_cuts(rows, parts)
        return [
            TaskRow(opcodes.COMBINE, which, start=start, vectors=n, first=first, last=last)
            for start, n in pieces
            for first, last in itertools.pairwise(cuts)
        ]

    def _correlate(self, name: str, which: int) -> list[TaskRow]:
        cuts = even_cuts(self.rows[name][2], self.team)
        return [
            TaskRow(opcodes.CORRELATE, which, first=first, last=last)
            for first, last in itertools.pairwise(cuts)
        ]

    def _pack(self, stages: list[list[TaskRow]]) -> tuple[np.ndarray, np.ndarray]:
        """All tasks as one table, and where each stage starts."""
        stages = [stage for stage in stages if stage]
        bounds = np.cumsum([0] + [len(stage) for stage in stages])
        tasks = [task for stage in stages for task in stage]
        return table(TaskRow, tasks), bounds.astype(np.int64)


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
    outs = rows.size - 1
    heads = np.flatnonzero(place % 8 == 0)
    channels = int(channel.max(initial=0)) + 1
    most = -(-channels * near // NUMBERS_AT_HAND)
    count = max(1, min(most, heads.size // (LEAST_GROUPS * max(1, outs))))
    block = channel[heads] * count // channels
    out = np.searchsorted(rows, place[heads], side="right") - 1
    cuts = np.zeros((count + 1, outs), np.int64)
    np.add.at(cuts, (block + 1, out), 8)
    cuts[0] += rows[:-1]
    return cuts.cumsum(axis=0)


def even_cuts(rows: np.ndarray, parts: int) -> list[int]:
    """Cut planes into runs with about equally many taps each."""
    planes = rows.size - 1
    # an empty plane costs a little too
    weight = rows + np.arange(rows.size)
    cuts = np.searchsorted(weight, np.linspace(0, weight[-1], min(parts, planes) + 1))
    return sorted({0, planes, *(int(c) for c in cuts[1:-1])})
