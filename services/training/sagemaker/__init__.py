"""Trainings as training jobs of Amazon SageMaker."""
