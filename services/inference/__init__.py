"""The inference service: jobs and their whole life."""
