"""The one exception for mistakes that a user can mend."""


class CdfssError(Exception):
    """A mistake in the input, the configuration or the machine; its text is for people.

    The text says what was found, where, what was expected and what to do. Command line and
    workflow print it without a traceback; every other exception is a defect of the product.
    """
