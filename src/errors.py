"""What a user did or met that a sentence can mend, and how a script ends on it."""

from __future__ import annotations

import sys
from typing import Callable


class UserError(Exception):
    """A mistake or a fault outside the program. Its text is one sentence that names the file and the fix."""


def run_script(main: Callable[[], int]) -> None:
    """Run a script's main and exit with its status: 1 and one line for a UserError, 130 for Ctrl-C, no traceback for either."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print(
            "interrupted: what was finished is kept, nothing looks whole that is not; run the same command again to go on",
            file=sys.stderr,
        )
        status = 130
    except BrokenPipeError:
        # The reader of our standard output (head, less) has gone: not an error of ours.
        sys.stderr.close()
        status = 0
    except OSError as error:
        # A full disk, a folder that may not be written: the file's name and the system's word for it.
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        status = 1
    sys.exit(status)
