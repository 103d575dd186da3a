"""python -m penstock: the command line, where the console script is not on the path."""

from penstock.cli import main

main()
