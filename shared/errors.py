"""Errors named by what happens next. Anything that is none of these is tried again by delivery."""


class PermanentError(Exception):
    """Trying again cannot help: it is recorded where there is a record, dead-lettered, and never delivered again.

    The text is shown to people: say what was found and what is allowed.
    """


class NothingToDo(Exception):
    """This delivery comes too late to matter: the run was closed, superseded or is somebody else's. Nothing to do."""


class Unavailable(Exception):
    """A system that we depend on refuses or does not answer; it may by and by. An API answers 503."""


class ObjectGone(PermanentError):
    """An object, or the generation of it that was asked for, is not in the bucket any more."""
