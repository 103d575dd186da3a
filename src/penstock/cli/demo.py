"""`penstock demo`."""
import click

@click.command("demo")
def demo() -> int:
    """x"""
    return 0
