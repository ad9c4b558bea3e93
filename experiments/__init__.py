"""Measurements that take longer than a test, each one command: ``python -m experiments.NAME
--help``.
"""
