from typing import Mapping

from penstock.kernels.columns import Columns, Records
from penstock.model import Field

class MsgpackDecoder:
    def __init__(self, fields: Mapping[str, Field]) -> None: ...
    def decode(self, records: Records) -> Columns: ...
