"""Storm: the topology jar, what a worker starts, submitting, and control of a cluster through Nimbus.

jar: the jar that `penstock submit` uploads and `sparse submit -j` takes. environment: a project and its Python environment, packed so that a worker machine
needs nothing but the same Python. launch: what a worker's process runs, in a packed environment or in a virtualenv.
"""
