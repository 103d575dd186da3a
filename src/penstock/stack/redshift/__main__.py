"""The stand-in as a process: `python -m penstock.stack.redshift --port 5439 --postgres 127.0.0.1:5432 --s3 http://127.0.0.1:9000`.

Keys of S3 are boto3's to find: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, for instance.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading

from penstock.stack.ports import HOST
from penstock.stack.redshift.faults import ControlServer
from penstock.stack.redshift.objects import Place
from penstock.stack.redshift.relay import Relay, Settings

PASSWORD = "PENSTOCK_STANDIN_PASSWORD"


def main() -> None:
    """Listen until SIGTERM or Ctrl-C."""
    asked = argparse.ArgumentParser(prog="python -m penstock.stack.redshift", description="A stand-in for Redshift, on PostgreSQL.")
    asked.add_argument("--port", type=int, default=0, help="where to listen; any free port if not told")
    asked.add_argument("--control", type=int, help="where to take orders for faults; nowhere if not told")
    asked.add_argument("--postgres", default=f"{HOST}:5432", metavar="HOST:PORT", help="the PostgreSQL behind it")
    asked.add_argument("--user", default="penstock", help="its user there, whoever comes")
    asked.add_argument("--s3", metavar="URL", help="the S3 that COPY reads from; Amazon's own if not told")
    asked.add_argument("--region", default="us-east-1")
    asked.epilog = f"If ${PASSWORD} is set, clients have to know that password."
    told = asked.parse_args()
    host, _, port = told.postgres.rpartition(":")
    settings = Settings(
        (host, int(port)), port=told.port, user=told.user, password=os.environ.get(PASSWORD) or None, s3=Place(told.s3, told.region)
    )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    relay = Relay(settings)
    control = ControlServer(relay.faults, told.control) if told.control is not None else None
    print(f"listening on {HOST}:{relay.port}", flush=True)
    ended.wait()
    if control:
        control.close()
    relay.close()


if __name__ == "__main__":
    main()
