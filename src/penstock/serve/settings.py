"""What `[NAME.serve]` in penstock.toml may say."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from penstock.errors import ConfigurationError, UsageError
from penstock.model.units import duration
from penstock.secrets import is_reference, resolve

if TYPE_CHECKING:
    from penstock.deployment import Deployment

_DURATIONS = ("refresh", "lifetime", "session", "live", "lag")
PARTS = ("reception", "dashboard")  # tables of their own, read by those parts


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """How a deployment is served. Durations are microseconds here, texts such as "5s" in the file.

    signing_key: where the secret is that signs tokens, {env = NAME} or {file = PATH}; a deployment with a local folder makes one there by itself.
    audience: whom tokens are for: one made for another deployment is refused. lifetime: the longest that a token for embedding may live. session: how long a
    browser stays signed in. refresh: how much later a revoked key is refused at the most. live: how often the committed offsets are looked at while somebody
    watches. lag: how old what is known of the stream's progress may be when a question is asked. rate: requests a minute and key, in each server process, unless the key says otherwise. minimum_audience: groups of fewer people are not shown.
    max_rows: of an answer. max_body: bytes of a query's body. max_url: bytes of an address. max_streams: live streams at once, in each server process.
    threads: queries that run at once, in each server process. cache: bytes of answers kept in memory; rows: of the table's rows. origins: web pages of other hosts that may ask,
    "https://host"; embedders: hosts that may show the dashboard in a frame. audit: the file of the audit log; "-" for standard error, "" for none.
    """

    signing_key: Any = None
    audience: str = "penstock"
    lifetime: int = 3600 * 1_000_000
    session: int = 12 * 3600 * 1_000_000
    refresh: int = 5 * 1_000_000
    live: int = 1_000_000
    lag: int = 200_000
    rate: int = 1200
    minimum_audience: int = 0
    max_rows: int = 100_000
    max_body: int = 64 * 1024
    max_url: int = 16 * 1024
    max_streams: int = 200
    threads: int = 8
    cache: int = 64 * 1024 * 1024
    rows: int = 64 * 1024 * 1024
    origins: tuple[str, ...] = ()
    embedders: tuple[str, ...] = ()
    audit: str | None = None
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, deployment: Deployment) -> ServeSettings:
        """The settings of a deployment. Raises ConfigurationError."""
        table = deployment.settings.get("serve", {})
        wrong = mistake(table)
        if wrong:
            raise ConfigurationError(f"[{deployment.name}.serve]: {wrong}", hint="docs/api.md lists the settings")
        read = {name: value for name, value in table.items() if name not in PARTS}
        read.update({name: duration(read[name], name) for name in _DURATIONS if name in read})
        read.update({name: tuple(read[name]) for name in ("origins", "embedders") if name in read})
        return cls(**read, parts={name: table[name] for name in PARTS if name in table})


_TYPES = {"str": str, "int": int, "str | None": str, "tuple[str, ...]": list}


def mistake(table: Any) -> str | None:
    """What cannot work about a table `[NAME.serve]`."""
    if not isinstance(table, dict):
        return "it is not a table"
    fields = {field.name: str(field.type) for field in dataclasses.fields(ServeSettings) if field.name != "parts"}
    for name, value in table.items():
        if name in PARTS:
            if not isinstance(value, dict):
                return f"{name} is not a table"
        elif name not in fields:
            near = difflib.get_close_matches(name, [*fields, *PARTS], 1)
            return f"unknown setting {name}" + (f" (did you mean {near[0]}?)" if near else "")
        elif name == "signing_key":
            if not is_reference(value):
                return 'signing_key is not {env = "NAME"} or {file = "PATH"}'
        elif name in _DURATIONS:
            try:
                if not isinstance(value, str) or (duration(value, name) < 1_000_000 and name != "lag"):
                    return f'{name} = {value!r} is no length of time{"" if name == "lag" else " of a second or more"}, such as "5s"'
            except UsageError:
                return f'{name} = {value!r} is no length of time, such as "5s"'
        elif not isinstance(value, _TYPES[fields[name]]) or isinstance(value, bool):
            return f"{name} = {value!r} is not a {_TYPES[fields[name]].__name__}"
        elif isinstance(value, list) and not all(
            isinstance(one, str) and one.startswith(("https://", "http://")) and "*" not in one for one in value
        ):
            return f'{name}: name each as "https://host"'
        elif isinstance(value, int) and value < (0 if name in ("minimum_audience", "cache", "rows") else 1):
            return f"{name} = {value} is too small"
    return None


def signing_secret(settings: ServeSettings, directory: Path | None) -> str | None:
    """The secret that signs tokens: what the settings refer to, or a file below the deployment's folder, made on first use; None without both.

    Raises ConfigurationError for one that is too short to be safe.
    """
    if settings.signing_key is not None:
        secret = str(resolve(settings.signing_key))
        if len(secret.encode()) < 32:
            raise ConfigurationError("serve.signing_key: the secret is shorter than 32 bytes", hint="make one: openssl rand -base64 48")
        return secret
    return None if directory is None else _own_secret(directory / "serve" / "signing.key")


def _own_secret(path: Path) -> str:
    import os
    import secrets

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48))
            try:
                os.link(made, path)  # whole or not at all, and of several processes one wins
            except FileExistsError:
                pass
            finally:
                made.unlink()
        return path.read_text()
    except OSError as problem:
        raise ConfigurationError(
            f"{path} cannot be used: {problem.strerror}", hint="name the secret that signs tokens: signing_key = {env = ...}"
        ) from None
