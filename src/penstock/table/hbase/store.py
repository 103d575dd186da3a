"""The table in HBase: what each call of the seam asks of the Thrift server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from penstock.errors import ConfigurationError
from penstock.kernels import RowsReply, unpack_cells
from penstock.table import Cell, Key
from penstock.table.hbase.appetite import Appetite
from penstock.table.hbase.connection import Connection
from penstock.table.hbase.create import Creator
from penstock.table.hbase.faults import FAMILY, QUALIFIER, text_of
from penstock.table.hbase.interfaces import thrift1
from penstock.table.hbase.lookups import plan
from penstock.table.hbase.pool import Pool
from penstock.table.hbase.settings import HBaseSettings
from penstock.table.hbase.wire import put_messages
from penstock.table.memory import MAX_KEY, check_key, check_table_name, no_such_table

Row = tuple[bytes, dict[bytes, bytes]]  # its key, and its values by column

_PUT = "mutateRowsTs"
_PART = 256  # cells: a scan gets a row that has more in parts, so that their number does not depend on how wide rows are


class HBaseTable:
    """A `Table` in HBase, through its Thrift server, for several threads. Connects when it is first used.

    settings: the table `hbase` of a deployment; see `HBaseSettings`. Every request ends within its timeout, by an answer or by UnavailableError; a
    call makes several when there is much to send or to get. Cells older than their table's ttl are dropped by HBase, by its own clock.
    An instance must not be used on both sides of a fork(). Raises ConfigurationError for settings that cannot work.
    """

    remote = True  # calls wait for a network: readers make several at once

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = HBaseSettings.read(settings)
        self._pool = Pool(
            self.settings.host, self.settings.port, thrift1.Hbase, size=self.settings.connections, timeout=self.settings.timeout
        )
        self._creator = Creator(self._pool, self.settings)
        self._appetites: dict[str, Appetite] = {}

    def create(self, table: str, *, ttl: int | None = None, hashed: bool = False) -> None:
        """See `Table.create`. ttl is rounded up to seconds. Several may create a table at once. Takes some seconds for a new one.

        With a thrift2_port, a table whose rows are hashed is split into the deployment's `regions`. Without, it begins as one region, and its ttl
        cannot be changed later: ConfigurationError if that would lose cells too early, a warning if they only stay longer.
        """
        self._creator.create(self._name(check_table_name(table)), table, ttl=ttl, hashed=hashed)

    def tables(self) -> list[str]:
        """See `Table.tables`. Those of the deployment's prefix."""
        prefix = self.settings.prefix.encode()
        names = self._pool.call(lambda connection: connection.client.getTableNames())
        return sorted(name for full in names if full.startswith(prefix) and (name := _usable(full[len(prefix) :])) is not None)

    def put(self, table: str, cells: Sequence[Cell], timestamp: int) -> None:
        """See `Table.put`. The cells of a row, up to some thousand, are written together."""
        name = self._existing(table)
        for row, column, _ in cells:
            check_key(row, column)
            if not row:
                raise ConfigurationError("HBase has no row with an empty key", hint="give the row a key of at least one byte")
        if not cells:
            self._look(name, table)
        for message in put_messages(name, FAMILY, cells, timestamp):

            def send(connection: Connection, message: bytes = message) -> None:
                try:
                    connection.request(_PUT, message)
                except thrift1.IOError as problem:
                    if "RetriesExhausted" in text_of(problem):  # which does not say why: asking for the table does, if it is not there
                        connection.client.isTableEnabled(name)
                    raise

            self._pool.call(send, table=table)

    def get(self, table: str, keys: Sequence[Key]) -> list[bytes | None]:
        """See `Table.get`. Each row is as of one moment."""
        name, appetite = self._existing(table), self._appetite("cells", table)
        values: dict[Key, bytes] = {}
        possible = [key for key in keys if 0 < len(key[0]) <= MAX_KEY]
        if not possible:
            self._look(name, table)
        for rows, columns in plan(possible):
            asked = [FAMILY + b":" + column for column in columns]
            at = 0
            while at < len(rows):
                some = rows[at : at + max(1, appetite.next // len(columns))]
                at += len(some)
                answer = self._pool.call(lambda connection: connection.client.getRowsWithColumns(name, some, asked, {}), table=table)  # noqa: B023
                size = 0
                for result in answer:
                    for column, cell in result.columns.items():
                        values[result.row, column[QUALIFIER:]] = cell.value
                        size += len(result.row) + len(column) + len(cell.value)
                appetite.took(len(some) * len(columns), size)
        return [values.get(key) for key in keys]

    def rows(self, table: str, rows: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """See `Table.rows`. Each row is as of one moment."""
        found = self._packed(table, rows)
        return [unpack_cells(found[row]) if row in found else {} for row in rows]

    def _packed(self, table: str, rows: Sequence[bytes]) -> dict[bytes, bytes]:
        """The rows that are there, packed."""
        name, appetite = self._existing(table), self._appetite("rows", table)
        found: dict[bytes, bytes] = {}
        possible = sorted({row for row in rows if 0 < len(row) <= MAX_KEY})
        if not possible:
            self._look(name, table)
        at = 0
        while at < len(possible):
            some = possible[at : at + appetite.next]
            at += len(some)
            reply = self._pool.call(lambda connection: _reply(connection, _get_rows(name, some)), table=table)  # noqa: B023
            appetite.took(len(some), reply.size)
            found.update(reply.rows)
        return found

    def packed_rows(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes]]:
        """See `Table.packed_rows`. Requests follow each other on one connection without waiting for answers, where each table's rows fit one."""
        found = self._at_once(asked) or [self._packed(table, rows) for table, rows in asked]
        return [[values.get(row, b"") for row in rows] for (_, rows), values in zip(asked, found)]

    def _at_once(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[dict[bytes, bytes]] | None:
        """The rows of several tables that are there, in one exchange; None where they do not fit it, or one of its requests was refused."""
        keys = [sorted({row for row in rows if 0 < len(row) <= MAX_KEY}) for _, rows in asked]
        appetites = [self._appetite("rows", table) for table, _ in asked]
        if len(asked) < 2 or not all(0 < len(some) <= appetite.next for some, appetite in zip(keys, appetites)):
            return None
        calls = [_get_rows(self._existing(table), some) for (table, _), some in zip(asked, keys)]
        replies = self._pool.call(lambda connection: connection.rows(calls))
        if replies is None:
            return None
        for some, appetite, reply in zip(keys, appetites, replies):
            appetite.took(len(some), reply.size)
        return [dict(reply.rows) for reply in replies]

    def scan(self, table: str, start: bytes = b"", stop: bytes | None = None) -> Iterator[Row]:
        """See `Table.scan`. Each row is as of one moment. Nothing is held on the server between pages.

        A scanner lives on the server only while a page is fetched, and the next page begins after the last row: a server that restarts, or a reader
        that takes its time, loses and repeats nothing, and one that stops reading leaves nothing behind. Scanner numbers begin anew with a
        server, so that one kept over a restart could give the rows of somebody else's scan.
        """
        name = self._existing(table)
        if stop is not None and stop <= start:
            self._look(name, table)
            return iter(())
        appetite = Appetite()
        first = self._page(name, table, start, stop, appetite)  # at once, so that a table that is not there is an error of the call
        return self._pages(name, table, first, stop, appetite)

    def compare_and_set(self, table: str, row: bytes, column: bytes, expected: bytes | None, new: bytes) -> bool:
        """See `Table.compare_and_set`. Sent once: after UnavailableError the cell has to be read to know what holds, and may still change.

        HBase does not tell an empty value from no cell, so that a new value must not be empty: ConfigurationError.
        """
        name = self._existing(table)
        check_key(row, column)
        if not row or not new:
            raise ConfigurationError(
                "HBase compares neither cells of an empty row nor empty values", hint="set a value of at least one byte"
            )
        if expected == b"":
            self._look(name, table)
            return False
        cell = FAMILY + b":" + column
        return bool(
            self._pool.call(
                lambda connection: connection.client.checkAndPut(name, row, cell, expected, thrift1.Mutation(column=cell, value=new), {}),
                table=table,
                repeat=False,
            )
        )

    def expire(self, now: int) -> int:
        """Nothing to do, 0: HBase hides a cell once it is older than its table's ttl, and drops it when it compacts."""
        return 0

    def close(self) -> None:
        """See `Table.close`."""
        self._creator.close()
        self._pool.close()

    def _name(self, table: str) -> bytes:
        return (self.settings.prefix + table).encode()

    def _existing(self, table: str) -> bytes:
        """A table's name in HBase. One that `create` would refuse cannot be there."""
        try:
            return self._name(check_table_name(table))
        except ConfigurationError:
            raise no_such_table(table) from None

    def _look(self, name: bytes, table: str) -> None:
        """Raise NotFoundError for a table that is not there, where nothing else would ask the server."""
        self._pool.call(lambda connection: connection.client.isTableEnabled(name), table=table)

    def _appetite(self, kind: str, table: str) -> Appetite:
        return self._appetites.setdefault(f"{kind} {table}", Appetite())

    def _page(self, name: bytes, table: str, start: bytes, stop: bytes | None, appetite: Appetite) -> tuple[list[Row], bytes | None]:
        """Some whole rows from `start` on, and where to go on; None at the end."""
        parts = appetite.next

        def fetch(connection: Connection) -> tuple[list[Row], int, bool]:
            scan = thrift1.TScan(startRow=start, stopRow=stop, caching=parts, batchSize=_PART)
            scanner = connection.client.scannerOpenWithScan(name, scan, {})
            try:
                reply = _reply(connection, _get_list(scanner, parts))
                fetched, size = _unpacked(reply), reply.size
                more = len(fetched) == parts
                while more and len(fetched[-1][1]) == _PART:  # the last row may go on
                    further = _reply(connection, _get_list(scanner, 1))
                    fetched, size = fetched + _unpacked(further), size + further.size
                    more = bool(further.rows)
            except (thrift1.IOError, thrift1.IllegalArgument):
                connection.client.scannerClose(scanner)
                raise
            connection.client.scannerClose(scanner)
            return fetched, size, more

        fetched, size, more = self._pool.call(fetch, table=table)
        appetite.took(max(parts, len(fetched)), size)
        rows: dict[bytes, dict[bytes, bytes]] = {}
        for row, cells in fetched:
            rows.setdefault(row, {}).update(cells)
        return list(rows.items()), fetched[-1][0] + b"\x00" if more else None

    def _pages(
        self, name: bytes, table: str, page: tuple[list[Row], bytes | None], stop: bytes | None, appetite: Appetite
    ) -> Iterator[Row]:
        rows, follow = page
        yield from rows
        while follow is not None:
            rows, follow = self._page(name, table, follow, stop, appetite)
            yield from rows


def _get_rows(name: bytes, rows: list[bytes]) -> tuple[str, dict[str, Any]]:
    """The call for whole rows."""
    return "getRows", {"tableName": name, "rows": rows, "attributes": {}}


def _get_list(scanner: int, count: int) -> tuple[str, dict[str, Any]]:
    """The call for a scanner's next rows."""
    return "scannerGetList", {"id": scanner, "nbRows": count}


def _reply(connection: Connection, call: tuple[str, dict[str, Any]]) -> RowsReply:
    """The answer to one call that gives rows. Raises what it declares."""
    replies = connection.rows([call])
    assert replies is not None  # None is of several
    return replies[0]


def _unpacked(reply: RowsReply) -> list[Row]:
    return [(row, unpack_cells(cells)) for row, cells in reply.rows]


def _usable(name: bytes) -> str | None:
    """A table's name, unless it is none that `create` could have given."""
    try:
        return check_table_name(name.decode())
    except (ConfigurationError, UnicodeDecodeError):
        return None
