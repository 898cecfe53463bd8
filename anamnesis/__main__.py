"""The command line: `anamnesis`, or `python -m anamnesis`."""

from service.cli import main

if __name__ == "__main__":
    main()
