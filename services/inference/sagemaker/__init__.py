"""Jobs of endpoints that run on Amazon SageMaker."""
