"""Serializable isolation as Redshift has it: table by table.

PostgreSQL, at its own level `serializable`, finds the cycles between rows. Redshift knows tables alone: a transaction that has read a table, and writes it
after another one's write to it was committed since the first one's snapshot, is refused, whatever rows it was about. That is added here.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field

from penstock.stack.redshift.statement import Statement


@dataclass
class Transaction:
    """What a transaction has done. snapshot: the number of the last commit that it can see; None while it has looked at nothing."""

    number: int
    snapshot: int | None = None
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


class Conflicts:
    """The commits of all databases of a relay. Used by several threads."""

    def __init__(self) -> None:
        self._commits = 0
        self._last: dict[tuple[str, str], tuple[int, int]] = {}  # by database and table: the commit, and whose it was
        self._numbers = itertools.count(1_000)
        self._changing = threading.Lock()

    def begin(self) -> Transaction:
        """A new transaction."""
        return Transaction(next(self._numbers))

    def look(self, transaction: Transaction, statement: Statement, database: str) -> int | None:
        """A statement begins, with its lock taken. The number of the transaction that it conflicts with; None if there is none."""
        if not statement.looks:
            return None
        with self._changing:
            if transaction.snapshot is None:
                transaction.snapshot = self._commits
            transaction.read |= statement.reads
            if not statement.writes:
                return None
            transaction.written.add(statement.name)
            commit, other = self._last.get((database, statement.name), (0, 0))
            return other if commit > transaction.snapshot and statement.name in transaction.read else None

    def commit(self, transaction: Transaction, database: str) -> None:
        """A transaction is about to commit: before PostgreSQL does, for the next one may see it at once."""
        if transaction.written:
            with self._changing:
                self._commits += 1
                for name in transaction.written:
                    self._last[database, name] = (self._commits, transaction.number)
