"""Outside calls in the simulated world: what becomes of each, and a table that behaves as HBase was seen to.

A call is answered; or it is made and its answer is lost; or it takes effect at any later time, a put row by row; or it never does. It may be
slow, with its effect and its answer at times of their own. A put may be applied in part, a compare-and-set be sent again by the store's own
client, a store be out of reach for a while.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, Callable, Sequence

from penstock.errors import PenstockError, UnavailableError
from penstock.model.units import SECOND
from penstock.rollup.calls import Call
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control, ShardId
from penstock.table import Cell
from penstock.table.memory import MemoryTable

if TYPE_CHECKING:
    from penstock.runner.simulation.world import World

SLOWEST = 90 * SECOND
LONGEST_OUTAGE = 40 * SECOND
Effect = Callable[[], Any]


class Crash(Exception):
    """The component that made the call is no more."""


@dataclasses.dataclass
class Answer:
    """Of a call that was sent: there is none until `ready`."""

    ready: bool = False
    value: Any = None
    problem: PenstockError | None = None


class Outside:
    """Makes the world's outside calls.

    at, fault: in a world without chance, what happens to call number `at`: see `FAULTS`. net: effects that take place at any time, or never.
    names: of the calls made so far, in a world without chance.
    """

    def __init__(self, world: World, table: SimulatedTable, at: int, fault: str) -> None:
        self.world, self.table, self.at, self.fault = world, table, at, fault
        self.net: list[Effect] = []
        self.timed: list[tuple[int, Effect]] = []  # effects and answers of slow calls, by the clock
        self.delayed: list[tuple[int, Effect]] = []  # in a world without chance, by the number of the call that they come before
        self.down: dict[str, int] = {}  # by what is out of reach, until when
        self.calls = 0
        self.names: list[str] = []

    def note(self, fault: str) -> None:
        """A fault took effect."""
        self.world.faults[fault] += 1

    def make(self, call: Call) -> Any:
        """A call that is answered at once, or not at all: one that holds up the component that makes it. Raises Crash."""
        return self.sent(call, slow=False).value

    def send(self, call: Call) -> Answer:
        """A call whose answer may come later. Raises Crash."""
        try:
            return self.sent(call, slow=True)
        except PenstockError as problem:
            return Answer(True, problem=problem)

    def sent(self, call: Call, *, slow: bool) -> Answer:
        """What becomes of a call."""
        number, self.calls = self.calls, self.calls + 1
        world, rng = self.world, self.world.rng
        if not world.random_faults:
            return Answer(True, self.scripted(call, number))
        if world.calm:
            return Answer(True, call.make())
        if self.down.get(place_of(call), 0) > world.clock:
            self.note("store out of reach")
            raise UnavailableError(f"{call.name}: connection refused")
        put = call.name.startswith("table.put")
        fate = rng.random()
        if put and rng.random() < 0.06:
            self.in_part(call)
        elif fate < 0.008:
            self.note("crash before a call")
            raise Crash
        elif fate < 0.016:
            call.make()
            self.note("crash after a call")
            raise Crash
        elif fate < 0.055:
            self.net += self.parts(call)
            self.note("call in limbo")
        elif fate < 0.10:
            call.make()
            self.note("answer lost")
        elif fate < 0.135:
            self.note("call refused")
        elif fate < 0.155 and call.name.startswith("table.compare_and_set"):
            call.make()
            self.note("compare-and-set sent again by the store's client")
            return Answer(True, call.make())
        elif fate < 0.16 and slow:
            return self.slowly(call)
        else:
            return Answer(True, call.make())
        raise UnavailableError(f"{call.name}: no answer")

    def parts(self, call: Call) -> list[Effect]:
        """The effects of a call that need not take place together: the rows of a put; else it is one."""
        if not call.name.startswith("table.put"):
            return [call.make]
        parts: list[Effect] = []
        self.table.apart = parts
        try:
            call.make()
        finally:
            self.table.apart = None
        return parts

    def in_part(self, call: Call) -> None:
        """Some rows of a put are written at once, some later, and some never."""
        rng = self.world.rng
        for effect in self.parts(call):
            fate = rng.random()
            if fate < 0.4:
                effect()
            elif fate < 0.8:
                self.net.append(effect)
        self.note("put in part")

    def slowly(self, call: Call) -> Answer:
        """The parts take effect one by one, and then comes the answer."""
        rng, answer, now = self.world.rng, Answer(), self.world.clock
        until = now + rng.randint(1, SLOWEST)

        def answered(effect: Effect) -> None:
            try:
                answer.value = effect()
            except PenstockError as problem:
                answer.problem = problem

        self.timed += [(rng.randint(now, until), functools.partial(answered, effect)) for effect in self.parts(call)]
        self.timed.append((until, lambda: setattr(answer, "ready", True)))
        self.note("slow call")
        return answer

    def scripted(self, call: Call, number: int) -> Any:
        """The one fault of a world without chance, if this is its call."""
        self.names.append(call.name)
        due, self.delayed = [effect for at, effect in self.delayed if at <= number], [one for one in self.delayed if one[0] > number]
        for effect in due:
            effect()
        kind, _, later = (self.fault if number == self.at else "").partition(" ")
        if kind:
            self.note(f"{kind}: {call.name}")
        if kind == "before":
            raise Crash
        answer = None
        if kind == "delayed":
            self.delayed += [(number + 1 + int(later), effect) for effect in self.parts(call)]
        elif kind == "partial":
            parts = self.parts(call)
            for effect in parts[: math.ceil(len(parts) / 2)]:
                effect()
        elif kind != "refused":
            answer = call.make()
        if kind == "after":
            raise Crash
        if kind:
            raise UnavailableError(f"{call.name}: no answer")
        return answer

    def outage(self) -> None:
        """A table, the archive or the log is out of reach for a while."""
        place = self.world.rng.choice([*self.table.tables(), "archive.write", "archive.add", "log.read"])
        self.down[place] = self.world.clock + self.world.rng.randint(1, LONGEST_OUTAGE)

    def step(self) -> None:
        """What the clock has made due takes place."""
        if self.timed:
            due = [one for one in self.timed if one[0] <= self.world.clock]
            self.timed = [one for one in self.timed if one[0] > self.world.clock]
            for _, effect in sorted(due, key=lambda one: one[0]):
                effect()

    def late(self) -> None:
        """One of the calls in limbo takes effect."""
        self.note("call took effect late")
        hidden = self.table.hidden
        unheard(self.net.pop(self.world.rng.randrange(len(self.net))))
        if self.table.hidden > hidden:
            self.note("late put hidden by a newer one")

    def settle(self) -> None:
        """All that is in limbo, or slow, takes effect."""
        for effect in [*self.net, *(effect for _, effect in self.timed)]:
            unheard(effect)
        self.net, self.timed = [], []


def unheard(effect: Effect) -> None:
    """A call takes effect that nobody waits for any more, nor hears the error of."""
    with contextlib.suppress(PenstockError):
        effect()


def place_of(call: Call) -> str:
    """Where a call goes to: the last word of its name is a table, or what is done with the archive or the log."""
    return call.name.rpartition(" ")[2]


class SimulatedTable(MemoryTable):
    """A table whose puts can be taken apart row by row, as HBase applies them, and whose control cells are watched.

    apart: where the rows of puts go instead of being written. hidden: how many puts of a row met a newer cell.
    """

    def __init__(self, watch: Callable[[ShardId, Control, Control], None]) -> None:
        super().__init__()
        self.watch = watch
        self.apart: list[Effect] | None = None
        self.hidden = 0

    def put(self, table: str, cells: Sequence[Cell], timestamp: int) -> None:
        """See `Table.put`."""
        rows: dict[bytes, list[Cell]] = {}
        for cell in cells:
            rows.setdefault(cell[0], []).append(cell)
        effects = [functools.partial(self.put_row, table, row, timestamp) for row in rows.values()]
        if self.apart is not None:
            self.apart += effects
            return
        for effect in effects:
            effect()

    def put_row(self, table: str, cells: list[Cell], timestamp: int) -> None:
        """HBase's atom."""
        held = self._of(table).rows.get(cells[0][0], {})
        self.hidden += any(column in held and held[column][0] > timestamp for _, column, _ in cells)
        super().put(table, cells, timestamp)

    def compare_and_set(self, table: str, row: bytes, column: bytes, expected: bytes | None, new: bytes) -> bool:
        """See `Table.compare_and_set`."""
        done = super().compare_and_set(table, row, column, expected, new)
        if done and table == CONTROL_TABLE and column == CONTROL_COLUMN and row.startswith(b"shard/") and expected is not None:
            self.watch(ShardId.of_row(row), Control.decode(expected), Control.decode(new))
        return done
