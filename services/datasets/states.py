"""The states of data sets and of their files."""

INITIALED, ENABLED, DISABLED = STATUSES = ("Initialed", "Enabled", "Disabled")
DELETING = "Deleting"  # no client sees it: its objects are about to go
