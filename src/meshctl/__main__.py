"""Entry point: ``meshctl`` and ``python -m meshctl``."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from meshctl.cli.app import run  # noqa: PLC0415 - nothing is loaded before it is needed

    run()


if __name__ == "__main__":
    main()
