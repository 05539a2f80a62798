"""The exceptions of lipkit: one family, one clear sentence each."""


class Error(Exception):
    """Base of every exception that lipkit raises on purpose."""


class InputError(Error, ValueError):
    """A value that the call cannot take."""


class FileError(Error, OSError):
    """A file that is missing, broken or not what its name says."""
