"""What the errors of HBase's Thrift servers mean: a mistake of the user, a bug of ours, or an outage.

A Thrift server answers an error with a Java stack trace as text; Java's class names in it are all there is to go by. What is not known for
a mistake is an outage: retrying a mistake for ever is seen in `status`, losing a shard over an outage is not.
"""

from __future__ import annotations

from typing import Any

from thriftpy2.thrift import TApplicationException

from penstock.errors import ConfigurationError, InternalError, PenstockError, UnavailableError
from penstock.table.memory import no_such_table

FAMILY = b"c"  # the one column family, short since it is stored with every cell
QUALIFIER = len(FAMILY) + 1  # where a column's own name begins in HBase's "family:qualifier"


def text_of(problem: Exception) -> str:
    """What a server's exception says."""
    message: Any = getattr(problem, "message", None)
    text = message.decode(errors="replace") if isinstance(message, bytes) else str(message or "")
    return text or type(problem).__name__


def meaning(problem: Exception, server: str, table: str | None) -> PenstockError:
    """The error to raise for an exception that a server has answered. server: its address. table: which the call was about, without prefix."""
    text = text_of(problem)
    first = text.partition("\n")[0][:300]
    about = f"HBase table {table!r}" if table else "HBase"
    if "TableNotFoundException" in text and table:
        return no_such_table(table)
    if "TableNotEnabledException" in text:
        return UnavailableError(f"{about} is disabled", hint="enable it in HBase's shell")
    if "NoSuchColumnFamilyException" in text:
        return ConfigurationError(
            f"{about} has no column family {FAMILY.decode()!r}: Penstock did not make it", hint="give the deployment another prefix"
        )
    if "NamespaceNotFoundException" in text:
        return ConfigurationError(f"{server}: {first}", hint="create the namespace of the deployment's prefix in HBase's shell")
    if "AccessDeniedException" in text or "AccessControlException" in text:
        return ConfigurationError(f"{about}: {first}", hint="grant the user of the Thrift server read, write and create there")
    if "KeyValue size too large" in text:
        return ConfigurationError(
            f"{about}: a value is larger than HBase takes", hint="it takes hbase.client.keyvalue.maxsize, 10 MiB by default"
        )
    if isinstance(problem, TApplicationException) and problem.type in (
        TApplicationException.UNKNOWN_METHOD,
        TApplicationException.WRONG_METHOD_NAME,
    ):
        return ConfigurationError(
            f"{server} does not know the call: {text}", hint="port is that of HBase's Thrift server (1), thrift2_port that of Thrift 2"
        )
    if "IllegalArgument" in type(problem).__name__ and "scanner ID" not in text:
        return InternalError(f"{about}: {server} refuses the request: {first}")
    return UnavailableError(f"{about}: {server} answers {first}", hint="see the logs of the Thrift server and of the region servers")
