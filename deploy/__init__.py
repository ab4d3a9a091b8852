"""What is run beside the services."""
