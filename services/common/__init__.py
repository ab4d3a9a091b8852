"""What two services need identically; imports no service."""
