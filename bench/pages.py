"""A seeded generator of page views for `penstock.topologies.page_analytics`: few pages have most of the views, few visitors most of the requests."""

from __future__ import annotations

from typing import Iterator, NamedTuple

import numpy as np

BLOCK = 1 << 15  # views made at a time

_STATUSES = (200,) * 91 + (304,) * 4 + (404,) * 2 + (301, 206, 500)
_METHODS = ("GET",) * 97 + ("HEAD", "HEAD", "POST")
_REFERRERS = ("https://www.example.com/", "https://search.example/?q=pipes", "https://news.example/item/4711", None)
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0",
    "Mozilla/5.0 (compatible; Crawler/2.1; +https://www.example.com/bot.html)",
)


class PageBlock(NamedTuple):
    """Some views in the order of their event time. timestamps: when each was logged, int64 microseconds since 1970."""

    values: list[bytes]
    keys: list[bytes]
    timestamps: np.ndarray


def page_views(count: int, *, seed: int, pages: int, visitors: int, start_ms: int, hours: int) -> Iterator[PageBlock]:
    """`count` views as JSON of about 250 bytes, keyed by path, spread evenly over `hours`. The same arguments give the same bytes."""
    rank = np.arange(pages)
    chance = 1 / (rank + 6.0)
    reach = np.cumsum(chance / chance.sum())
    paths = [f"/blog/{number % 37:02d}/{'articles' if number % 3 else 'notes'}/page-{number:05d}.html" for number in rank.tolist()]
    for index, first in enumerate(range(0, count, BLOCK)):
        size = min(BLOCK, count - first)
        draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index]))).random((6, size))
        ts = start_ms + ((first + np.arange(size)) * (hours * 3_600_000) // count)
        page = np.minimum(np.searchsorted(reach, draw[0]), pages - 1).tolist()
        visitor = (visitors * draw[1] ** 2).astype(np.int64).tolist()
        kinds = (draw[2:] * 100).astype(np.int64).tolist()
        weight = (400 + draw[5] * 60_000).astype(np.int64).tolist()
        values = [_view(*fields) for fields in zip(ts.tolist(), visitor, (paths[one] for one in page), *kinds[:3], weight)]
        yield PageBlock(values, [paths[one].encode() for one in page], ts * 1000)


def _view(ts: int, visitor: int, path: str, status: int, method: int, agent: int, weight: int) -> bytes:
    referrer = _REFERRERS[(visitor + status) % len(_REFERRERS)]
    quoted = "null" if referrer is None else f'"{referrer}"'
    ip = f"10.{visitor >> 16 & 255}.{visitor >> 8 & 255}.{visitor & 255}"
    return (
        f'{{"ts":{ts},"ip":"{ip}","method":"{_METHODS[method]}","path":"{path}","status":{_STATUSES[status]},'
        f'"bytes":{weight},"referrer":{quoted},"user_agent":"{_AGENTS[agent * len(_AGENTS) // 100]}"}}'
    ).encode()
