"""Packing a project and the Python environment that it runs in, so that a worker machine needs nothing but the same Python.

`pip install --target` does the packing: with the versions that are installed here, into a plain folder that the jar carries and Storm's supervisor extracts
before a worker starts. Nothing is unpacked at run time, compiled packages load as they are, and no file needs an executable bit, which the extraction drops.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Iterator
from urllib.parse import unquote, urlsplit

from penstock.errors import ConfigurationError, UnavailableError
from penstock.storm import launch

LAUNCHER = "penstock_run"  # the module that starts a packed component; a copy of penstock/storm/launch.py

# Clients of the real stores: optional to an installation, packed if this one has them.
CLIENTS = ("boto3", "happybase", "kafka-python", "prometheus-client")

# Of the hundreds of services that botocore describes, 28 MB, those that it needs for S3 and for credentials. All are packed for a project that names boto3 itself.
AWS_SERVICES = frozenset({"s3", "signin", "sso", "sso-oidc", "sts"})

# What only a command line needs: `sparse` (which declares the lot as its requirements), `penstock` itself, the embedded warehouse, and builds. No component
# imports them, which the test that starts each one in a bare Python shows. One that another package requires, or the project, is packed all the same.
NOT_FOR_WORKERS = frozenset(
    """
    bcrypt certifi cffi charset-normalizer cryptography cython dill duckdb fabric39 idna jinja2 markdown-it-py markupsafe mdurl
    multiprocess paramiko pathos pox ppft pycparser pygments pynacl requests rich ruamel-yaml setuptools texttable urllib3
    """.split()
)

WITH_COMMANDS = ("penstock", "streamparse")

# Of packages that are packed, what is for those who compile against them or test them. Their libraries stay, all of them: which needs which is theirs to know.
NOT_FOR_RUNNING = (
    "pyarrow/include/*",
    "pyarrow/src/*",
    "pyarrow/tests/*",
    "numpy/*/tests/*",
    "thriftpy2/*.c",
    "penstock/kernels/*.c",
    "bin/*",
    "test/*",
    "*.pyx",
    "*.pxd",
    "*.a",
    "*.dist-info/direct_url.json",
)

# Of a project, what no worker runs.
NOT_CODE = frozenset({"_build", "_resources", "build", "dist", "node_modules", "tests", "virtualenvs", "__pycache__"})


def command(python: str, packed: bool, component_class: str) -> tuple[str, str]:
    """What Storm starts a component with: (execution_command, script) of its ShellComponent.

    python: the interpreter on the workers: of the virtualenv that has Penstock, or, `packed`, any of the version that was packed. component_class: dotted.
    Storm passes the two as one argument each, in the extracted `resources/` of the jar, and so the script is a `-c` that is glued to its program; a file of
    its own for every component would do the same. A packed jar holds what `pack` made; else it needs nothing but the project's own code.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", component_class):
        raise ConfigurationError(
            f"{component_class!r} is not the dotted name of a class", hint="a component is a class of a module: module.Class"
        )
    if packed:
        start = f"from {LAUNCHER} import main"
    else:  # what is installed, whatever a jar has below resources/: `sparse` copies a project's src/ there
        start = f"import sys; sys.path[:] = filter(None, sys.path); from {launch.__name__} import main"
    return python, f"-c{start}; main({component_class!r})"


def copy_project(project: Path, out: Path) -> list[str]:
    """Copy the project's own code (modules, packages and what lies in them, `topologies/`, what streamparse calls `src/`) into a folder. Returns what was copied.

    Files of Penstock itself are not copied: they are installed, and a second copy would hide the compiled one. Raises ConfigurationError.
    """
    if not project.is_dir():
        raise ConfigurationError(f"there is no folder {project}", hint="name the folder that holds the project's topologies/")
    copied: list[str] = []
    if (project / "src" / "penstock").is_dir():
        return copied
    out.mkdir(parents=True, exist_ok=True)
    for top in (project, project / "src"):
        for entry in sorted(top.iterdir()) if top.is_dir() else ():
            if entry.name in NOT_CODE or entry.name.startswith(".") or entry.name == "src":
                continue
            if entry.is_dir() and _holds_code(entry):
                shutil.copytree(entry, out / entry.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
            elif entry.is_file() and (entry.suffix == ".py" or top.name == "src"):
                shutil.copyfile(entry, out / entry.name)
            else:
                continue
            copied.append(entry.name)
    return copied


def _holds_code(folder: Path) -> bool:
    return folder.name.isidentifier() and not (folder / "pyvenv.cfg").exists() and any(folder.glob("*.py"))


def pack(project: Path, out: Path, *, python: str | None = None) -> Path:
    """Make the folder that `penstock.storm.jar.build` packs as `environment`: the project's code, the launcher, and `site-packages`.

    project: its folder; what its `requirements.txt` and streamparse's `virtualenvs/*.txt` name is packed too. out: the folder to make; one that is there
    is replaced if `pack` made it. python: the interpreter whose environment is packed, of the workers' minor version and platform (default: this one).
    Needs pip, and the package index for what pip has not cached. Raises ConfigurationError, or UnavailableError if pip gives up.
    """
    source = _Source(python or sys.executable)
    _make_empty(out)
    copy_project(project, out)
    shutil.copyfile(launch.__file__, out / f"{LAUNCHER}.py")
    requirements = [path for path in (project / "requirements.txt", *sorted((project / "virtualenvs").glob("*.txt"))) if path.is_file()]
    with tempfile.TemporaryDirectory(prefix="penstock-pack-") as scratch:
        constraints, report = Path(scratch, "constraints.txt"), Path(scratch, "report.json")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(source.installed.items()) if name != "penstock"))
        wanted = [source.penstock(Path(scratch)), *(name for name in CLIENTS if name in source.installed)]
        wanted += [argument for path in requirements for argument in ("-r", str(path))]
        source.pip("install", "--target", str(out / launch.SITE), "--no-compile", "--report", str(report), "-c", str(constraints), *wanted)
        named = {_normal(one["metadata"]["name"]) for one in json.loads(report.read_text())["install"] if one["requested"]}
    _prune(out / launch.SITE, _unneeded(out / launch.SITE, NOT_FOR_WORKERS - named))
    if not any(re.search(r"^\s*(aio)?boto", path.read_text(), re.MULTILINE) for path in requirements):
        _prune_services(out / launch.SITE / "botocore" / "data")
    manifest = {
        "for": source.described,
        "packages": {_normal(one.metadata["Name"]): one.version for one in _distributions(out / launch.SITE)},
    }
    (out / launch.MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return out


def _make_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / launch.MANIFEST).exists())):
        raise ConfigurationError(f"{out} is there already, and no environment was packed in it", hint="name a folder that is not there")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


