"""Issuing tokens: how far and how long they may reach."""

from __future__ import annotations

from penstock.errors import UsageError
from penstock.model.units import SECOND, duration_text
from penstock.serve.keys import Key
from penstock.serve.scope import Scope
from penstock.serve.service import Service
from penstock.serve.tokens import EMBED, SESSION


def issue(
    service: Service, key: Key, reach: Scope, wanted: Scope, lifetime: int, *, use: str = EMBED, minimum_audience: int = 0
) -> tuple[str, int]:
    """A token, and when it expires. reach: of whoever asks. wanted: what is not narrowed in it is the reach's. lifetime: microseconds.

    Raises UsageError for one that would reach further or live longer than it may, or whose key has ended, and ConfigurationError where none can be signed.
    """
    now = service.now()
    if key.state(now) != "active":
        raise UsageError(f"key: {key.id} is {key.state(now)}", hint="make another: `penstock serve keys create`")
    longest = service.settings.session if use == SESSION else service.settings.lifetime
    if not SECOND <= lifetime <= longest:
        raise UsageError(f"lifetime: a token lives from 1 s to {duration_text(longest)}", hint="ask for a new one before it ends")
    for name in ("rollups", "datasets"):
        beyond = [one for one in getattr(wanted, name) or () if getattr(reach, name) is not None and one not in getattr(reach, name)]
        if beyond:
            raise UsageError(f"scope: {beyond[0][:60]!r} is beyond the key's {name}", hint="narrow it; /v1/me says what the key reaches")
    for field, values in (wanted.entities or {}).items():
        open_values = None if reach.entities is None else reach.entities.get(field, ())
        closed = [value for value in values if open_values is not None and value not in open_values]
        if closed:
            raise UsageError(
                f"scope: {field}={closed[0][:60]} is beyond the key's entities", hint="narrow it; /v1/me says what the key reaches"
            )
    if not set(wanted.actions) <= set(reach.actions):
        raise UsageError(f"scope: the key may not {' and '.join(wanted.actions)}", hint="narrow it; /v1/me says what the key may do")
    scope = reach.narrowed(wanted)
    expires = min(now + lifetime, key.expires or now + lifetime)
    return service.tokens.make(key, scope, use=use, now=now, expires=expires, minimum_audience=minimum_audience), expires
