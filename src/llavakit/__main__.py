"""The `llava` command, also as `python -m llavakit`; a Ctrl-C before it has begun ends it in silence too."""

import sys


def main() -> None:
    """Run the command line; see `llavakit.cli.main`."""
    try:
        from llavakit.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
