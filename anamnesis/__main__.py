"""The command line: `anamnesis`, or `python -m anamnesis`."""

from service.cli.__main__ import main

if __name__ == "__main__":
    main()
