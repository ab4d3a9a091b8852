"""The users service: who calls, and what they may do."""
