"""Benchmarks: Penstock against what one would write instead, in the same run, on one core. `python -m bench --help`; README.md says what each measures."""
