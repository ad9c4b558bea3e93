"""Work behind the command line and the notebook that takes more than one call of a package."""
