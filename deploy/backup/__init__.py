"""Copies everything that sdfleet keeps, MongoDB and S3, into a folder, and back."""
