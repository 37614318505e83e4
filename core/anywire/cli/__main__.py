"""``python -m anywire.cli``: the same command, found without the PATH."""

from anywire.cli import main

main()
