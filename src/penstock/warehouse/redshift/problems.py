"""What redshift-connector raises, sorted by what can be done about it."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

from penstock.errors import ConfigurationError, PenstockError, UnavailableError

_CONFLICTS = ("serializable isolation violation", "conflict with concurrent transaction", "could not serialize", "deadlock detected")
_OUTAGES_OF_S3 = ("slowdown", "please reduce your request rate", "s3serviceexception:internal", "requesttimeout", "serviceunavailable")
_BUSY = ("08", "53", "57P", "58")  # classes of SQLSTATE: connection, resources, shutting down, its own system


class LostError(Exception):
    """The connection is gone. Whether the last statement took effect is not known."""


class ServerError(Exception):
    """The server's answer to a statement is an error; the transaction is over. fields: as the protocol has them."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        self.code = fields.get("C", "")
        parts = dict.fromkeys(part.strip() for part in (fields.get("M", ""), fields.get("D", "")) if part.strip())
        self.text = ": ".join(" ".join(part.split()) for part in parts)
        super().__init__(self.text)

    @property
    def conflict(self) -> bool:
        """Whether another transaction was in the way (error 1023 and its kin): the same again can pass."""
        text = self.text.lower()
        return self.code in ("40001", "40P01") or text.partition(":")[0].strip() == "1023" or any(one in text for one in _CONFLICTS)

    @property
    def busy(self) -> bool:
        """Whether the server, or S3 behind it, could not just now."""
        text = self.text.lower()
        return self.code.startswith(_BUSY) or any(one in text for one in _OUTAGES_OF_S3)

    @property
    def cancelled(self) -> bool:
        """Whether it took longer than statement_timeout, or somebody ended it."""
        return self.code == "57014"


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What goes wrong within is a LostError or a ServerError."""
    import redshift_connector.error as driver

    try:
        yield
    except driver.Error as problem:
        if problem.args and isinstance(problem.args[0], dict):
            raise ServerError(problem.args[0]) from problem
        if isinstance(problem, (driver.InterfaceError, driver.OperationalError)):
            raise LostError(_plain(problem)) from problem
        raise ServerError({"M": str(problem)}) from problem
    except KeyError as problem:
        raise ServerError({"M": f"a column is of a type that redshift-connector does not know: {problem}"}) from problem
    except (OSError, EOFError, ValueError, IndexError, struct.error) as problem:  # what a message is that ends in its middle
        raise LostError(_plain(problem)) from problem


def of_connecting(problem: Exception, place: str) -> PenstockError:
    """What to tell of a connection that cannot be made."""
    if isinstance(problem, ServerError):
        if problem.code.startswith("28"):
            return ConfigurationError(
                f"{place} refuses the user: {problem.text}", hint="see to redshift.user and what its password refers to"
            )
        if problem.code == "3D000":
            return ConfigurationError(f"{place}: {problem.text}", hint="redshift.database names one that is there")
        if problem.busy or problem.conflict:
            return UnavailableError(f"{place} takes no connection now: {problem.text}")
        return ConfigurationError(f"{place} refuses the connection: {problem.text}")
    text = _plain(problem)
    if "refuses SSL" in text:
        return ConfigurationError(f"{place} speaks no TLS", hint="only on a network that nobody else is on: ssl = false")
    if "certificate verify failed" in text.lower() or "CERTIFICATE_VERIFY_FAILED" in text:
        return ConfigurationError(
            f"{place}: its certificate is not to be trusted ({text})",
            hint='name the host that the certificate is for; behind a tunnel or an alias: sslmode = "verify-ca"',
        )
    if type(problem).__module__.startswith(("botocore", "boto3")):
        retriable = any(sign in text for sign in ("Throttl", "ServiceUnavailable", "Could not connect", "timed out", "InternalFailure"))
        kind: type[PenstockError] = UnavailableError if retriable else ConfigurationError
        return kind(f"{place}: no temporary credentials: {text}", hint="see to redshift.region, profile and the policy of who runs this")
    return UnavailableError(f"{place} cannot be reached: {text}")


def _plain(problem: BaseException) -> str:
    """The driver's message with those that it carries along."""
    parts: list[Any] = list(problem.args) or [type(problem).__name__]
    return ": ".join(str(part) for part in parts if str(part)) or type(problem).__name__


__all__ = ["LostError", "ServerError", "of_connecting", "told"]
