"""What the `redshift` table of a deployment may say."""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Any, Literal

from penstock.errors import ConfigurationError
from penstock.secrets import is_reference, resolve

OWN = {
    "host",
    "port",
    "database",
    "user",
    "password",
    "schema",
    "iam_role",
    "ssl",
    "sslmode",
    "connect_timeout",
    "statement_timeout",
    "attempts",
    "verify",
    "iam",
}
IAM = {  # of temporary credentials: the setting here, and redshift-connector's name of it
    "cluster_identifier": "cluster_identifier",
    "workgroup": "serverless_work_group",
    "account": "serverless_acct_id",
    "db_user": "db_user",
    "db_groups": "db_groups",
    "auto_create": "auto_create",
    "group_federation": "group_federation",
    "region": "region",
    "profile": "profile",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
}
SECRETS = {"password", "access_key_id", "secret_access_key", "session_token"}
SWITCHES = {"ssl", "iam", "auto_create", "group_federation"}
SSL_MODES = ("verify-full", "verify-ca")
_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,126}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a RedshiftWarehouse, checked.

    iam_role: what COPY reads S3 with: an ARN, several with commas (role chaining), or "default". schema: of all tables. connect_timeout,
    statement_timeout: seconds. attempts: how often a transaction is tried, of which others or an outage make an end. verify: "sha256" reads every
    file whole before it is loaded, "footer" only its end. password and access are as in the table: secrets are still references.
    """

    database: str
    iam_role: str
    host: str | None = None
    port: int = 5439
    user: str | None = None
    password: Any = None
    schema: str = "public"
    ssl: bool = True
    sslmode: str = "verify-full"
    connect_timeout: float = 30.0
    statement_timeout: float = 3600.0
    attempts: int = 6
    verify: Literal["sha256", "footer"] = "sha256"
    iam: bool = False
    access: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, table: dict[str, Any]) -> Settings:
        """The settings that a deployment's table says. Raises ConfigurationError, naming the setting; touches no network."""
        for name in table:
            if name not in OWN | set(IAM):
                near = difflib.get_close_matches(name, sorted(OWN | set(IAM)), 3)
                raise ConfigurationError(
                    f"redshift.{name} is not a setting",
                    hint=f"{'did you mean' if near else 'there are'} {', '.join(near or sorted(OWN | set(IAM)))}",
                )
        checked = {name: _checked(name, value) for name, value in table.items()}
        for name, example in (("database", "analytics"), ("iam_role", "arn:aws:iam::123456789012:role/penstock-copy")):
            if name not in checked:
                raise ConfigurationError(f"redshift.{name} is missing", hint=f'write {name} = "{example}"')
        access = {name: checked.pop(name) for name in list(checked) if name in IAM}
        found = cls(**checked, access=access)
        found._check_access()
        return found

    def _check_access(self) -> None:
        """How to get in is said, once, and whole."""
        if not self.iam:
            for name in sorted(self.access):
                raise ConfigurationError(f"redshift.{name} is of temporary credentials", hint="write iam = true, or leave it out")
            for name, value in (("host", self.host), ("user", self.user)):
                if value is None:
                    raise ConfigurationError(
                        f"redshift.{name} is missing",
                        hint=f'write {name} = "...", and password = {{env = "NAME"}}; or iam = true for temporary credentials',
                    )
            return
        if not self.ssl:
            raise ConfigurationError(
                "redshift.ssl = false with iam = true", hint="temporary credentials travel over TLS alone: leave ssl out"
            )
        for name, value in (("user", self.user), ("password", self.password)):
            if value is not None:
                raise ConfigurationError(
                    f"redshift.{name} with iam = true", hint="temporary credentials bring their own: leave it out, or iam"
                )
        cluster, workgroup = "cluster_identifier" in self.access, "workgroup" in self.access
        if cluster == workgroup:
            raise ConfigurationError(
                "redshift: iam = true needs cluster_identifier or workgroup, and not both",
                hint="cluster_identifier names a provisioned cluster, workgroup a serverless one",
            )
        if cluster and "db_user" not in self.access and not self.access.get("group_federation"):
            raise ConfigurationError("redshift.db_user is missing", hint='write db_user = "..." for a cluster, or group_federation = true')
        if "access_key_id" in self.access and "secret_access_key" not in self.access:
            raise ConfigurationError("redshift.secret_access_key is missing", hint='write secret_access_key = {env = "NAME"}')

    def resolved(self) -> dict[str, Any]:
        """What redshift-connector is to be given, secrets included. Raises ConfigurationError for a secret that is not there."""
        given: dict[str, Any] = {"database": self.database, "port": self.port, "ssl": self.ssl, "iam": self.iam}
        given |= {name: value for name, value in (("host", self.host), ("user", self.user)) if value is not None}
        given["password"] = resolve(self.password) or ""
        if self.ssl:
            given["sslmode"] = self.sslmode
        given |= {IAM[name]: resolve(value) for name, value in self.access.items()}
        if "workgroup" in self.access:
            given["is_serverless"] = True
        return given

    @property
    def place(self) -> str:
        """What it is called in messages."""
        if self.host is not None:
            return f"Redshift at {self.host}:{self.port}"
        return f"Redshift {self.access.get('cluster_identifier', self.access.get('workgroup'))}"


def _checked(name: str, value: Any) -> Any:
    """A setting that has the right type and can be used."""
    if name in SWITCHES:
        if not isinstance(value, bool):
            raise _wrong(name, value, "is not true or false", f"write {name} = true or {name} = false")
    elif name in ("port", "attempts"):
        most = 65535 if name == "port" else 100
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise _wrong(name, value, f"is not a number from 1 to {most}", f"write {name} = {5439 if name == 'port' else 6}")
    elif name in ("connect_timeout", "statement_timeout"):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 86_400:
            raise _wrong(name, value, "is not a time", f"write seconds, such as {30 if name == 'connect_timeout' else 3600}")
        return float(value)
    elif name == "db_groups":
        if not isinstance(value, list) or not all(isinstance(group, str) and group for group in value):
            raise _wrong(name, value, "is not a list of groups", 'write db_groups = ["loaders"]')
    elif name in SECRETS:
        if not is_reference(value):
            raise ConfigurationError(
                f"redshift.{name} is written out",
                hint=f'write {name} = {{env = "NAME"}} or {{file = "PATH"}}: Storm shows settings to anyone',
            )
    elif not isinstance(value, str) or not value:
        raise _wrong(name, value, "is not a text", f'write {name} = "..."')
    elif name == "schema" and not _SCHEMA.fullmatch(value):
        raise _wrong(name, value, "is not a usable name", "use lower-case letters, digits and _, no digit first")
    elif name == "iam_role" and value != "default" and not all(_ROLE.fullmatch(arn) for arn in value.split(",")):
        raise _wrong(
            name, value, "is not a role", 'write iam_role = "arn:aws:iam::123456789012:role/NAME", or "default" for the cluster\'s own'
        )
    elif name == "sslmode" and value not in SSL_MODES:
        raise _wrong(name, value, "is not known", f"use one of {', '.join(SSL_MODES)}")
    elif name == "verify" and value not in ("sha256", "footer"):
        raise _wrong(name, value, "is not known", 'write "sha256" to read every file before it is loaded, or "footer" for its end alone')
    return value


def _wrong(name: str, value: Any, problem: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"redshift.{name} = {value!r} {problem}", hint=hint)
