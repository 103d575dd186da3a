"""What a Storm worker starts for each task: one component, speaking msgpack multilang over its standard streams.

The file imports nothing of Penstock and nothing outside the standard library, for it is also the one that a packed environment starts with, where nothing
can be imported before the path is set. `penstock.storm.environment.command` makes the command line that calls it.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from pathlib import Path

SITE = "site-packages"  # beside this file, in a packed environment
MANIFEST = "penstock-environment.json"  # which Python it was packed for


def described() -> dict[str, str]:
    """Of this interpreter, what decides whether compiled packages load in it."""
    return {
        "implementation": platform.python_implementation(),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "system": platform.system(),
        "machine": platform.machine(),
    }


def unpack(folder: Path) -> None:
    """Put the packages of the packed environment in `folder` first on the path. Ends the process if they are for another Python than this one."""
    wanted, here = json.loads((folder / MANIFEST).read_text())["for"], described()
    if wanted != here:
        sys.exit(
            f"penstock: this environment was packed for {' '.join(wanted.values())}, and {sys.executable} is {' '.join(here.values())}\n"
            "  pack it with the workers' Python (penstock storm jar --python), or set [NAME.storm] python to one that fits"
        )
    sys.path.insert(0, str(folder / SITE))


def main(component: str) -> None:
    """Run a component ("penstock.spouts.kafka.KafkaSpout", "shop_lib.alerts.Alerts") until Storm closes the pipe.

    The project's own modules lie in the current folder, the extracted `resources/` of the jar, and are looked for there first, as where the topology was
    declared. What prints goes to standard error, which Storm logs: one stray byte between two messages would end the worker.
    """
    project = os.getcwd()
    sys.path[:] = [project, *(entry for entry in sys.path if entry not in ("", project))]
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    module, _, name = component.rpartition(".")
    getattr(importlib.import_module(module), name)(serializer="msgpack", output_stream=messages).run()


if __name__ == "__main__":
    print(json.dumps(described()))  # for who packs: what this file's interpreter is
elif (Path(__file__).parent / MANIFEST).is_file():
    unpack(Path(__file__).parent.resolve())
