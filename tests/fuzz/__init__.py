"""Mutated files against every reader: each gives a valid value or the documented error, quickly and
in little memory.
"""
