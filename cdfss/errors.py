"""The one exception for mistakes that a user can mend."""


def again(*rules: str) -> str:
    """How to run finished jobs of the workflow again."""
    return f"run the same command again with -R {' '.join(rules)}"


class CdfssError(Exception):
    """A mistake in the input, the configuration or the machine; its text is for people.

    The text says what was found, where, what was expected and what to do. Command line and
    workflow print it without a traceback; every other exception is a defect of the product.
    """
