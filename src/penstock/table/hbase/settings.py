"""What a deployment says about HBase: the table `hbase` of its settings, checked."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields
from typing import Any

from penstock.errors import ConfigurationError

_PREFIX = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*:)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KERBEROS = ("sasl", "kerberos", "principal", "keytab")
_TLS = ("ssl", "tls", "cert")


@dataclass(frozen=True)
class HBaseSettings:
    """Where HBase's Thrift servers are and how they are used.

    prefix: of table names, with "NAMESPACE:" before it if they are in a namespace. regions: how many a table is split into when it is created.
    timeout: how many seconds a request may take. connections: how many an `HBaseTable` keeps at most.
    """

    host: str = "127.0.0.1"
    port: int = 9090
    thrift2_port: int | None = None
    prefix: str = "penstock_"
    regions: int = 4
    timeout: float = 10.0
    connections: int = 8

    @classmethod
    def read(cls, settings: dict[str, Any]) -> HBaseSettings:
        """From the table `hbase` of a deployment. Raises ConfigurationError."""
        known = {field.name for field in fields(cls)}
        for key in sorted(set(settings) - known):
            raise _unknown(key, known)
        read = cls(**settings)
        wrong = read._mistake()
        if wrong:
            raise ConfigurationError(f"deployment, [hbase]: {wrong}")
        return read

    def _mistake(self) -> str | None:
        if not isinstance(self.host, str) or not self.host:
            return f"host = {self.host!r} is not the name of a machine"
        if not isinstance(self.prefix, str) or not _PREFIX.fullmatch(self.prefix):
            return f"prefix = {self.prefix!r} cannot begin a table's name: use letters, digits and _"
        for name, low, high in (("port", 1, 65535), ("thrift2_port", 1, 65535), ("regions", 1, 256), ("connections", 1, 256)):
            value = getattr(self, name)
            if not (name == "thrift2_port" and value is None) and not (
                isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            ):
                return f"{name} = {value!r} is not a number from {low} to {high}"
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, (int, float)) or not 0 < self.timeout <= 3600:
            return f"timeout = {self.timeout!r} is not a number of seconds up to 3600"
        return None


def _unknown(key: str, known: set[str]) -> ConfigurationError:
    if any(word in key.lower() for word in _KERBEROS):
        return ConfigurationError(
            f"deployment, [hbase]: {key}: Kerberos (SASL) to HBase's Thrift server is not supported",
            hint="run a Thrift server that itself logs in to the cluster with its keytab, and guard its port with a TLS tunnel (docs/hbase.md)",
        )
    if any(word in key.lower() for word in _TLS):
        return ConfigurationError(
            f"deployment, [hbase]: {key}: the connection to HBase's Thrift server has no TLS of its own",
            hint="run a tunnel, such as stunnel, and name its local end as host and port (docs/hbase.md)",
        )
    near = difflib.get_close_matches(key, known, 1)
    return ConfigurationError(
        f"deployment, [hbase]: unknown setting {key}" + (f" (did you mean {near[0]}?)" if near else ""),
        hint=f"settings are {', '.join(sorted(known))}",
    )
