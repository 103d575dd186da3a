"""A stand-in for Redshift: PostgreSQL behind a relay that speaks what Redshift's driver expects, and does what Redshift does and PostgreSQL does not.

See docs/redshift-standin.md for what it does, and for what it does not prove.
"""
