"""The forms of an answer: JSON, CSV or an Arrow stream, by `format` or by what the client accepts."""

from __future__ import annotations

from penstock.serve.problems import Problem

JSON, CSV, ARROW = "json", "csv", "arrow"
MEDIA_TYPES = {JSON: "application/json", CSV: "text/csv", ARROW: "application/vnd.apache.arrow.stream"}


def form_of(accept: str | None, asked: str | None) -> str:
    """The form to answer in. accept: the header. asked: `format`, which goes before it. Raises Problem 406."""
    if asked is not None:
        return asked
    if not accept:
        return JSON
    best, best_quality = None, 0.0
    for form, media_type in MEDIA_TYPES.items():
        quality = _quality(accept, media_type)
        if quality > best_quality:
            best, best_quality = form, quality
    if best is None:
        raise Problem(
            406, "None of the forms that are accepted can be made.", hint=f"accept one of {', '.join(MEDIA_TYPES.values())}, or give format"
        )
    return best


def _quality(accept: str, media_type: str) -> float:
    """How much a media type is wanted: the most exact range that it is in decides (RFC 9110, 12.5.1)."""
    kind = media_type.partition("/")[0]
    exactness = {media_type: 3, f"{kind}/*": 2, "*/*": 1}
    found = (0, 0.0)
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name in exactness:
            found = max(found, (exactness[name], _weight(parameters)))
    return found[1]


def _weight(parameters: list[str]) -> float:
    for one in parameters:
        if one.startswith("q="):
            try:
                return min(1.0, max(0.0, float(one[2:])))
            except ValueError:
                return 0.0
    return 1.0
