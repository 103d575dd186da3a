"""Where the time goes: one call a batch, no Python object an event.

The compiled kernels and a plain-Python reference share one face, this module. The reference is the oracle of the kernels' tests, and it is what
runs, slowly and with a notice at every start, where no compiler was found. `backend` says which: "compiled" or "reference".
PENSTOCK_KERNELS=reference asks for the reference.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from penstock.kernels.columns import Column, Columns, Decoder, Records
from penstock.kernels.masks import mask
from penstock.kernels.plan import BreakdownKeys, RollupPlan
from penstock.kernels.reasons import describe

backend = "reference"
if os.environ.get("PENSTOCK_KERNELS") != "reference":
    try:
        from penstock.kernels._cell import (
            cell_stamp,
            column_key,
            decode_cell,
            decode_cells,
            entity_prefix,
            merge_cells,
            row_key,
            row_parts,
            saturate,
            split_column,
            split_row,
            strip_stamp,
        )
        from penstock.kernels._encode import encode_batch, murmur2
        from penstock.kernels._group import Delta
        from penstock.kernels._hll import Hll
        from penstock.kernels._json import JsonDecoder
        from penstock.kernels._judge import judge
        from penstock.kernels._msgpack import MsgpackDecoder
        from penstock.kernels._packed import pack_cells, unpack_cells
        from penstock.kernels._records import batch_spans, headers_value, read_batches
        from penstock.kernels._select import Series, Starts, Wanted, select_cells
        from penstock.kernels._thrift import RowsReply

        backend = "compiled"
    except ImportError as problem:
        print(
            f"penstock: NOTICE: the compiled kernels are missing ({problem}); the plain-Python reference runs instead, about 100 times slower. "
            "Install a C compiler (Debian: apt-get install gcc python3-dev) and reinstall penstock.",
            file=sys.stderr,
        )

if backend == "reference" and not TYPE_CHECKING:
    from penstock.kernels.reference_decode import JsonDecoder, MsgpackDecoder, batch_spans, headers_value, read_batches
    from penstock.kernels.reference_encode import encode_batch, murmur2
    from penstock.kernels.reference_group import (
        Delta,
        Hll,
        cell_stamp,
        column_key,
        decode_cell,
        decode_cells,
        entity_prefix,
        judge,
        merge_cells,
        row_key,
        row_parts,
        saturate,
        split_column,
        split_row,
        strip_stamp,
    )
    from penstock.kernels.reference_packed import pack_cells, unpack_cells
    from penstock.kernels.reference_select import Series, Starts, Wanted, select_cells
    from penstock.kernels.reference_thrift import RowsReply

DECODERS: dict[str, Any] = {"json": JsonDecoder, "msgpack": MsgpackDecoder}

__all__ = [
    "BreakdownKeys",
    "Column",
    "Columns",
    "DECODERS",
    "Decoder",
    "Delta",
    "Hll",
    "JsonDecoder",
    "MsgpackDecoder",
    "Records",
    "RollupPlan",
    "RowsReply",
    "Series",
    "Starts",
    "Wanted",
    "backend",
    "batch_spans",
    "cell_stamp",
    "column_key",
    "decode_cell",
    "decode_cells",
    "describe",
    "encode_batch",
    "entity_prefix",
    "headers_value",
    "judge",
    "mask",
    "merge_cells",
    "murmur2",
    "pack_cells",
    "read_batches",
    "row_key",
    "row_parts",
    "saturate",
    "select_cells",
    "split_column",
    "split_row",
    "strip_stamp",
    "unpack_cells",
]
