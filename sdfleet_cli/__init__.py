"""The command line client of sdfleet."""
