"""Endpoints on Amazon SageMaker."""
