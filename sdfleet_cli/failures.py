"""What can go wrong, each as one sentence with what to do about it."""


class CommandError(Exception):
    """The command cannot go on; the text is for the person at the keyboard."""
