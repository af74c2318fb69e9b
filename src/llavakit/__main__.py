"""`python -m llavakit` is the `llava` command."""

from llavakit.cli.main import main

if __name__ == "__main__":
    main()
