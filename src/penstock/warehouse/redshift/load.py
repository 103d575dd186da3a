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

STEPS = ("files", "lock", "manifest", "stage", "copy", "clean", "check", "delete", "insert", "ledger", "commit", "committed")  # in order


@dataclasses.dataclass
class Load:
    """One hour's load. `run` may be called again after a LostError, and after a ServerError that is a conflict or an outage.

    doubtful: whether a commit was sent whose answer is not known.
    """

    settings: Settings
    manifests: Manifests
    manifest: Manifest
    groups: tuple[Group, ...]
    now: int
    what: str
    step: Callable[[str], None]
    doubtful: bool = False

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
        stages = self._stage(connection, dataset)
        self._check(connection, dataset, stages)
        self._replace(connection, dataset, stages)
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

    def _stage(self, connection: Connection, dataset: Dataset) -> list[str]:
        """COPY each group into a temporary table of its own; their names."""
        stages = [f"penstock_stage_{number}" for number in range(len(self.groups))]
        self.step("manifest")
        self.manifests.sweep()
        written: list[str] = []
        try:
            for stage, group in zip(stages, self.groups):
                written.append(self.manifests.write(self.manifest, group))
                self.step("stage")
                connection.execute(create_stage(stage, dataset, group.columns))
                self.step("copy")
                try:
                    connection.execute(copy(stage, self.manifests.url(written[-1]), self.settings.iam_role))
                except ServerError as problem:
                    raise self._refused(connection, problem) from problem
            self.step("clean")
        finally:
            with contextlib.suppress(PenstockError):  # if the archive does not answer, the next load sweeps
                self.manifests.remove(written)
        return stages

    def _check(self, connection: Connection, dataset: Dataset, stages: list[str]) -> None:
        """See that what came is what the files hold, and belongs to the hour."""
        self.step("check")
        for stage, group in zip(stages, self.groups):
            counts = f"SELECT count(*), sum(CASE WHEN {_within(dataset)} THEN 1 ELSE 0 END) FROM {quoted(stage)}"
            (row,) = connection.rows(counts, self._span())
            rows, inside = int(row[0]), int(row[1] or 0)
            if rows != group.rows:
                raise LoadError(f"{self.what}: the files gave {rows} rows and the manifest has {group.rows}; nothing was loaded")
            if inside != rows:
                raise LoadError(
                    f"{self.what}: {rows - inside} of {rows} rows lie outside the hour by {dataset.time!r}; nothing was loaded",
                    hint="they would not be replaced when the hour is loaded again; the archive's files are wrong",
                )

    def _replace(self, connection: Connection, dataset: Dataset, stages: list[str]) -> None:
        """Put the staged rows in the place of the hour's."""
        target = table(self.settings.schema, dataset.name)
        self.step("delete")
        connection.execute(f"DELETE FROM {target} WHERE {_within(dataset)}", self._span())
        self.step("insert")
        for stage, group in zip(stages, self.groups):
            names = ", ".join(map(quoted, group.columns))
            inserted = connection.execute(f"INSERT INTO {target} ({names}) SELECT {names} FROM {quoted(stage)}")
            if inserted not in (group.rows, -1):
                raise LoadError(f"{self.what}: {inserted} rows were inserted of the {group.rows} that were staged; nothing was loaded")
            connection.execute(f"DROP TABLE {quoted(stage)}")

    def _span(self) -> list[object]:
        return [ledger.timestamp(self.manifest.hour), ledger.timestamp(self.manifest.hour + self.manifest.span)]

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


def _within(dataset: Dataset) -> str:
    """Whether a row lies in an hour: a condition with two parameters."""
    return f"{quoted(dataset.time)} >= %s AND {quoted(dataset.time)} < %s"
