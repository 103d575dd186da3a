"""A connection to Redshift: one statement at a time, errors sorted, time limits at both ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.errors import ConfigurationError
from penstock.warehouse.redshift.problems import LostError, ServerError, of_connecting, told
from penstock.warehouse.redshift.settings import Settings

_SLACK = 30.0  # seconds that the server has to say that statement_timeout is over before the socket's own limit is


class Connection:
    """A connection of redshift-connector, unpatched. For one thread.

    The driver begins a transaction before the first statement outside one. It prepares every statement; nameless here (max_prepared_statements = 0),
    since a plan kept by the text of a statement outlives the temporary table that it was made for.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises UnavailableError, or ConfigurationError for what trying again does not mend."""
        driver = import_driver()
        self.place = settings.place
        try:
            with told():
                self._driver: Any = driver.connect(
                    **settings.resolved(),
                    application_name="penstock",
                    max_prepared_statements=0,
                    timeout=settings.connect_timeout,
                    tcp_keepalive_idle=60,  # a long COPY is silent, and what stands between may forget a silent connection
                    tcp_keepalive_interval=15,
                    tcp_keepalive_count=4,
                )
        except (LostError, ServerError) as problem:
            raise of_connecting(problem, settings.place) from problem
        except ConfigurationError:
            raise
        except Exception as problem:
            if type(problem).__module__.startswith(("botocore", "boto3")):
                raise of_connecting(problem, settings.place) from problem
            raise
        try:
            # The driver has one limit for connecting and for every answer.
            self._driver._usock.settimeout(settings.statement_timeout + _SLACK)
            self.alone(f"SET statement_timeout TO {round(settings.statement_timeout * 1000)}")
        except BaseException:
            self.close()
            raise

    def execute(self, sql: str, values: Sequence[Any] | None = None) -> int:
        """Run a statement, in a transaction that it begins if there is none. How many rows it took, where the server says so."""
        with told():
            cursor = self._driver.cursor()
            cursor.execute(sql, values or None)
            return int(cursor.rowcount)

    def rows(self, sql: str, values: Sequence[Any] | None = None) -> list[Any]:
        """The rows of a statement."""
        with told():
            cursor = self._driver.cursor()
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    def described(self, sql: str) -> tuple[list[dict[str, Any]], list[Any]]:
        """The columns of a statement, as the protocol describes them (label, type_oid, type_modifier), and its rows."""
        with told():
            cursor = self._driver.cursor()
            cursor.execute(sql)
            columns = list(cursor.ps["row_desc"]) if cursor.ps else []
            return columns, list(cursor.fetchall()) if columns else []

    def commit(self) -> None:
        """Commit. After a LostError it may be committed or not."""
        with told():
            self._driver.commit()

    def rollback(self) -> None:
        """End the transaction, if there is one."""
        with told():
            self._driver.rollback()

    def alone(self, sql: str) -> None:
        """Run a statement outside any transaction."""
        self._driver.autocommit = True
        try:
            self.execute(sql)
        finally:
            self._driver.autocommit = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A transaction that may read only."""
        self._driver.autocommit = True  # or the driver begins one of its own
        try:
            self.execute("BEGIN READ ONLY")
            yield
            self.rollback()
        except ServerError:
            with contextlib.suppress(ServerError, LostError):
                self.rollback()
            raise
        finally:
            self._driver.autocommit = False

    @property
    def process(self) -> int:
        """The server's number of this session."""
        return int(self.rows("SELECT pg_backend_pid()")[0][0])

    def close(self) -> None:
        """Let go of it; the server rolls back what is not committed and drops temporary tables."""
        with contextlib.suppress(Exception):  # of a connection that is gone
            self._driver.close()


def import_driver() -> Any:
    """redshift-connector. Raises ConfigurationError where it is not installed."""
    try:
        import redshift_connector
    except ModuleNotFoundError as problem:
        raise ConfigurationError(
            f"Redshift needs redshift-connector, which is not installed ({problem})", hint="pip install 'penstock[redshift]'"
        ) from None
    return redshift_connector
