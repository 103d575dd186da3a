"""Batched gets: Thrift's `getRowsWithColumns` asks for the same columns of all its rows, the seam asks for pairs of row and column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.table import Key

# How many cells that nobody wants a request may ask for. Finding that a cell is not there costs a region server some microseconds, a request of
# its own a millisecond.
_NEEDLESS = 256


def plan(keys: Sequence[Key]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Requests, as rows and columns, that together cover the keys: each row is in one, with all of the columns that are asked of it.

    Rows with the same columns share a request, which is how a flush asks (many rows, the same window and shard). Rows with others join as long as
    what is asked for needlessly stays small.
    """
    wanted: dict[bytes, set[bytes]] = {}
    for row, column in keys:
        wanted.setdefault(row, set()).add(column)
    alike: dict[tuple[bytes, ...], list[bytes]] = {}
    for row, columns in wanted.items():
        alike.setdefault(tuple(sorted(columns)), []).append(row)
    rows: list[bytes] = []
    union: set[bytes] = set()
    asked = 0
    for these, more in sorted(alike.items()):  # those with the same first columns are neighbours
        joined = union.union(these)
        pairs = asked + len(these) * len(more)
        if rows and len(joined) * (len(rows) + len(more)) - pairs > _NEEDLESS:
            yield sorted(rows), sorted(union)
            rows, joined, pairs = [], set(these), len(these) * len(more)
        rows += more
        union, asked = joined, pairs
    if rows:
        yield sorted(rows), sorted(union)
