"""HBase's two Thrift interfaces, as the modules that thriftpy2 makes of them: `thrift1` is happybase's, `thrift2` loads the part that is used here."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import thriftpy2

importlib.import_module("happybase")  # it loads its interface, under a name of its own
thrift1: Any = importlib.import_module("Hbase_thrift")


@functools.cache
def thrift2() -> Any:
    """Thrift 2: enumerations, descriptors of tables, and the service `THBaseService`."""
    return thriftpy2.load(str(Path(__file__).with_name("hbase.thrift")), module_name="penstock_hbase_thrift2_thrift")
