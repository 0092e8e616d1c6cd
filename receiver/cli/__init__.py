"""The command line: `main.py` is the table of commands, and each command is a file named like it."""
