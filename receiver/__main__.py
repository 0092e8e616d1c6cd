"""`python -m receiver` is `darkroom`."""

from receiver.cli.entry import main

if __name__ == "__main__":
    main()
