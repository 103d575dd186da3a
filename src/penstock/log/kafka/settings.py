"""What the `kafka` table of a deployment may say."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from penstock.errors import ConfigurationError
from penstock.secrets import is_reference, resolve

OWN = {"bootstrap", "replication", "topic_config", "append_timeout"}
TEXTS = {  # kafka-python's names
    "client_id",
    "client_dns_lookup",
    "proxy_url",
    "sasl_kerberos_domain_name",
    "sasl_kerberos_service_name",
    "sasl_mechanism",
    "sasl_plain_password",
    "sasl_plain_username",
    "security_protocol",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_crlfile",
    "ssl_keyfile",
    "ssl_password",
}
SWITCHES = {"ssl_check_hostname"}
SECRETS = {"sasl_plain_password", "ssl_password"}
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "AWS_MSK_IAM")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a KafkaLog, checked.

    bootstrap: "host:port,host:port". replication: of topics that are created; -1 is the brokers' default. topic_config: Kafka's own settings of
    topics that are created, such as {"retention.ms" = "604800000"}. append_timeout: seconds that an append is tried for. client: what is passed to
    kafka-python under its own names, secrets still as references.
    """

    bootstrap: str
    replication: int = -1
    topic_config: dict[str, str] = dataclasses.field(default_factory=dict)
    append_timeout: float = 20.0
    client: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, table: dict[str, Any]) -> Settings:
        """The settings that a deployment's table says. Raises ConfigurationError, naming the setting; touches no network."""
        known = OWN | TEXTS | SWITCHES
        for name in table:
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), 3)
                raise ConfigurationError(
                    f"kafka.{name} is not a setting", hint=f"{'did you mean' if near else 'there are'} {', '.join(near or sorted(known))}"
                )
        bootstrap, replication, timeout = table.get("bootstrap"), table.get("replication", -1), table.get("append_timeout", 20.0)
        if not isinstance(bootstrap, str) or not all(_is_address(one) for one in bootstrap.split(",")):
            raise ConfigurationError(
                f"kafka.bootstrap = {bootstrap!r} names no brokers", hint='write bootstrap = "host:9092", several with commas'
            )
        if not isinstance(replication, int) or isinstance(replication, bool) or (replication < 1 and replication != -1):
            raise ConfigurationError(f"kafka.replication = {replication!r} is not a number of copies", hint="write a number from 1")
        if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or timeout <= 0:
            raise ConfigurationError(f"kafka.append_timeout = {timeout!r} is not a time", hint="write seconds, such as 20")
        client = {name: _checked(name, table[name]) for name in table if name not in OWN}
        if client.get("security_protocol", "PLAINTEXT").startswith("SASL") and "sasl_mechanism" not in client:
            raise ConfigurationError("kafka.sasl_mechanism is missing", hint=f"use one of {', '.join(MECHANISMS)}")
        return cls(bootstrap, replication, _topic_config(table.get("topic_config", {})), float(timeout), client)

    def resolved(self) -> dict[str, Any]:
        """What kafka-python is to be given, secrets included. Raises ConfigurationError for a secret that is not there."""
        return {"bootstrap_servers": self.bootstrap.split(","), **{name: resolve(value) for name, value in self.client.items()}}

    @property
    def encrypted(self) -> bool:
        """Whether connections are TLS."""
        return str(self.client.get("security_protocol", "")).endswith("SSL")


def _is_address(text: str) -> bool:
    host, _, port = text.strip().rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def _checked(name: str, value: Any) -> Any:
    if name in SWITCHES:
        if not isinstance(value, bool):
            raise ConfigurationError(f"kafka.{name} = {value!r} is not true or false", hint=f"write {name} = true or {name} = false")
        return value
    if is_reference(value):
        return value
    if name in SECRETS:
        raise ConfigurationError(
            f"kafka.{name} is written out", hint=f'write {name} = {{env = "NAME"}} or {{file = "PATH"}}: Storm shows settings to anyone'
        )
    if not isinstance(value, str):
        raise ConfigurationError(f"kafka.{name} = {value!r} is not a text", hint=f'write {name} = "..."')
    if name == "security_protocol" and value not in PROTOCOLS:
        raise ConfigurationError(f"kafka.{name} = {value!r} is not known", hint=f"use one of {', '.join(PROTOCOLS)}")
    if name == "sasl_mechanism" and value not in MECHANISMS:
        raise ConfigurationError(f"kafka.{name} = {value!r} cannot be used", hint=f"use one of {', '.join(MECHANISMS)}")
    return value


def _topic_config(table: Any) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, (str, int, float, bool)) for value in table.values()):
        raise ConfigurationError(
            f"kafka.topic_config = {table!r} is not a table of settings", hint='write topic_config = {"retention.ms" = "604800000"}'
        )
    found = {str(name): str(value).lower() if isinstance(value, bool) else str(value) for name, value in table.items()}
    if "compact" in found.get("cleanup.policy", ""):
        raise ConfigurationError(
            "kafka.topic_config would make compacted topics, which cannot be replayed exactly", hint="leave cleanup.policy out"
        )
    return {"cleanup.policy": "delete", **found}
