"""What `[NAME.serve.reception]` in penstock.toml may say."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
from typing import Any, Mapping

from penstock.errors import ConfigurationError, UsageError
from penstock.model.units import duration
from penstock.serve.reception.stamps import STAMPS

_DURATIONS = ("window", "patience", "linger")
_LISTS = ("origins", "trusted_proxies")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclasses.dataclass(frozen=True)
class ReceptionSettings:
    """How events are taken. Durations are microseconds here, texts such as "1d" in the file.

    max_body: bytes of a request's body as sent; max_inflated: when decompressed. max_events: of a request. max_event: bytes of one, as it comes to lie in the log.
    rate: events a minute and key, in each server process; 0 for no limit. queue: bytes of events that may wait for the log, in each server process.
    window: how long an idempotency key is remembered. patience: how long a request waits for the log before it is told to come again. linger: how long
    the first event of a group waits for others; without it a group is what came while the one before was appended. origins: web pages that may post,
    "https://host". trusted_proxies: networks whose X-Forwarded-For is believed. stamp: by dataset, which fields are filled where an event has none:
    {ads = {id = "event_id", received = "received_at", ip = "ip", user_agent = "user_agent"}}.
    """

    max_body: int = 2 << 20
    max_inflated: int = 8 << 20
    max_events: int = 10_000
    max_event: int = 256 << 10
    rate: int = 0
    queue: int = 64 << 20
    window: int = 86_400_000_000
    patience: int = 20_000_000
    linger: int = 0
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    stamp: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, table: Mapping[str, Any], where: str = "serve.reception") -> ReceptionSettings:
        """The settings of a table. Raises ConfigurationError, naming the setting."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        read: dict[str, Any] = {}
        for name, value in table.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ConfigurationError(
                    f"{where}.{name} is not a setting",
                    hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}",
                )
            read[name] = _checked(f"{where}.{name}", name, value)
        settings = cls(**read)
        if settings.max_event > settings.max_inflated:
            raise ConfigurationError(
                f"{where}.max_event is larger than max_inflated, {settings.max_inflated}", hint="one event is a body too"
            )
        return settings


def _checked(where: str, name: str, value: Any) -> Any:
    if name in _DURATIONS:
        try:
            return duration(value, where) if value not in (0, "0") else 0
        except UsageError as problem:
            raise ConfigurationError(f"{where} = {value!r} is no length of time", hint='write "10ms", "20s" or "1d"') from problem
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ConfigurationError(f"{where} = {value!r} is not a list of texts", hint=f'{name} = ["..."]')
        return tuple(value) if name == "origins" else tuple(_network(where, one) for one in value)
    if name == "stamp":
        if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
            raise ConfigurationError(f"{where} is not a table of datasets", hint='stamp = {ads = {id = "event_id"}}')
        for dataset, stamps in value.items():
            for what, field in stamps.items():
                if what not in STAMPS or not isinstance(field, str):
                    raise ConfigurationError(
                        f"{where}.{dataset}: {what} = {field!r} is no stamp", hint=f"name a field for any of {', '.join(STAMPS)}"
                    )
        return value
    least = 0 if name == "rate" else 1
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{where} = {value!r} is not a number from {least} on", hint="write whole numbers, bytes among them")
    return value


def _network(where: str, text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ConfigurationError(f"{where}: {text!r} is not a network", hint='write "10.0.0.0/8" or "192.0.2.7"') from None
