"""Whisper's text decoder as one operation: all layers, over caches written in place.

One call runs a step of a few beams, or a whole prompt. A step of a small model takes milliseconds, so each weight is
read once and the cores are a team (see `team.mojo`), which goes through nine phases per layer. An attention, its
projections and its cache are one task per head.
"""

import extensibility
from extensibility import IO, InputTensor, IOSpec, ManagedTensorSlice, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.math import ceildiv

from .attention import HEAD, HEAD_PANELS, attend
from .linear import write_panel
from .rows import normalise
from .team import Member, run_team
from .tile import PANEL, ROWS, scale_rows

comptime VOCABULARY_PANELS_PER_TASK = 32
"""Panels of one task of the vocabulary's 1,621; a projection has a task for each."""

comptime ROWS_PER_TASK = 8
"""Rows of one task of a layer norm."""

comptime PHASES_PER_LAYER = 12
"""Phases of a layer: three norms, two attentions and four projections, and with `align` three copies."""

# Lengths of a layer's parts in the stacked weights of `cpu_decoder.py`, in units of n_state.
comptime NORMS = 6  # scale and shift of three norms
comptime BIASES = 11  # query-key-value 3, out 1, cross query 1, cross out 1, MLP 4 and 1


comptime SEQUENCE = 4
"""Numbers that tell of a sequence."""


