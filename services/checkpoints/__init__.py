"""Checkpoint files: uploads, names, who may use which."""
