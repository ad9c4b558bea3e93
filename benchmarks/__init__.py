"""Benchmarks: ``python -m benchmarks`` measures speed against the plain recipe, in the same run on
the same records.
"""
