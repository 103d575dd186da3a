"""Creation of HBase tables, and changes to their ttl.

Thrift 1 makes tables of one region and changes none. So what it cannot do is done through a Thrift 2 server, where the deployment names one.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

from penstock.errors import ConfigurationError, NotFoundError, PenstockError, UnavailableError
from penstock.table.hbase.faults import FAMILY
from penstock.table.hbase.interfaces import thrift1, thrift2
from penstock.table.hbase.pool import Pool
from penstock.table.hbase.settings import HBaseSettings

FOREVER = 2**31 - 1  # seconds: HBase's word for no ttl
_PATIENCE = 90.0  # seconds for what HBase's master does in procedures: it places regions one after another, on a busy cluster for long
_POLL = 0.2  # seconds between looks at a table that another process is creating


class Creator:
    """Makes tables, idempotently: any number of processes may create the same one at once. pool: of the Thrift 1 server."""

    def __init__(self, pool: Pool, settings: HBaseSettings) -> None:
        self._pool = pool
        self._regions = settings.regions
        self._wait = max(_PATIENCE, settings.timeout)
        self._thrift2 = (
            Pool(settings.host, settings.thrift2_port, thrift2().THBaseService, size=1, timeout=settings.timeout)
            if settings.thrift2_port is not None
            else None
        )

    def create(self, name: bytes, table: str, *, ttl: int | None, hashed: bool) -> None:
        """See `HBaseTable.create`. name: in HBase, with the prefix. table: without, for messages. ttl: microseconds."""
        seconds = FOREVER if ttl is None else max(1, min(-(-ttl // 1_000_000), FOREVER))
        family = self._family(name, table)
        if family is None:
            try:
                self._make(name, table, seconds, split_points(self._regions) if hashed else [])
            except PenstockError:
                family = self._family(name, table)
                if family is None:
                    raise  # nobody else was faster
            else:
                return
        self._until_enabled(name, table)
        if family.maxVersions != 1:
            raise ConfigurationError(
                f"HBase table {table!r} keeps {family.maxVersions} versions of a cell: Penstock did not make it",
                hint="give the deployment another prefix",
            )
        if family.timeToLive != seconds:
            self._change_ttl(name, table, family.timeToLive, seconds)

    def close(self) -> None:
        """Hang up."""
        if self._thrift2 is not None:
            self._thrift2.close()

    def _family(self, name: bytes, table: str) -> Any | None:
        """The description of the table's column family; None if there is no table. Raises ConfigurationError for a table without that family."""
        try:
            families = self._pool.call(lambda connection: connection.client.getColumnDescriptors(name), table=table)
        except NotFoundError:
            return None
        if FAMILY + b":" not in families:
            raise ConfigurationError(
                f"HBase table {table!r} has no column family {FAMILY.decode()!r}: Penstock did not make it",
                hint="give the deployment another prefix",
            )
        return families[FAMILY + b":"]

    def _make(self, name: bytes, table: str, seconds: int, splits: list[bytes]) -> None:
        if self._thrift2 is None:
            family = thrift1.ColumnDescriptor(
                name=FAMILY + b":", maxVersions=1, compression=b"NONE", bloomFilterType=b"ROW", blockCacheEnabled=True, timeToLive=seconds
            )
            self._pool.call(lambda connection: connection.client.createTable(name, [family]), table=table, timeout=self._wait)
            return
        interface = thrift2()
        # Rows are read by key: a bloom filter of rows spares reading most files. FAST_DIFF stores of neighbouring keys, which are alike, what differs.
        # No compression: which codecs a cluster has is for its keeper to know, who may set one; it is left alone.
        described = interface.TTableDescriptor(
            tableName=_thrift2_name(name),
            columns=[
                interface.TColumnFamilyDescriptor(
                    name=FAMILY,
                    maxVersions=1,
                    timeToLive=seconds,
                    bloomnFilterType=interface.TBloomFilterType.ROW,
                    dataBlockEncoding=interface.TDataBlockEncoding.FAST_DIFF,
                )
            ],
        )
        self._thrift2.call(lambda connection: connection.client.createTable(described, splits), table=table, timeout=self._wait)

    def _until_enabled(self, name: bytes, table: str) -> None:
        """Wait for a table that another process is creating just now."""
        deadline = time.monotonic() + self._wait
        while not self._pool.call(lambda connection: connection.client.isTableEnabled(name), table=table):
            if time.monotonic() > deadline:
                raise UnavailableError(f"HBase table {table!r} is disabled", hint="enable it in HBase's shell")
            time.sleep(_POLL)

    def _change_ttl(self, name: bytes, table: str, old: int, new: int) -> None:
        if self._thrift2 is None:
            change = f"HBase table {table!r} has {_ttl(old)} and is to have {_ttl(new)}, which only Thrift 2 can change"
            hint = "start HBase's Thrift 2 server and name its thrift2_port in the deployment's [hbase], or alter TTL in HBase's shell"
            if old < new:
                raise ConfigurationError(change, hint=hint)
            warnings.warn(f"{change}; its cells stay longer than they need to ({hint})", stacklevel=4)
            return
        named = _thrift2_name(name)
        described = self._thrift2.call(lambda connection: connection.client.getTableDescriptor(named), table=table)
        [family] = [family for family in described.columns if family.name == FAMILY]
        family.timeToLive = new
        self._thrift2.call(lambda connection: connection.client.modifyColumnFamily(named, family), table=table, timeout=self._wait)


def split_points(regions: int) -> list[bytes]:
    """The first bytes of rows at which a table of `regions` regions is split, for rows that begin with an evenly spread byte."""
    return [bytes([256 * number // regions]) for number in range(1, regions)]


def _thrift2_name(name: bytes) -> Any:
    namespace, _, qualifier = name.rpartition(b":")
    return thrift2().TTableName(ns=namespace or b"default", qualifier=qualifier)


def _ttl(seconds: int) -> str:
    return "no ttl" if seconds == FOREVER else f"a ttl of {seconds} s"
