"""What ends a backup or a restore, as a sentence for the person at the keyboard."""


class BackupFailed(Exception):
    """It cannot go on; the message says why and what to do."""
