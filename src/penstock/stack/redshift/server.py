"""The stand-in as a server of the stack: the relay, before the stack's PostgreSQL and with the stack's S3."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from penstock.errors import UsageError
from penstock.stack import probe
from penstock.stack.ports import HOST
from penstock.stack.postgres import DATABASE, USER
from penstock.stack.server import Program, Server, Told

IAM_ROLE = "arn:aws:iam::123456789012:role/penstock"  # any will do: the stand-in looks at how it is written


class Redshift(Server):
    """The relay. It needs the stack's `postgres`; its COPY reads from the stack's `s3`, if there is one, else from Amazon's."""

    name = "redshift"
    ports = ("redshift", "redshift-control")
    processes = ("redshift",)

    def require(self) -> None:
        """boto3, which reads what COPY names; and the stack's PostgreSQL."""
        if importlib.util.find_spec("boto3") is None:
            raise UsageError("boto3 is not installed: the stand-in for Redshift reads S3 by it", hint="pip install 'penstock[dev]'")

    def prepare(self, told: Told) -> None:
        """A folder to run in. Raises UsageError without a PostgreSQL of the stack."""
        if "postgres" not in self.site.ports:
            raise UsageError(
                "redshift stands before the stack's PostgreSQL, and there is none", hint="penstock stack up postgres s3 redshift"
            )
        self.folder.mkdir(parents=True, exist_ok=True)

    def programs(self) -> list[Program]:
        """The relay."""
        port = self.site.ports["redshift"]
        return [
            Program(
                "redshift",
                self._command,
                lambda timeout: probe.postgres(port, USER, DATABASE, timeout),
                self.ports,
                self.folder,
                grace=5.0,
                environment=self._keys,
            )
        ]

    def _keys(self) -> dict[str, str]:
        """The keys of the stack's S3, which takes any."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return dict.fromkeys(names, "testing") if "s3" in self.site.ports else {}

    def _command(self) -> list[str]:
        ports = self.site.ports
        words = [sys.executable, "-m", "penstock.stack.redshift", "--port", str(ports["redshift"])]
        words += ["--control", str(ports["redshift-control"]), "--postgres", self.site.address("postgres")]
        if "s3" in ports:
            words += ["--s3", f"http://{self.site.address('s3')}"]
        return words

    def settings(self) -> dict[str, Any]:
        """`[stack.redshift]`. No password: only this machine reaches it, and it asks for none."""
        return {"host": HOST, "port": self.site.ports["redshift"], "database": DATABASE, "user": USER, "iam_role": IAM_ROLE, "ssl": False}
