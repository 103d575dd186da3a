"""What a deployment says about S3: the table `s3` of its settings, checked."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from penstock.errors import ConfigurationError
from penstock.secrets import is_reference

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PREFIX = re.compile(r"[A-Za-z0-9._=/-]*")
ADDRESSING = ("path", "virtual")
ENCRYPTION = ("AES256", "aws:kms", "aws:kms:dsse")
SECRETS = ("access_key", "secret_key", "session_token")


@dataclass(frozen=True)
class S3Settings:
    """Which bucket it is and how it is reached.

    prefix: of all keys. endpoint: the URL of a store that is not AWS's. region: else as boto3 finds it. addressing: "path" (endpoint/bucket/key) or
    "virtual" (bucket.endpoint/key); by default the first with an endpoint of one's own. encryption: "AES256", "aws:kms" or "aws:kms:dsse", with
    `kms_key`; by default as the bucket is set up. access_key, secret_key, session_token: references; by default boto3's own chain, with `profile`.
    timeout: seconds for a connection to answer. attempts: how often a request is made before the store counts as not answering. ca_file: of
    certificates that a store's TLS is held to.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    access_key: Any = None
    secret_key: Any = None
    session_token: Any = None
    profile: str | None = None
    timeout: float = 20.0
    attempts: int = 4
    ca_file: str | None = None

    @classmethod
    def read(cls, settings: dict[str, Any]) -> S3Settings:
        """From the table `s3` of a deployment. Touches no network. Raises ConfigurationError, naming the setting."""
        known = {field.name for field in fields(cls)}
        for key in sorted(set(settings) - known):
            near = difflib.get_close_matches(key, known, 1)
            raise ConfigurationError(
                f"deployment, [s3]: unknown setting {key}" + (f" (did you mean {near[0]}?)" if near else ""),
                hint=f"settings are {', '.join(sorted(known))}",
            )
        if "bucket" not in settings:
            raise ConfigurationError("deployment, [s3]: it names no bucket", hint='write bucket = "NAME"')
        read = cls(**settings)
        wrong = read._mistake()
        if wrong:
            raise ConfigurationError(f"deployment, [s3]: {wrong}")
        return read

    @property
    def root(self) -> str:
        """What every key begins with: "" or "folder/"."""
        prefix = self.prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    @property
    def by_path(self) -> bool:
        """Whether the bucket is part of the path, not of the host."""
        return self.addressing == "path" if self.addressing else self.endpoint is not None

    def _mistake(self) -> str | None:
        for name in ("bucket", "prefix", "endpoint", "region", "addressing", "encryption", "kms_key", "profile", "ca_file"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name not in ("bucket", "prefix")):
                return f"{name} = {value!r} is not a text"
        if not _BUCKET.fullmatch(self.bucket):
            return f"bucket = {self.bucket!r} is not the name of a bucket: write it without s3:// and without a path; prefix is for that"
        if not _PREFIX.fullmatch(self.prefix) or any(part in ("", ".", "..") for part in self.root.split("/")[:-1]):
            return f"prefix = {self.prefix!r} cannot begin a key: use letters, digits, - _ . = and /"
        if self.endpoint is not None:
            url = urlsplit(self.endpoint)
            if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query:
                return f"endpoint = {self.endpoint!r} is not a URL such as https://minio.example.com:9000"
        for name, choices in (("addressing", ADDRESSING), ("encryption", ENCRYPTION)):
            if getattr(self, name) not in (None, *choices):
                return f"{name} = {getattr(self, name)!r} is none of {', '.join(choices)}"
        if self.kms_key is not None and not (self.encryption or "").startswith("aws:kms"):
            return 'kms_key needs encryption = "aws:kms"'
        return self._wrong_secret() or self._wrong_number()

    def _wrong_secret(self) -> str | None:
        for name in SECRETS:
            value = getattr(self, name)
            if value is not None and not is_reference(value):
                return f'{name} is written out: write {{env = "NAME"}} or {{file = "PATH"}}, or leave it to boto3\'s own configuration'
        if (self.access_key is None) != (self.secret_key is None):
            return "access_key and secret_key come together"
        if self.session_token is not None and self.access_key is None:
            return "session_token needs access_key and secret_key"
        if self.profile is not None and self.access_key is not None:
            return "profile and access_key both say whose the credentials are: keep one"
        return None

    def _wrong_number(self) -> str | None:
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, (int, float)) or not 0 < self.timeout <= 3600:
            return f"timeout = {self.timeout!r} is not a number of seconds up to 3600"
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or not 1 <= self.attempts <= 20:
            return f"attempts = {self.attempts!r} is not a number from 1 to 20"
        return None
