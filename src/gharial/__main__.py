"""`python -m gharial` is the command `gharial`."""

from gharial.cli import main

if __name__ == "__main__":
    main(prog_name="gharial")
