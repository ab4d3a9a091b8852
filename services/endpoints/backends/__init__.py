"""What endpoints run on."""
