"""S3, as moto's server: what is in it is in memory, and gone when it ends."""

from __future__ import annotations

import importlib.util
import sys

from penstock.errors import UsageError
from penstock.stack import probe
from penstock.stack.ports import HOST
from penstock.stack.server import Program, Server, Told


class S3(Server):
    """moto's server. It takes any access key."""

    name = "s3"
    ports = ("s3",)
    processes = ("s3",)

    def require(self) -> None:
        """moto, with its server."""
        if any(importlib.util.find_spec(name) is None for name in ("moto", "flask")):
            raise UsageError("moto's server is not installed: it stands in for S3", hint="pip install 'penstock[dev]'")

    def prepare(self, told: Told) -> None:
        """A folder to run in."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def programs(self) -> list[Program]:
        """The server."""
        port = self.site.ports["s3"]
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
        return [Program("s3", lambda: command, lambda timeout: probe.web(port, "/moto-api/data.json", timeout), ("s3",), self.folder)]

    def exports(self) -> dict[str, str]:
        """The variables that boto3 and the AWS tools read."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://{self.site.address('s3')}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
