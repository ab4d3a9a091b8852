"""The sdfleet services: each owns its resource and its MongoDB collections."""
