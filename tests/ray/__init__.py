"""Tests of `batchers.integrations.ray`, on a Ray that starts by itself: `make test-ray`."""
