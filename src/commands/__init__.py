"""What the command line and the notebook do, beyond one call of a package below."""
