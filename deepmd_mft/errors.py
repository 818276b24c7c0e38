"""The one exception of this package for a user's mistake."""


class UserError(ValueError):
    """Something in the user's input is wrong.

    The message names the file, key, branch or element and says what to do. Command-line
    tools print it without a traceback.
    """
