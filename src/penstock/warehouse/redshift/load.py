"""The transaction that loads an hour. Its first statement takes the lock, so that its snapshot has all that other loaders have committed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Literal

from penstock.errors import ConfigurationError, LoadError, NotFoundError, PenstockError
from penstock.warehouse import Dataset, Manifest
from penstock.warehouse.datasets import check_covers
from penstock.warehouse.redshift import ledger
from penstock.warehouse.redshift.connection import Connection
from penstock.warehouse.redshift.ddl import copy, create_stage, quoted, table
from penstock.warehouse.redshift.files import Group, Manifests
from penstock.warehouse.redshift.problems import LostError, ServerError
from penstock.warehouse.redshift.settings import Settings

# In order. Files that have other columns than the table take "stage" before "copy", and "insert" after it.
STEPS = ("files", "lock", "delete", "manifest", "copy", "clean", "check", "ledger", "commit", "committed")


@dataclasses.dataclass
class Load:
    """One hour's load. `run` may be called again after a LostError, and after a ServerError that is a conflict or an outage.

    doubtful: whether a commit was sent whose answer is not known. clear: whether the hour's rows are deleted though the ledger has none of it.
    """

    settings: Settings
    manifests: Manifests
    manifest: Manifest
    groups: tuple[Group, ...]
    now: int
    what: str
    step: Callable[[str], None]
    doubtful: bool = False
    clear: bool = False

    def run(self, connection: Connection) -> Literal["loaded", "unchanged"]:
        """Load the hour, unless the ledger says that it is. Raises LoadError; LostError and ServerError with nothing loaded, or `doubtful`."""
        schema = self.settings.schema
        self.step("lock")
        ledger.lock(connection, schema)
        found = ledger.loaded(connection, schema, self.manifest.dataset, self.manifest.hour)
        if found and found[0].manifest_hash == self.manifest.hash:
            connection.rollback()
            return "loaded" if self.doubtful else "unchanged"
        self.doubtful = False  # who has the lock sees that the commit did not happen
        if found:
            check_covers(self.manifest, found[0])
        dataset = ledger.definition(connection, schema, self.manifest.dataset)
        if dataset is None:
            raise NotFoundError(f"there is no dataset {self.manifest.dataset!r} in {connection.place}", hint="prepare it first")
        if not self._replace(connection, dataset, clear=self.clear or bool(found)):
            connection.rollback()
            self.clear = True
            return self.run(connection)
        self.step("ledger")
        ledger.enter(connection, schema, self.manifest, self.now)
        self.step("commit")
        self.doubtful = True
        try:
            connection.commit()
        except ServerError:
            self.doubtful = False  # the answer is that it is not committed
            raise
        self.step("committed")
        return "loaded"

    def _replace(self, connection: Connection, dataset: Dataset, *, clear: bool) -> bool:
        """Bring the files' rows into the table, in place of the hour's if `clear`.

        False if it is not certain without `clear` that the hour has these rows and no others: some may be there that came past the ledger, or whose row
        in it was removed by hand. Raises LoadError.
        """
        target, within = table(self.settings.schema, dataset.name), f"{quoted(dataset.time)} >= %s AND {quoted(dataset.time)} < %s"
        span = [ledger.timestamp(self.manifest.hour), ledger.timestamp(self.manifest.hour + self.manifest.span)]
        self.step("delete")
        if clear:
            connection.execute(f"DELETE FROM {target} WHERE {within}", span)
        copied = self._copy(connection, dataset)
        self.step("check")
        inside = int(connection.rows(f"SELECT count(*) FROM {target} WHERE {within}", span)[0][0])
        certain = copied == inside == self.manifest.rows
        if clear and not certain:
            raise LoadError(
                f"{self.what}: the manifest has {self.manifest.rows} rows, COPY took {copied}, and {inside} came to lie within the hour by "
                f"{dataset.time!r}; nothing was loaded"
            )
        return certain

    def _copy(self, connection: Connection, dataset: Dataset) -> int:
        """COPY each group into the table, by way of a temporary one if its files have not the table's columns in the table's order. How many rows it counted."""
        schema, rows = self.settings.schema, 0
        target = table(schema, dataset.name)
        columns = tuple(column["label"].decode() for column in connection.described(f"SELECT * FROM {target} LIMIT 0")[0])
        self.step("manifest")
        self.manifests.sweep()
        written: list[str] = []
        try:
            for number, group in enumerate(self.groups):
                written.append(self.manifests.write(self.manifest, group))
                stage = f"penstock_stage_{number}" if group.columns != columns else None
                into, place = (stage, None) if stage else (dataset.name, schema)
                if stage:
                    self.step("stage")
                    connection.execute(create_stage(stage, dataset, group.columns))
                self.step("copy")
                try:
                    connection.execute(copy(into, self.manifests.url(written[-1]), self.settings.iam_role, schema=place))
                except ServerError as problem:
                    raise self._refused(connection, problem) from problem
                rows += int(connection.rows("SELECT pg_last_copy_count()")[0][0])
                if stage:
                    self.step("insert")
                    names = ", ".join(map(quoted, group.columns))
                    connection.execute(f"INSERT INTO {target} ({names}) SELECT {names} FROM {quoted(stage)}")
                    connection.execute(f"DROP TABLE {quoted(stage)}")
            self.step("clean")
        finally:
            with contextlib.suppress(PenstockError):  # if the archive does not answer, the next load sweeps
                self.manifests.remove(written)
        return rows

    def _refused(self, connection: Connection, problem: ServerError) -> Exception:
        """What to tell of a COPY that failed."""
        if problem.conflict or problem.busy or problem.cancelled:
            return problem
        connection.rollback()
        files = [url for group in self.groups for url in group.urls]
        details = load_errors(connection, files)
        if (
            problem.code == "42501"
            or "not authorized to assume" in problem.text.lower()
            or "accessdenied" in problem.text.lower().replace(" ", "")
        ):
            return ConfigurationError(
                f"{self.what}: COPY may not read the archive: {problem.text}",
                hint=f"{self.settings.iam_role} must be attached to the cluster, and may read the bucket (s3:GetObject, s3:ListBucket)",
            )
        return LoadError(f"{self.what}: nothing was loaded: {'; '.join([problem.text, *details])}")


# The first is of clusters and workgroups alike, and shows a user's own rows; the second is of clusters alone.
_DETAILS = (
    "SELECT file_name, line_number, column_name, error_message FROM sys_load_error_detail WHERE session_id = %s ORDER BY start_time DESC LIMIT 20",
    "SELECT filename, line_number, colname, err_reason FROM stl_load_errors WHERE session = %s ORDER BY starttime DESC LIMIT 20",
)


def load_errors(connection: Connection, files: list[str], most: int = 3) -> list[str]:
    """What the system tables say of this session's last load of these files: file, line, column, reason. Nothing where they cannot be read."""
    found: list[str] = []
    try:
        process = connection.process
    except (LostError, ServerError):
        return found
    for select in _DETAILS:
        try:
            rows = connection.rows(select, [process])
        except ServerError:
            rows = []
            with contextlib.suppress(ServerError, LostError):
                connection.rollback()
        except LostError:
            return found
        for row in rows:
            name, line, column, reason = (str(value if value is not None else "").strip() for value in row)
            if any(file == name or file.endswith(f"/{name}") for file in files):
                text = f"{name}, line {line}" + (f", column {column!r}" if column else "") + f": {reason}"
                found += [text] if text not in found else []
        if found:
            return found[:most]
    return found
