"""The one exception that a user is meant to read: a sentence naming the file, the key, the value and what to do."""


class UserError(Exception):
    """A problem that the user can mend. The CLI prints its sentence and exits with code 2; nothing else is caught."""
