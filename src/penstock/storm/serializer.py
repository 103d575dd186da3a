"""Making `serializer.jar`: the compiled Java half of the msgpack serializer with the library that it uses.

The jar lies beside this file, in the repository and in the wheel, so that making a topology jar needs neither a JDK nor Maven. Whoever changes `src/jvm`
makes it anew with `python -m penstock.storm.serializer`; a test fails if it is not what the sources give.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from penstock.errors import ConfigurationError, CorruptionError, UnavailableError
from penstock.storm.jar import CLASSES, entry

POM = Path(__file__).with_name("pom.xml")
CHECKSUMS = Path(__file__).with_name("pom.sha256")
SOURCES = Path(__file__).parents[2] / "jvm"  # in a checkout; a wheel has none
RELEASE = "11"  # the oldest Java that Storm 2.8 runs on
_NOTICE = b"""Penstock's multilang serializer for Apache Storm.

Contains the classes of msgpack-core 0.9.8 (https://msgpack.org), Copyright the msgpack-java authors, under the Apache License, Version 2.0.
"""


def resolve(into: Path) -> list[Path]:
    """Have Maven copy the jars of `pom.xml` into a folder, and return them.

    Raises ConfigurationError without Maven, UnavailableError if it gives up, CorruptionError if a jar is not the one that was pinned.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationError("there is no mvn on the PATH", hint="apt-get install maven")
    into.mkdir(parents=True, exist_ok=True)
    _run(
        [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={into}"], "Maven could not resolve pom.xml"
    )
    for line in CHECKSUMS.read_text().splitlines():
        wanted, name = line.split()
        found = hashlib.sha256((into / name).read_bytes()).hexdigest()
        if found != wanted:
            raise CorruptionError(
                f"{into / name} has the SHA-256 {found}, not {wanted}", hint="remove it from Maven's local repository and try again"
            )
    return sorted(into.glob("*.jar"))


def javac() -> str:
    """The Java compiler: of JAVA_HOME, or on the PATH. Raises ConfigurationError."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("javac", path=os.path.join(home, "bin")) if home else None
    found = found or shutil.which("javac")
    if found is None:
        raise ConfigurationError(
            "there is no javac in JAVA_HOME or on the PATH", hint="apt-get install openjdk-17-jdk-headless, or set JAVA_HOME to a JDK"
        )
    return found


def compile_java(sources: Path, classpath: list[Path], out: Path) -> Path:
    """Compile every Java file below a folder, warnings being errors, into the folder `out`; returns it. Raises ConfigurationError."""
    files = [str(path) for path in sorted(sources.rglob("*.java"))]
    if not files:
        raise ConfigurationError(
            f"there are no Java sources in {sources}", hint="run it in a checkout; what is installed has the compiled ones alone"
        )
    options = ["--release", RELEASE, "-encoding", "UTF-8", "-proc:none", "-Xlint:all", "-Werror"]
    _run([javac(), *options, "-d", str(out), "-cp", os.pathsep.join(map(str, classpath)), *files], f"{sources} does not compile")
    return out


def build(out: Path = CLASSES) -> Path:
    """Write `serializer.jar`: the compiled classes of `src/jvm` and msgpack-core's, in a fixed order and without times. Returns it."""
    with tempfile.TemporaryDirectory(prefix="penstock-serializer-") as scratch:
        jars = resolve(Path(scratch, "jars"))
        compiled = compile_java(SOURCES, jars, Path(scratch, "classes"))
        contents = {path.relative_to(compiled).as_posix(): path.read_bytes() for path in compiled.rglob("*.class")}
        for jar in jars:
            if jar.name.startswith("msgpack-core-"):
                with zipfile.ZipFile(jar) as library:
                    contents.update((name, library.read(name)) for name in library.namelist() if name.endswith(".class"))
    contents["META-INF/NOTICE"] = _NOTICE
    contents["META-INF/LICENSE"] = (SOURCES.parents[1] / "LICENSE").read_bytes()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name in sorted(contents):
            made.writestr(entry(name), contents[name])
    return out


def _run(command: list[str], failed: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        said = (ended.stderr + ended.stdout).strip()[-2000:]
        kind = UnavailableError if "mvn" in Path(command[0]).name else ConfigurationError
        raise kind(f"{failed}: {said}", hint="it says why above")


if __name__ == "__main__":
    print(build())
