"""`python -m cdfss COMMAND` is `cdfss COMMAND`."""

import sys

from cdfss.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