@extensibility.register("whisper_decoder")
struct Decoder:
    """Hidden states of new tokens after the last layer norm.

    `y`: `(batch * new, n_state)`. `qk`: with `align`, the scaled cross-attention scores
    `(layers, heads, batch * new, n_ctx)`; one element otherwise. `states`: with `align`, the residual stream
    `(1 + 3 * layers, batch * new, n_state)`: the embedding, then after self-attention, cross-attention and MLP of each
    layer; one element otherwise.
    `keys`, `values`: self-attention caches `(layers, places, heads, slots * HEAD * PANEL)`; inside a head keys are
    `(slots, HEAD, PANEL)`, values `(HEAD_PANELS, slots * PANEL, PANEL)`.
    `cross_keys`, `cross_values`: `(windows, layers, heads, panels, HEAD * PANEL)` over `n_ctx` positions of the audio.
    `tokens`: `(batch, new)`. `sequences`: `(batch, SEQUENCE)`, of each its place in the caches, the positions already
    there, from which on the new ones are written, its window, and the panels of the caches that hold the same in all
    sequences of this window; these stand side by side.
    `embedding`: `(vocabulary panels, n_state, PANEL)`. `positions`: `(n_text_ctx, n_state)`.
    `matrices`: a row each layer, packed one by one as `write_panel` reads them: query-key-value, out, cross query,
    cross out, the two of the MLP. `biases`: `(layers, 11 * n_state)`, in the same order. `norms`: `(layers, 6 * n_state)`, scale and
    shift of the three layer norms. `last_norm`: scale and shift, `(2 * n_state,)`. `audio`: `(n_ctx,)`, for its length.
    `embedded`, `weight` and `cross` are types that `widen` knows; those of a byte, a draft's, are for a single row.
    """

    @staticmethod
    def execute[
        target: StaticString, embedded: DType, weight: DType, cross: DType, align: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        qk: OutputTensor[dtype=DType.float32, rank=4, ...],
        states: OutputTensor[dtype=DType.float32, rank=3, ...],
        keys: ManagedTensorSlice[io_spec=IOSpec[True, IO.Input](), dtype=DType.float32, rank=4, ...],
        values: ManagedTensorSlice[io_spec=IOSpec[True, IO.Input](), dtype=DType.float32, rank=4, ...],
        tokens: InputTensor[dtype=DType.int64, rank=2, ...],
        sequences: InputTensor[dtype=DType.int64, rank=2, ...],
        cross_keys: InputTensor[dtype=cross, rank=5, ...],
        cross_values: InputTensor[dtype=cross, rank=5, ...],
        embedding: InputTensor[dtype=embedded, rank=3, ...],
        positions: InputTensor[dtype=DType.float32, rank=2, ...],
        matrices: InputTensor[dtype=weight, rank=2, ...],
        biases: InputTensor[dtype=DType.float32, rank=2, ...],
        norms: InputTensor[dtype=DType.float32, rank=2, ...],
        last_norm: InputTensor[dtype=DType.float32, rank=1, ...],
        audio: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var n = y.dim_size(1)
        var new = tokens.dim_size(1)
        var rows = tokens.dim_size(0) * new
        var heads = n // HEAD
        var layers = matrices.dim_size(0)
        var n_ctx = audio.dim_size(0)
        var slots = keys.dim_size(3) // (HEAD * PANEL)
        var cross_slots = cross_keys.dim_size(3)
        var places = keys.dim_size(1)
        var table = sequences.unsafe_ptr()

        var x_list = List[Float32](unsafe_uninit_length=rows * n)  # residual stream (rows, n)
        var normal_list = List[Float32](unsafe_uninit_length=rows * n)  # after a layer norm (rows, n)
        var mixed_list = List[Float32](unsafe_uninit_length=rows * n)  # attention's output (rows, n)
        var wide_list = List[Float32](unsafe_uninit_length=rows * 4 * n)  # qkv (rows, 3 n), MLP (rows, 4 n)
        var x = x_list.unsafe_ptr()
        var normal = normal_list.unsafe_ptr()
        var mixed = mixed_list.unsafe_ptr()
        var wide = wide_list.unsafe_ptr()

        def run(mut member: Member) raises {imm}:
            # Token embedding, a column of the packed panels, plus position.
            def embed(row: Int) raises {imm}:
                var token = Int(tokens.unsafe_ptr().unsafe_offset(row).unsafe_load())
                var column = embedding.unsafe_ptr().unsafe_offset((token // PANEL) * n * PANEL + token % PANEL)
                var begin = Int(table.unsafe_offset(row // new * SEQUENCE + 1).unsafe_load())
                var position = positions.unsafe_ptr().unsafe_offset((begin + row % new) * n)
                for c in range(n):
                    var value = column.unsafe_offset(c * PANEL).unsafe_load().cast[DType.float32]()
                    x.unsafe_offset(row * n + c).unsafe_store(value + position.unsafe_offset(c).unsafe_load())

            member.share(embed, rows)
            keep[align](member, 0, rows * n, x, states.unsafe_ptr())

            var depth = n + scale_rows(weight)  # rows of a panel, but of the MLP's second matrix
            for layer in range(layers):
                var w = matrices.unsafe_ptr().unsafe_offset(layer * matrices.dim_size(1))
                var b = biases.unsafe_ptr().unsafe_offset(layer * BIASES * n)
                var g = norms.unsafe_ptr().unsafe_offset(layer * NORMS * n)
                var k = keys.unsafe_ptr().unsafe_offset(layer * places * heads * slots * HEAD * PANEL)
                var v = values.unsafe_ptr().unsafe_offset(layer * places * heads * slots * HEAD * PANEL)

                # Self-attention over the cache.
                layer_norm(member, rows, n, x, g, g.unsafe_offset(n), normal)
                self_attention(member, rows, new, n, table, slots, normal, w, b, k, v, wide, mixed)
                project[False, True](
                    member, rows, n, n, mixed, w.unsafe_offset(3 * n * depth), b.unsafe_offset(3 * n), x
                )
                keep[align](member, 3 * layer + 1, rows * n, x, states.unsafe_ptr())

                # Cross-attention over the audio.
                layer_norm(member, rows, n, x, g.unsafe_offset(2 * n), g.unsafe_offset(3 * n), normal)
                var at = layer * heads * cross_slots * HEAD * PANEL
                var ck = cross_keys.unsafe_ptr().unsafe_offset(at)
                var cv = cross_values.unsafe_ptr().unsafe_offset(at)
                var kept = qk.unsafe_ptr().unsafe_offset(layer * heads * rows * n_ctx if align else 0)
                var cw = w.unsafe_offset(4 * n * depth)
                var cb = b.unsafe_offset(4 * n)
                cross_attention[align=align](
                    member, rows, new, n, layers, n_ctx, table, cross_slots, normal, cw, cb, ck, cv, wide, mixed, kept
                )
                project[False, True](
                    member, rows, n, n, mixed, w.unsafe_offset(5 * n * depth), b.unsafe_offset(5 * n), x
                )
                keep[align](member, 3 * layer + 2, rows * n, x, states.unsafe_ptr())

                # MLP.
                layer_norm(member, rows, n, x, g.unsafe_offset(4 * n), g.unsafe_offset(5 * n), normal)
                project[True, False](
                    member, rows, n, 4 * n, normal, w.unsafe_offset(6 * n * depth), b.unsafe_offset(6 * n), wide
                )
                project[False, True](
                    member, rows, 4 * n, n, wide, w.unsafe_offset(10 * n * depth), b.unsafe_offset(10 * n), x
                )
                keep[align](member, 3 * layer + 3, rows * n, x, states.unsafe_ptr())

            var last = last_norm.unsafe_ptr()
            layer_norm(member, rows, n, x, last, last.unsafe_offset(n), y.unsafe_ptr())

        run_team(run, layers * PHASES_PER_LAYER + 3)


@always_inline
def layer_norm(
    mut member: Member,
    rows: Int,
    n: Int,
    x: Pointer[Float32, ...],
    w: Pointer[Float32, ...],
    b: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
) raises:
    """Layer norm of every row of `x` `(rows, n)` to `y`; scale `w` and shift `b`: `(n,)`."""

    def work(task: Int) raises {imm}:
        normalise(task * ROWS_PER_TASK, min((task + 1) * ROWS_PER_TASK, rows), n, x, w, b, y)

    member.share(work, ceildiv(rows, ROWS_PER_TASK))


@always_inline
def keep[
    align: Bool
](
    mut member: Member, at: Int, count: Int, x: Pointer[Float32, ...], states: Pointer[mut=True, Float32, ...]
) raises:
    """Copies `count` values of the residual stream `x` to place `at` of `states`; nothing without `align`."""
    comptime if align:

        def work(task: Int) raises {imm}:
            for i in range(count):
                states.unsafe_offset(at * count + i).unsafe_store(x.unsafe_offset(i).unsafe_load())

        member.share(work, 1)


@always_inline
def project[
    gelu: Bool, residual: Bool, weight: DType
](
    mut member: Member,
    rows: Int,
    depth: Int,
    n: Int,
    x: Pointer[Float32, ...],
    w: Pointer[Scalar[weight], ...],
    b: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
) raises:
    """Writes `x` `(rows, depth)` `@ w + b` to `y` `(rows, n)`, or adds it with `residual`."""

    def work(panel: Int) raises {imm}:
        write_panel[gelu, residual](0, rows, panel, depth, n, depth, x, w, b, y.as_unsafe_any_origin(), y)

    member.share(work, n // PANEL)


@always_inline
def self_attention[
    weight: DType
](
    mut member: Member,
    rows: Int,
    new: Int,
    n: Int,
    table: Pointer[Int64, ...],
    slots: Int,
    x: Pointer[Float32, ...],
    w: Pointer[Scalar[weight], ...],
    b: Pointer[Float32, ...],
    keys: Pointer[mut=True, Float32, ...],
    values: Pointer[mut=True, Float32, ...],
    qkv: Pointer[mut=True, Float32, ...],
    mixed: Pointer[mut=True, Float32, ...],
) raises:
    """Projects to queries, keys and values, appends to the caches and attends; one task per head.

    `x`, `mixed`: `(rows, n)`. `table`: `sequences` of `Decoder`. `qkv`: scratch `(rows, 3 * n)`. `keys`, `values`: one
    layer's caches. A row sees the positions up to its own, which is the causal mask.
    """
    var heads = n // HEAD
    var size = slots * HEAD * PANEL

    def work(head: Int) raises {imm}:
        comptime for part in range(3):
            comptime for panel in range(HEAD_PANELS):
                var p = (part * n + head * HEAD) // PANEL + panel
                write_panel[False, False](0, rows, p, n, 3 * n, n, x, w, b, qkv.as_unsafe_any_origin(), qkv)
        for row in range(rows):
            var sequence = table.unsafe_offset(row // new * SEQUENCE)
            var cache = (Int(sequence.unsafe_load()) * heads + head) * size
            var t = Int(sequence.unsafe_offset(1).unsafe_load()) + row % new  # position in the cache
            var k = keys.unsafe_offset(cache + ((t // PANEL) * HEAD) * PANEL + t % PANEL)
            var v = values.unsafe_offset(cache + t * PANEL)
            var source = qkv.unsafe_offset(row * 3 * n + head * HEAD)
            for d in range(HEAD):
                k.unsafe_offset(d * PANEL).unsafe_store(source.unsafe_offset(n + d).unsafe_load())
                v.unsafe_offset((d // PANEL) * slots * PANEL * PANEL + d % PANEL).unsafe_store(
                    source.unsafe_offset(2 * n + d).unsafe_load()
                )
        var scratch = List[Float32](unsafe_uninit_length=ROWS * slots * PANEL)
        var own = List[Int](unsafe_uninit_length=2 * rows)
        var first = 0
        while first < rows:
            var last = end_of_window(first, rows, new, table)
            var leader = table.unsafe_offset(first // new * SEQUENCE)
            var place = Int(leader.unsafe_load())
            for row in range(first, last):
                var sequence = table.unsafe_offset(row // new * SEQUENCE)
                own[2 * row] = (Int(sequence.unsafe_load()) - place) * heads * size
                own[2 * row + 1] = Int(sequence.unsafe_offset(1).unsafe_load()) + row % new + 1
            var cache = (place * heads + head) * size
            var shared = Int(leader.unsafe_offset(3).unsafe_load())
            attend[False](
                first, last, shared, slots, own.unsafe_ptr(), qkv.unsafe_offset(head * HEAD), 3 * n,
                keys.unsafe_offset(cache), values.unsafe_offset(cache), scratch.unsafe_ptr(),
                mixed.unsafe_offset(head * HEAD), n, scratch.unsafe_ptr().as_unsafe_any_origin(),
            )
            first = last

    member.share(work, heads)


@always_inline
def cross_attention[
    weight: DType, cross: DType, align: Bool
](
    mut member: Member,
    rows: Int,
    new: Int,
    n: Int,
    layers: Int,
    n_ctx: Int,
    table: Pointer[Int64, ...],
    slots: Int,
    x: Pointer[Float32, ...],
    w: Pointer[Scalar[weight], ...],
    b: Pointer[Float32, ...],
    keys: Pointer[Scalar[cross], ...],
    values: Pointer[Scalar[cross], ...],
    queries: Pointer[mut=True, Float32, ...],
    mixed: Pointer[mut=True, Float32, ...],
    qk: Pointer[mut=True, Float32, ...],
) raises:
    """Projects queries and attends to the audio; one task per head. The rows of a window share keys and values.

    `x`, `mixed`: `(rows, n)`. `table`: `sequences` of `Decoder`. `keys`, `values`: one layer's, of the first window.
    `queries`: scratch `(rows, n)`. `qk`: with `align` `(heads, rows, n_ctx)`.
    """
    var size = slots * HEAD * PANEL
    var window_size = layers * (n // HEAD) * size

    def work(head: Int) raises {imm}:
        comptime for panel in range(HEAD_PANELS):
            var p = head * HEAD // PANEL + panel
            write_panel[False, False](0, rows, p, n, n, n, x, w, b, queries.as_unsafe_any_origin(), queries)
        var scratch = List[Float32](unsafe_uninit_length=ROWS * slots * PANEL)
        var q = queries.unsafe_offset(head * HEAD)
        var out = mixed.unsafe_offset(head * HEAD)
        var kept = qk.unsafe_offset(head * rows * n_ctx if align else 0)
        var own = List[Int](length=2 * rows, fill=0)  # all panels are shared
        for row in range(rows):
            own[2 * row + 1] = n_ctx
        var first = 0
        while first < rows:
            var last = end_of_window(first, rows, new, table)
            var window = Int(table.unsafe_offset(first // new * SEQUENCE + 2).unsafe_load())
            var k = keys.unsafe_offset(window * window_size + head * size)
            var v = values.unsafe_offset(window * window_size + head * size)
            attend[align](
                first, last, slots, slots, own.unsafe_ptr(), q, n, k, v, scratch.unsafe_ptr(), out, n, kept
            )
            first = last

    member.share(work, n // HEAD)


@always_inline
def end_of_window(first: Int, rows: Int, new: Int, table: Pointer[Int64, ...]) -> Int:
    """Returns the row after those from `first` on whose window is the same."""
    var window = table.unsafe_offset(first // new * SEQUENCE + 2).unsafe_load()
    var last = first + new
    while last < rows and table.unsafe_offset(last // new * SEQUENCE + 2).unsafe_load() == window:
        last += new
    return last


@extensibility.register("whisper_logits")
struct Logits:
    """Logits of selected rows, `x @ embedding`.

    `x`: `(rows, n_state)`. `selected`: `(m,)`, row numbers. `embedding`: as in `Decoder`. `no_bias`: zeros
    `(n_vocab,)`. `y`: `(m, n_vocab)`.
    """

    @staticmethod
    def execute[
        target: StaticString, weight: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        selected: InputTensor[dtype=DType.int64, rank=1, ...],
        embedding: InputTensor[dtype=weight, rank=3, ...],
        no_bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var m, n_vocab, n = y.dim_size(0), y.dim_size(1), x.dim_size(1)
        var rows_list = List[Float32](unsafe_uninit_length=m * n)  # the selected rows, gathered
        var rows = rows_list.unsafe_ptr()
        for i in range(m):
            var source = x.unsafe_ptr().unsafe_offset(Int(selected.unsafe_ptr().unsafe_offset(i).unsafe_load()) * n)
            for c in range(n):
                rows.unsafe_offset(i * n + c).unsafe_store(source.unsafe_offset(c).unsafe_load())
        var w = embedding.unsafe_ptr()
        var b = no_bias.unsafe_ptr()
        var yp = y.unsafe_ptr()
        var panels = embedding.dim_size(0)

        def work(task: Int) raises {imm}:
            var first = task * VOCABULARY_PANELS_PER_TASK
            for p in range(first, min(first + VOCABULARY_PANELS_PER_TASK, panels)):
                write_panel[False, False](0, m, p, n, n_vocab, n, rows, w, b, yp.as_unsafe_any_origin(), yp)

        sync_parallelize(work, ceildiv(panels, VOCABULARY_PANELS_PER_TASK))
