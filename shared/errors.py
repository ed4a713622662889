"""Errors that are named by what happens next. Delivery retries any other error."""


class PermanentError(Exception):
    """A retry cannot help. The error is recorded if there is a record, and the message goes to `dead-letters`.

    Users read the text: it says what was found and what is allowed.
    """


class NothingToDo(Exception):
    """This delivery is a duplicate or too late: the run is closed or superseded, or another worker has the claim."""


class Unavailable(Exception):
    """A system that we depend on does not respond or refuses for now. A retry may succeed. An API answers 503."""


class ObjectGone(PermanentError):
    """An object, or the requested generation of it, is no longer in the bucket."""
