"""What the command lines share."""

import argparse
import difflib
import sys


class Parser(argparse.ArgumentParser):
    """Mistakes are one line, with a suggestion, and exit code 2."""

    def error(self, message: str):
        if message.startswith("unrecognized arguments:"):
            unknown = message.split(": ", 1)[1].split()[0]
            near = difflib.get_close_matches(unknown, self._option_string_actions, 1)
            message = f"there is no option {unknown}" + (f"; did you mean {near[0]}?" if near else "; see --help")
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2)
