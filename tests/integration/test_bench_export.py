"""The benchmark of exports runs on servers that it starts itself, and both sides that load all rows load the same. No time is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for needed in ("datasketches", "msgspec", "orjson", "pandas", "polars"):
    pytest.importorskip(needed, reason="the benchmarks' baselines: pip install 'penstock[bench]'")


def test_export_redshift_runs_agrees_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as open_to_postgres:
        Path(open_to_postgres).chmod(0o711)
        run_in(Path(open_to_postgres), tmp_path)


def run_in(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "export-redshift", "--quick", "--events", "2000"]
    command += ["--directory", str(folder), "--output", str(tmp_path / "results.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    (result,) = json.loads((tmp_path / "results.json").read_text())
    assert result["name"] == "export-redshift" and result["events"] == 2000
    assert result["ratio"] > 0 and result["of_copy"] > 0 and result["of_insert"] > 0
    assert "of the rate of COPY alone" in done.stdout and "write_dataframe" in done.stdout
