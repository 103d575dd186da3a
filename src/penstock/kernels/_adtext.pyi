from typing import Any, Sequence

from penstock.kernels.framing import Slices

def write_ads(
    columns: Any, types: Sequence[str], countries: Sequence[str], devices: Sequence[str], as_json: bool
) -> tuple[Slices, Slices]: ...
