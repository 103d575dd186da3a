"""The servers' jars: resolved with Maven from the poms in `artifacts/`, kept in a cache, and held to the checksums beside the poms.

After a change to a pom: `python -m penstock.stack.artifacts NAME` resolves it anew and writes its checksums. Look at the difference.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Iterator, Mapping

from penstock.errors import CorruptionError, PenstockError, UnavailableError
from penstock.stack import tools

HERE = Path(__file__).parent / "artifacts"
CACHE = "PENSTOCK_STACK_CACHE"
# Which folders of jars a server has, and the pom and checksum list of each. Storm's workers get a class path of their own.
LIBRARIES: Mapping[str, Mapping[str, str]] = {
    "kafka": {"lib": "kafka"},
    "hbase": {"lib": "hbase"},
    "storm": {"lib": "storm", "lib-worker": "storm-worker"},
}
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"  # pinned, so that all machines resolve alike
_READ = 1 << 20


def version(server: str) -> str:
    """The version of a server, which is that of its pom."""
    text = (HERE / f"{server}.pom.xml").read_text()
    found = re.search(r"<version>([^<$]+)</version>\s*<packaging>", text)
    if found is None:
        raise PenstockError(f"{server}.pom.xml has no version before its packaging")
    return found[1]


def cache() -> Path:
    """The folder of all servers' jars: $PENSTOCK_STACK_CACHE, else below the user's cache."""
    if told := os.environ.get(CACHE):
        return Path(told).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "stack"


def home(server: str) -> Path:
    """The folder of a server's jars, there or not."""
    return cache() / f"{server}-{version(server)}"


def resolve(server: str, progress: Callable[[str], None]) -> Path:
    """The folder of a server's jars, all of them there and verified. Maven is asked only for what the cache does not have.

    Raises UsageError (no Maven), UnavailableError (Maven failed), CorruptionError (a jar is not the one that it should be).
    """
    folder = home(server)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / ".lock"):
        for library, artifact in LIBRARIES[server].items():
            if not (folder / library).is_dir():
                progress(f"Maven resolves {len(checksums(artifact))} jars")
                with tempfile.TemporaryDirectory(dir=folder, prefix=".resolving-") as temporary:
                    fresh = Path(temporary) / library
                    copy(artifact, fresh)
                    verify(artifact, fresh)
                    fresh.rename(folder / library)
            else:
                verify(artifact, folder / library)
    return folder


def copy(artifact: str, into: Path) -> None:
    """Have Maven copy what a pom depends on into a folder. Raises UsageError (no Maven) or UnavailableError."""
    command = [str(tools.maven()), "-B", "-q", "-f", str(HERE / f"{artifact}.pom.xml"), _PLUGIN, f"-DoutputDirectory={into}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0 or not into.is_dir():
        said = "\n".join(line for line in done.stdout.splitlines() if "ERROR" in line) or done.stdout
        raise UnavailableError(
            f"Maven could not resolve the jars of {artifact} (exit code {done.returncode})",
            hint="\n".join(said.strip().splitlines()[:8]) or "is there a network?",
        )


def verify(artifact: str, folder: Path) -> None:
    """That a folder holds exactly the jars of a checksum list. Raises CorruptionError, naming those that are wrong."""
    expected, found = checksums(artifact), {path.name: path for path in sorted(folder.iterdir())}
    wrong = [f"{name}: missing" for name in expected if name not in found]
    wrong += [f"{name}: not one of its jars" for name in found if name not in expected]
    wrong += [
        f"{name}: SHA-256 is not the expected one" for name, path in found.items() if name in expected and digest(path) != expected[name]
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CorruptionError(
            f"the jars of {artifact} in {folder} are not those that Penstock was tested with: {'; '.join(wrong[:5])}{more}",
            hint=f"remove {folder}, and they are resolved anew; if that does not help, your Maven repository does not serve the originals",
        )


def checksums(artifact: str) -> dict[str, str]:
    """SHA-256 in hexadecimal by the name of a jar, as the package ships them."""
    lines = (HERE / f"{artifact}.sha256").read_text().splitlines()
    return {name: expected for expected, name in (line.split() for line in lines)}


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ):
            found.update(piece)
    return found.hexdigest()


def write_checksums(artifact: str) -> int:
    """Resolve a pom anew and write its checksum list. How many jars there are."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "lib"
        copy(artifact, folder)
        jars = sorted(folder.iterdir())
        (HERE / f"{artifact}.sha256").write_text("".join(f"{digest(jar)}  {jar.name}\n" for jar in jars))
    return len(jars)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Write the checksum lists of the poms that are named, or of all."""
    known = [artifact for libraries in LIBRARIES.values() for artifact in libraries.values()]
    for artifact in sys.argv[1:] or known:
        print(f"{artifact}: {write_checksums(artifact)} jars")


if __name__ == "__main__":
    main()
