"""The whole of sdfleet on one machine, without Docker and without root."""