class _Source:
    """The environment that is packed, seen through its interpreter."""

    def __init__(self, python: str) -> None:
        self.python = python
        try:
            self.described: dict[str, str] = json.loads(self._run([python, launch.__file__], "tell its version"))
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no Python {python}", hint="name the interpreter whose environment is to be packed"
            ) from None
        listed = json.loads(self.pip("list", "--format=json"))
        self.installed = {_normal(one["name"]): one["version"] for one in listed}
        if "penstock" not in self.installed:
            raise ConfigurationError(f"{python} has no Penstock", hint=f"{python} -m pip install penstock")

    def penstock(self, scratch: Path) -> str:
        """What pip installs Penstock from: a wheel made of its sources if it was installed from a folder, else the version that is installed."""
        script = "from importlib.metadata import distribution; print(distribution('penstock').read_text('direct_url.json') or '{}')"
        origin = json.loads(self._run([self.python, "-c", script], "tell where Penstock was installed from"))
        if not origin:
            return f"penstock=={self.installed['penstock']}"
        if urlsplit(origin["url"]).scheme != "file":
            return f"penstock @ {origin['url']}"
        folder = Path(unquote(urlsplit(origin["url"]).path))
        if not folder.exists():
            raise ConfigurationError(
                f"Penstock was installed from {folder}, which is gone", hint="install it anew, from an index or a folder that stays"
            )
        if folder.is_file():
            return str(folder)
        # streamparse requires setuptools and Cython, so that a build needs no environment of its own.
        self.pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(scratch), str(folder))
        return str(next(scratch.glob("penstock-*.whl")))

    def pip(self, *arguments: str) -> str:
        """Run pip; returns what it prints."""
        return self._run([self.python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments], f"pip {arguments[0]}")

    def _run(self, arguments: list[str], what: str) -> str:
        ended = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "PYTHONNOUSERSITE": "1"})
        if ended.returncode == 0:
            return ended.stdout
        said = ended.stderr.strip()
        if "No module named pip" in said:
            raise ConfigurationError(f"{self.python} has no pip", hint=f"{self.python} -m ensurepip")
        raise UnavailableError(
            f"{self.python}: {what} failed: {said[-2000:]}", hint="see what it says; an index that does not answer may do so later"
        )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _distributions(site: Path) -> Iterator[metadata.Distribution]:
    yield from metadata.distributions(path=[str(site)])


def _unneeded(site: Path, candidates: frozenset[str]) -> frozenset[str]:
    """Those of the candidates that nothing requires which stays, other than the two that have a command line."""
    requires = {
        _normal(one.metadata["Name"]): {
            _normal(re.split(r"[^\w.-]", wanted, maxsplit=1)[0]) for wanted in one.requires or () if "extra ==" not in wanted
        }
        for one in _distributions(site)
    }
    unneeded = candidates
    while True:
        needed = {other for name, others in requires.items() if name not in unneeded and name not in WITH_COMMANDS for other in others}
        if not needed & unneeded:
            return unneeded
        unneeded -= needed


def _prune(site: Path, drop: frozenset[str]) -> None:
    """Remove distributions by their own lists of files, and of the others what is not for running."""
    for one in _distributions(site):
        for file in (one.files or ()) if _normal(one.metadata["Name"]) in drop else ():
            Path(str(one.locate_file(file))).unlink(missing_ok=True)
    for path in sorted(site.rglob("*"), reverse=True):
        name = path.relative_to(site).as_posix()
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif any(fnmatch.fnmatch(name, pattern) for pattern in NOT_FOR_RUNNING):
            path.unlink()


def _prune_services(folder: Path) -> None:
    """Remove what botocore knows of services that Penstock does not use."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name not in AWS_SERVICES:
            shutil.rmtree(path)
