"""Endpoints: what serves image jobs, on which machines, and how many."""
