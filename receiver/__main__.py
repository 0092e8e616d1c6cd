"""`python -m receiver` is `darkroom`."""

from receiver.cli.main import main

if __name__ == "__main__":
    main()
