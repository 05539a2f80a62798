"""`python -m lipkit` is the command `lipkit`."""

from .cli import main

if __name__ == "__main__":
    main()
