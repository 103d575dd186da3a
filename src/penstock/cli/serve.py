"""`penstock serve`: the query API, keys and tokens."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

import click

from penstock.cli.base import HELP, ExampleCommand, command, json_option, number_of, on_option, open_deployment, say
from penstock.cli.output import table
from penstock.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.serve.keys import Key, KeyStore
    from penstock.serve.scope import Scope

MODULES = ("fastapi", "fastapi_offline", "httpx", "jwt", "uplot", "uvicorn")


class ServeGroup(ExampleCommand, click.Group):
    """A group that does something by itself, and has examples."""


@click.group(
    "serve",
    cls=ServeGroup,
    invoke_without_command=True,
    context_settings=HELP,
    short_help="Answer questions over HTTP.",
    examples=[
        ("this machine's data, on any free port; the address is printed", "penstock serve --port 0"),
        (
            "for others, with certificates and a process a core",
            "penstock serve --host 0.0.0.0 --port 8443 --tls-cert c.pem --tls-key k.pem --workers 4",
        ),
        ("behind a proxy that ends TLS", "penstock serve --on prod --port 8080 --behind 10.0.0.5"),
    ],
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port; 0 for any that is free.")
@click.option("--workers", default=1, show_default=True, type=number_of(1), metavar="N", help="Processes.")
@click.option("--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="Serve HTTPS: the certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="Its private key, PEM.")
@click.option("--behind", metavar="ADDRESS,…", help="Proxies whose X-Forwarded headers are believed.")
@click.option("--access-log", is_flag=True, help="Log every request on standard error, without keys.")
@on_option
@click.pass_context
def serve(
    context: click.Context,
    host: str,
    port: int,
    workers: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind: str | None,
    access_log: bool,
    on: str,
) -> int | None:
    """Serve the roll-ups of a deployment over HTTP: the query API, documented at /docs.

    Nobody sees anything without a key: `penstock serve keys create`. Ctrl-C stops it cleanly.
    """
    if context.invoked_subcommand is not None:
        if context.get_parameter_source("on") is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                "--on stands before the command that it is for", hint=f"write penstock serve {context.invoked_subcommand} … --on {on}"
            )
        return None
    need_extra()
    if bool(tls_cert) != bool(tls_key):
        raise UsageError("HTTPS needs both a certificate and its key", hint="give --tls-cert and --tls-key, or neither")
    for path in (tls_cert, tls_key):
        if path is not None and not path.is_file():
            raise UsageError(f"{path} is not there", hint="--tls-cert and --tls-key are files in PEM form")
    if tls_cert and tls_key:
        check_pair(tls_cert, tls_key)
    from penstock.serve.server import listen
    from penstock.serve.server import serve as run
    from penstock.serve.service import Service

    with open_deployment(on) as deployment:
        service = Service(deployment)  # what is wrong with the settings is said here, not by a worker
        keys = service.keys.list()
        service.close()
        bound = listen(host, port)
        address = url(bound.getsockname(), "https" if tls_cert else "http")
        click.echo(f"serving {on} at {address} (dashboard: {address}/dashboard, documentation: {address}/docs)")
        if not any(key.state(deployment.now()) == "active" for key in keys):
            say(f"there is no key yet: `penstock serve keys create --name ME --on {on}` makes one")
        sys.stdout.flush()
        options: dict[str, Any] = {"ssl_certfile": tls_cert, "ssl_keyfile": tls_key}
        if behind:
            options.update(proxy_headers=True, forwarded_allow_ips=behind)
        run(deployment, bound, workers=workers, access_log=access_log, **options)
    return 0


def need_extra() -> None:
    """Raise UsageError where what serving needs is not installed."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {', '.join(missing)}, which is not installed", hint="pip install 'penstock[serve]'")


def check_pair(certificate: Path, key: Path) -> None:
    """Raise UsageError for a certificate and a key that cannot be served with: a worker would fail at them after the address was said."""
    import ssl

    def locked() -> str:
        raise UsageError(
            f"{key} is locked by a passphrase", hint="openssl pkey -in KEY -out UNLOCKED, in a file that only the server may read"
        )

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, locked)
    except PermissionError as problem:
        raise UsageError(f"the certificate or its key cannot be read: {problem.strerror}", hint=f"{certificate}, {key}") from None
    except ssl.SSLError as problem:
        why = "do not belong together" if problem.reason == "KEY_VALUES_MISMATCH" else "are not both PEM"
        raise UsageError(
            f"{certificate} and {key} {why}", hint="--tls-cert is the certificate and those that it depends on, --tls-key its private key"
        ) from None


