"""S3, as moto's server: what is in it is in memory, and gone when it ends."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from penstock.errors import UsageError
from penstock.stack import probe
from penstock.stack.ports import HOST
from penstock.stack.server import Program, Server, Told

BUCKET, REGION = "penstock", "us-east-1"
_KEYS = {"access_key": "testing", "secret_key": "testing"}  # moto takes any


class S3(Server):
    """moto's server, with a bucket for the deployment `stack`."""

    name = "s3"
    ports = ("s3",)
    processes = ("s3",)

    def require(self) -> None:
        """moto, with its server."""
        if any(importlib.util.find_spec(name) is None for name in ("moto", "flask")):
            raise UsageError("moto's server is not installed: it stands in for S3", hint="pip install 'penstock[dev]'")

    def prepare(self, told: Told) -> None:
        """A folder to run in, with the keys in files: a deployment's secrets are there by reference."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, key in _KEYS.items():
            (self.folder / name).write_text(key + "\n")

    def programs(self) -> list[Program]:
        """The server. It is ready when it has the bucket, which it forgets with all else when it ends."""
        port = self.site.ports["s3"]
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
        return [Program("s3", lambda: command, lambda timeout: probe.bucket(port, BUCKET, timeout), ("s3",), self.folder)]

    def settings(self) -> dict[str, Any]:
        """The table `s3` of the deployment."""
        return {
            "bucket": BUCKET,
            "endpoint": f"http://{self.site.address('s3')}",
            "region": REGION,
            **{name: {"file": str(self.folder / name)} for name in _KEYS},
        }

    def exports(self) -> dict[str, str]:
        """The variables that boto3 and the AWS tools read."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://{self.site.address('s3')}",
            "AWS_ACCESS_KEY_ID": _KEYS["access_key"],
            "AWS_SECRET_ACCESS_KEY": _KEYS["secret_key"],
            "AWS_DEFAULT_REGION": REGION,
        }
