"""A team of threads that goes through many short phases of parallel work together.

Handing a phase's tasks to the runtime's threads costs tens of microseconds, as much as many phases of a decoder's step
take. A team is handed over once: its members take a phase's tasks one by one, and wait for its end by reading a
counter. A member that starts late, or never, holds nobody up: the others take its tasks.
"""

from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level
from std.atomic import Atomic
from std.ffi import external_call
from std.sys import CompilationTarget, llvm_intrinsic

comptime LINE = 8
"""Counters of 8 bytes in a cache line: each has a line to itself, so that members don't slow each other down."""

comptime PAUSES = 1000
"""Looks at a counter, tens of microseconds, before a waiting member lets other threads have its core: on a busy machine
the member it waits for may have none."""


struct Member(Copyable, Movable):
    """One member's place in its team: the phase it has reached."""

    var counters: MutPointer[Int64, MutUntrackedOrigin]
    """`(phases, 2, LINE)`: the tasks of each phase that were taken, and those that are done."""

    var phase: Int

    def __init__(out self, counters: MutPointer[Int64, MutUntrackedOrigin]):
        self.counters = counters
        self.phase = 0

    @always_inline
    def share[Work: def(Int) raises -> None](mut self, work: Work, tasks: Int) raises:
        """Does, with the other members, `work` of 0 to `tasks`, and returns when all of it is done.

        All members call this for the same phases in the same order.
        """
        var taken = self.counters.unsafe_offset(self.phase * 2 * LINE)
        var done = taken.unsafe_offset(LINE)
        var task = Int(Atomic.fetch_add(taken, 1))
        while task < tasks:
            work(task)
            _ = Atomic.fetch_add(done, 1)
            task = Int(Atomic.fetch_add(taken, 1))
        var looks = 0
        while Int(Atomic.load(done)) < tasks:
            looks += 1
            if looks < PAUSES:
                pause()
            else:
                _ = external_call["sched_yield", Int32]()
        self.phase += 1


@always_inline
def pause():
    """Tells the processor that this is a waiting loop."""
    comptime if CompilationTarget.is_x86():
        llvm_intrinsic["llvm.x86.sse2.pause", NoneType]()


@always_inline
def run_team[Work: def(mut Member) raises -> None](work: Work, phases: Int) raises:
    """Runs `work` in every thread of the runtime at once; it goes through up to `phases` phases."""
    var list = List[Int64](length=phases * 2 * LINE, fill=0)
    var counters = list.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()

    def join(i: Int) raises {imm}:
        var member = Member(counters)
        work(member)

    sync_parallelize(join, parallelism_level(None))
    _ = list^  # not freed before
