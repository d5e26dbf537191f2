"""``python -m hyperpool``."""

from hyperpool.cli import main

if __name__ == "__main__":
    main()
