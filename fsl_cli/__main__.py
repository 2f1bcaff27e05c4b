"""python -m fsl_cli"""

from fsl_cli.cli import main

if __name__ == "__main__":
    main()
