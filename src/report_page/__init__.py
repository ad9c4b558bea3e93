"""The parts of the report's page: what goes into it, and how it looks."""
