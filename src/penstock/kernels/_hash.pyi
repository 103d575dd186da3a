from typing_extensions import Buffer

def xxh64(data: Buffer, seed: int = 0) -> int:
    """XXH64 of a bytes-like object, as an int of 64 bits, unsigned."""
