"""The one command. For the project itself it makes `.venv`, installs what is needed there and runs something in it:

    python install.py demo                  open the chat page on the model that comes with the project
    python install.py test [PYTEST ...]     run the whole test suite

and it puts the plugin into a text-generation-webui, and takes it out again:

    python install.py webui DIR             install the plugin there, or bring it up to date
    python install.py uninstall DIR         remove the plugin again; what you changed stays
    python install.py doctor [FOLDER ...]   web UIs and model folders: what is there, what is missing, what to do next

Every step may be repeated and interrupted. How it is done: `installer/`. This file only says, in words that any Python can
read, why that is not possible.
"""

import os
import sys


def main():
    """Hand the command line over; without a Python or a folder for that: one line on stderr, exit status 2."""
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    if sys.version_info < (3, 8):
        version = ".".join(map(str, sys.version_info[:3]))
        problem = "this is Python " + version + ", too old to run it. Name a newer one: python3.11 install.py ..."
    else:
        try:
            from installer import command_line
        except ImportError as error:
            if not (error.name or "").startswith("installer"):
                raise
            problem = "its folder installer/ is not beside it, or not whole. Get the whole project, not this file alone."
        else:
            return command_line.main()
    sys.stderr.write("install.py: " + problem + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
