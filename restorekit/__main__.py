"""Run the command line as python -m restorekit."""

from restorekit.cli.main import main

if __name__ == "__main__":
    main()
