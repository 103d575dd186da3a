"""A COPY carried out: objects of S3 into a table, within the transaction of the client."""

from __future__ import annotations

import contextlib
import io
import itertools
import select
from typing import IO, Any, Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from penstock.stack.redshift import textfiles
from penstock.stack.redshift.backend import Backend, Refused, literal, quoted
from penstock.stack.redshift.columns import Column, LoadProblem, check_schema, fitted, refused
from penstock.stack.redshift.copying import Copy
from penstock.stack.redshift.objects import Object, Objects
from penstock.stack.redshift.problems import Problem, load_failed, scan_failed
from penstock.stack.redshift.wire import message, text

_ROWS = 65_536  # of a Parquet file at a time

COLUMNS = """
SELECT a.attname, b.typ, NOT (a.attnotnull OR t.typnotnull), coalesce(b.mod, -1)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid,
LATERAL (SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype::regtype::text ELSE a.atttypid::regtype::text END AS typ,
                CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END AS mod) b
WHERE a.attrelid = {table}::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


class Loading:
    """One COPY. said: takes each load error, whatever becomes of the transaction. stopped: whether the client has given up."""

    def __init__(
        self, backend: Backend, objects: Objects, copy: Copy, query: int, said: Callable[[LoadProblem], None], stopped: Callable[[], bool]
    ) -> None:
        self.backend, self.objects, self.copy, self.query = backend, objects, copy, query
        self.said, self.stopped = said, stopped
        self.skipped = 0  # rows that could not be loaded

    def run(self) -> int:
        """Load all objects. How many rows they had. Raises Problem, and Refused for what PostgreSQL says."""
        columns = self._columns()
        sources = self.objects.of(self.copy, self.query)
        if not self.copy.columnar:
            return self._texts(columns, sources)
        try:
            return self._parquet(columns, sources)
        except LoadProblem as problem:
            self.said(problem)
            raise refused(problem, self.query) from None

    def _texts(self, columns: Sequence[Column], sources: Sequence[Object]) -> int:
        """Files of text: a row that is wrong is left out, until there are too many."""
        rows = 0
        with self._stream(columns) as send:
            for source in sources:
                file = self.objects.open(source, self.query)
                if file is None:
                    continue
                with file:
                    for some in _some(textfiles.rows(self.copy, columns, source, file)):
                        self._check_stopped()
                        rows += self._send_rows(some, send)
        return rows

    def _send_rows(self, some: Sequence[list[str | None] | LoadProblem], send: Callable[[bytes], None]) -> int:
        text = io.StringIO()
        rows = 0
        for one in some:
            if isinstance(one, LoadProblem):
                self.said(one)
                self.skipped += 1
                if self.skipped >= max(1, self.copy.max_errors):
                    raise load_failed(self.copy.name)
            else:
                text.write(",".join("" if value is None else '"' + value.replace('"', '""') + '"' for value in one) + "\n")
                rows += 1
        send(text.getvalue().encode())
        return rows

    def _check_stopped(self) -> None:
        if self.stopped():
            raise Problem("Query cancelled on user's request", code="57014")

    def _columns(self) -> list[Column]:
        rows = self.backend.query(COLUMNS.format(table=literal(self.copy.table)))
        found = {str(name): _column(str(name), str(kind), nullable == "t", int(mod or -1)) for name, kind, nullable, mod in rows}
        for name in self.copy.columns:
            if name not in found:
                raise Problem(f'column "{name}" of relation "{self.copy.name}" does not exist', code="42703")
        return [found[name] for name in self.copy.columns] if self.copy.columns else list(found.values())

    def _parquet(self, columns: Sequence[Column], sources: Sequence[Object]) -> int:
        rows = 0
        with self._stream(columns) as send:
            for source in sources:
                file = self.objects.open(source, self.query)
                if file is None:
                    continue
                with file:
                    for batch in self._batches(columns, source, file):
                        self._check_stopped()
                        send(_csv(batch))
                        rows += batch.num_rows
        return rows

    def _batches(self, columns: Sequence[Column], source: Object, file: IO[bytes]) -> Iterator[pa.RecordBatch]:
        try:
            opened = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as problem:
            raise _unreadable(source, problem, self.query) from None
        check_schema(columns, opened.schema_arrow, source, self.query, fill="fillrecord" in self.copy.options)
        before = 0
        batches = opened.iter_batches(_ROWS)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as problem:
                raise _unreadable(source, problem, self.query) from None
            if batch is None:
                return
            yield fitted(columns, batch, source, before)
            before += batch.num_rows

    @contextlib.contextmanager
    def _stream(self, columns: Sequence[Column]) -> Iterator[Callable[[bytes], None]]:
        """COPY FROM STDIN, open for CSV; what comes after it is answered for."""
        backend, names = self.backend, quoted([column.name for column in columns])
        backend.send(message(b"Q", text(f"COPY {self.copy.table} ({names}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')")))
        kind, body = backend.answer()
        if kind != b"G":
            self._end(body if kind == b"E" else None)

        def send(data: bytes) -> None:
            if select.select([backend.socket], [], [], 0)[0]:  # it can only have said that something is wrong
                raise _Failed
            backend.send(message(b"d", data))

        try:
            yield send
        except _Failed:
            pass
        except BaseException:
            backend.send(message(b"f", text("the files cannot be read")))
            with contextlib.suppress(Refused):
                self._end(None)
            raise
        else:
            backend.send(message(b"c"))
            self._end(None)
            return
        backend.send(message(b"f", text("after an error")))
        self._end(None)

    def _end(self, problem: bytes | None) -> None:
        """Read until PostgreSQL is ready. Raises Refused for its first error."""
        while True:
            kind, body = self.backend.message()
            if kind == b"E":
                problem = problem or body
            elif kind == b"Z":
                self.backend.status = body
                if problem is not None:
                    raise Refused(problem)
                return


class _Failed(Exception):
    """PostgreSQL has refused what was sent so far."""


def _csv(batch: pa.RecordBatch) -> bytes:
    data = io.BytesIO()
    pcsv.write_csv(batch, data, pcsv.WriteOptions(include_header=False, batch_size=16_384))
    return data.getvalue()


def _some(rows: Iterator[Any]) -> Iterator[list[Any]]:
    """Several at a time."""
    while some := list(itertools.islice(rows, 1_000)):
        yield some


def _column(name: str, kind: str, nullable: bool, mod: int) -> Column:
    if kind == "numeric":
        return Column(name, kind, nullable, precision=(mod - 4) >> 16 if mod > 0 else 38, scale=(mod - 4) & 0x7FF if mod > 0 else 0)
    return Column(name, kind, nullable, length=mod - 4 if kind.startswith("character") and mod > 0 else 0)


def _unreadable(source: Object, problem: Any, query: int) -> Problem:
    return scan_failed(f"File '{source.url}' has an invalid version number or is no Parquet file: {problem}", query)
