"""Cython only: nothing of this module is meant for Python."""
