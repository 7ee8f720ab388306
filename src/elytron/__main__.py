"""`python -m elytron` is the command line."""

from elytron.faces.cli import main

if __name__ == "__main__":
    main()
