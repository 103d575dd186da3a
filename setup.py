"""The package map and the compiled kernels. Metadata is in pyproject.toml.

`spouts/`, `bolts/` and `topologies/` stand at the top, where streamparse users look for them, and are imported as `penstock.spouts` and so on.

Environment: PENSTOCK_PURE=1 builds no extension (the plain-Python reference runs, slowly and loudly); PENSTOCK_ANNOTATE=1 writes Cython's
annotated HTML beside the sources; PENSTOCK_DEBUG=1 switches bounds checks on and optimisation off.
"""

import glob
import os

from setuptools import Extension, find_packages, setup

CORES = os.cpu_count() or 1
DEBUG = bool(os.environ.get("PENSTOCK_DEBUG"))


def extensions():
    if os.environ.get("PENSTOCK_PURE"):
        return []
    from Cython.Build import cythonize

    sources = sorted(glob.glob("src/penstock/kernels/*.pyx"))
    modules = [
        Extension(
            "penstock.kernels." + os.path.basename(source)[:-4],
            [source],
            extra_compile_args=["-O0", "-g", "-Wall"]
            if DEBUG
            else ["-O3", "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-parameter"],
            optional=True,  # without a compiler the install goes on, and `penstock.kernels.backend` says "reference"
        )
        for source in sources
    ]
    directives = {"language_level": 3, "boundscheck": DEBUG, "wraparound": False, "cdivision": True, "embedsignature": True}
    return cythonize(
        modules, compiler_directives=directives, annotate=bool(os.environ.get("PENSTOCK_ANNOTATE")), include_path=["src"], nthreads=CORES
    )


TOP = ("spouts", "bolts", "topologies")
setup(
    packages=find_packages("src") + [f"penstock.{name}" for name in TOP],
    package_dir={"": "src", **{f"penstock.{name}": name for name in TOP}},
    package_data={
        "penstock.kernels": ["*.pxd", "*.pyi"],
        "penstock.reports": ["*.sql"],
        "penstock.scaffold": ["new-project/**/*.tmpl", "new-project/*.tmpl"],
        "penstock.serve.dashboard": ["static/*"],
        "penstock.stack": ["artifacts/*"],
        "penstock.stack.redshift": ["catalog.sql"],
        "penstock.storm": ["serializer.jar", "pom.xml", "pom.sha256"],
        "penstock.table.hbase": ["hbase.thrift"],
    },
    exclude_package_data={"penstock.kernels": ["*.c"]},
    ext_modules=extensions(),
    options={"build_ext": {"parallel": CORES}},
)
