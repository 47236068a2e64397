"""Tests of `batchers.remote`."""