def url(bound: Sequence[Any], scheme: str) -> str:
    """The address of a bound socket, as a browser on this machine takes it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound[0], bound[0])
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound[1]}"


@serve.group("keys", context_settings=HELP, short_help="Make, list and revoke access keys.")
def keys() -> None:
    """Access keys of a deployment: make one for each who asks, reaching no further than it must."""


def scope_options(function: Any) -> Any:
    """The options that narrow what a key or a token reaches."""
    for option in (
        click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this dataset; repeated for several."),
        click.option("--rollup", "rollups", multiple=True, metavar="NAME", help="Only this roll-up; repeated for several."),
        click.option(
            "--entity",
            "entities",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Only this entity's numbers: advertiser=1001; repeated for several.",
        ),
    ):
        function = option(function)
    return function


@command(
    "create",
    [
        ("an advertiser reads its own numbers", "penstock serve keys create --name 'Shoes Inc' --entity advertiser=1001 --expires 365d"),
        ("an application posts events, and reads nothing", "penstock serve keys create --name app --write --dataset ads"),
        (
            "an analyst reads everything, but no group of fewer than 50 people",
            "penstock serve keys create --name ann --minimum-audience 50",
        ),
    ],
    short_help="Make a key; it is shown this once.",
)
@click.option("--name", required=True, help="Whose key it is.")
@click.option("--read", is_flag=True, help="It may ask. This is so without --write as well.")
@click.option("--write", is_flag=True, help="It may post events.")
@scope_options
@click.option("--expires", metavar="TIME|DURATION", help="When it ends: ISO 8601, or how long it lives, such as 90d.")
@click.option("--rate", type=number_of(1), metavar="N", help="Requests a minute, in each server process. [default: the deployment's]")
@click.option("--minimum-audience", default=0, type=number_of(0), metavar="N", help="Never show what fewer people stand behind.")
@json_option
@on_option
def create(
    name: str,
    read: bool,
    write: bool,
    entities: tuple[str, ...],
    rollups: tuple[str, ...],
    datasets: tuple[str, ...],
    expires: str | None,
    rate: int | None,
    minimum_audience: int,
    as_json: bool,
    on: str,
) -> int:
    """Make an access key. The table keeps a hash of it, so that nobody can show it again."""
    actions = tuple(action for action, wanted in (("read", read or not write), ("write", write)) if wanted)
    with open_deployment(on, must_exist=False) as deployment:
        scope = scope_of(actions, entities, rollups, datasets)
        text, key = store(deployment).create(
            name, scope, expires=moment(expires, deployment.now()), rate=rate, minimum_audience=minimum_audience
        )
        if as_json:
            click.echo(json.dumps({"key": text, **described(key, deployment.now())}))
            return 0
        click.echo(text)
        say(f"key {key.id} for {name}: {reach(scope)}. Keep it now; it cannot be shown again.")
    return 0


@command(
    "list",
    [("all keys, and what they reach", "penstock serve keys list"), ("for a program", "penstock serve keys list --json")],
    short_help="Show the keys, and what they reach.",
)
@json_option
@on_option
def list_(as_json: bool, on: str) -> int:
    """Show all keys that were ever made. The keys themselves are nowhere to be seen."""
    with open_deployment(on) as deployment:
        found, now = store(deployment).list(), deployment.now()
    if as_json:
        click.echo(json.dumps([described(key, now) for key in found]))
        return 0
    table(
        ["id", "name", "state", "reaches", "expires"], [[key.id, key.name, key.state(now), reach(key.scope), until(key)] for key in found]
    )
    return 0


@command(
    "revoke",
    [("a key that got out", "penstock serve keys revoke 3a7d9619238f")],
    short_help="End a key, for good.",
)
@click.argument("id")
@on_option
def revoke(id: str, on: str) -> int:
    """End a key, and every token made of it. Servers refuse it within seconds: `refresh` in the settings, 5 s unless it says otherwise."""
    with open_deployment(on) as deployment:
        key = store(deployment).revoke(id)
    say(f"key {key.id} of {key.name} is revoked")
    return 0


@command(
    "token",
    [
        ("an hour for one advertiser's page", "penstock serve token --key 3a7d9619238f --entity advertiser=1001 --for 1h"),
        ("as a program that embeds pages asks for it", "penstock serve token --key 3a7d9619238f --for 5m --json"),
    ],
    short_help="Sign a short-lived token.",
)
@click.option("--key", "id", required=True, metavar="ID", help="The key whose rights it has, or fewer.")
@scope_options
@click.option("--for", "lifetime", default="15m", show_default=True, metavar="DURATION", help="How long it lives.")
@click.option("--minimum-audience", default=0, type=number_of(0), metavar="N", help="Never show what fewer people stand behind.")
@json_option
@on_option
def token(
    id: str,
    entities: tuple[str, ...],
    rollups: tuple[str, ...],
    datasets: tuple[str, ...],
    lifetime: str,
    minimum_audience: int,
    as_json: bool,
    on: str,
) -> int:
    """Sign a token that reads what a key may read, or less, for a short while: for a browser, or a link. It ends with its key."""
    need_extra()
    from penstock.model.units import iso
    from penstock.serve.issue import issue
    from penstock.serve.service import Service

    with open_deployment(on) as deployment:
        service = Service(deployment)
        key = service.keys.find(id)
        if key is None:
            raise UsageError(f"there is no key {id}", hint="`penstock serve keys list` shows the ids")
        wanted = scope_of(("read",), entities, rollups, datasets)
        text, expires = issue(service, key, key.scope, wanted, length(lifetime), minimum_audience=minimum_audience)
        service.close()
    if as_json:
        click.echo(json.dumps({"token": text, "expires": iso(expires)}))
        return 0
    click.echo(text)
    say(f"valid until {iso(expires)}")
    return 0


for _one in (create, list_, revoke):
    keys.add_command(_one)
serve.add_command(token)


def store(deployment: Deployment) -> KeyStore:
    """The keys of a deployment."""
    from penstock.serve.keys import KeyStore

    return KeyStore(lambda: deployment.table, deployment.now)


def scope_of(actions: tuple[str, ...], entities: Sequence[str], rollups: Sequence[str], datasets: Sequence[str]) -> Scope:
    """The scope of some options; what is not named is all of it. Raises UsageError."""
    from penstock.serve.scope import Scope

    found: dict[str, list[str]] = {}
    for text in entities:
        field, equals, value = text.partition("=")
        if not equals or not field.strip():
            raise UsageError(
                f"--entity: {text!r} is not FIELD=VALUE", hint="write the entity's field and a value of it: --entity advertiser=1001"
            )
        found.setdefault(field.strip(), []).append(value)
    narrowed = {field: tuple(values) for field, values in found.items()} or None
    return Scope(actions, tuple(rollups) or None, tuple(datasets) or None, narrowed)


def length(text: str) -> int:
    """Microseconds of a length of time. Raises ConfigurationError."""
    from penstock.model.units import duration

    try:
        return duration(text)
    except UsageError as problem:
        raise ConfigurationError(problem.message, hint=problem.hint) from None


def moment(text: str | None, now: int) -> int | None:
    """The instant that a text means: ISO 8601, or a length of time from now."""
    from penstock.model.units import instant

    if text is None:
        return None
    try:
        return now + length(text)
    except ConfigurationError:
        return instant(text, "--expires")


def reach(scope: Scope) -> str:
    """A scope in words."""
    parts = [" and ".join(scope.actions)]
    if scope.entities is not None:
        parts += [f"{field}={','.join(values)}" for field, values in scope.entities.items()]
    parts += [f"roll-ups {', '.join(scope.rollups)}"] if scope.rollups is not None else []
    parts += [f"datasets {', '.join(scope.datasets)}"] if scope.datasets is not None else []
    return "; ".join([*parts, *(["everything"] if len(parts) == 1 else [])])


def until(key: Key) -> str:
    """When a key ends, in words."""
    from penstock.model.units import SECOND, iso

    return "-" if key.expires is None else iso(key.expires // SECOND * SECOND)


def described(key: Key, now: int) -> dict[str, Any]:
    """A key as plain data, without its digest."""
    from penstock.model.units import iso

    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(now),
        "scope": key.scope.to_json(),
        "created": iso(key.created),
        "expires": None if key.expires is None else iso(key.expires),
        "revoked": None if key.revoked is None else iso(key.revoked),
        "rate": key.rate,
        "minimum_audience": key.minimum_audience,
    }
