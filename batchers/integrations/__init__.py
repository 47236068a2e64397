"""Batchers and optional packages: one module for each, imported by users who have that package.

`prometheus` needs prometheus-client. Modules here import the public names of the library, and nothing of each
other.
"""
