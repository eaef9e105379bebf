"""`python -m surgery`."""

from surgery.cli import entry

if __name__ == "__main__":
    entry()
