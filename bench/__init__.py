"""Benchmarks: sdfleet beside the bare thing, in the same run."""
