"""The table in HBase, over its Thrift servers. `HBaseTable` is the `Table`; `docs/hbase.md` says what the servers need.

`store` is the table itself, `create` makes tables and sets their ttl, `pool` keeps connections, `connection` is one of them, `faults` says what
a server's errors mean, `lookups` plans batched gets, `appetite` bounds the size of answers, `wire` encodes puts, `settings` reads a deployment's.
"""

from penstock.table.hbase.store import HBaseTable

__all__ = ["HBaseTable"]
