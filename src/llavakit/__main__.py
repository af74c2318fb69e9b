"""The `llava` command, also as `python -m llavakit`; a Ctrl-C before it has begun ends it in silence too."""

import sys

try:
    from llavakit.cli.main import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    main()
