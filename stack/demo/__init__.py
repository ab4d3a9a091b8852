"""What a user of the API does, from signing in to the finished picture."""
