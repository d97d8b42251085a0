"""Exceptions that a user may see; each carries the exit code of the command line."""


class RestorekitError(Exception):
    """State what is wrong with which file or setting, and what to do, in one line."""

    exit_code = 1


class UsageError(RestorekitError):
    """A word of the command or an argument of a call does not fit."""

    exit_code = 2


class DecodeError(RestorekitError):
    """An input file cannot be decoded."""

    exit_code = 65


class NoInputError(RestorekitError):
    """No input matched."""

    exit_code = 66


class UnavailableError(RestorekitError):
    """Weights, a model repository or a device cannot be had."""

    exit_code = 69


class OutputError(RestorekitError):
    """An output cannot be written, or exists already."""

    exit_code = 73


class OutputExistsError(OutputError):
    """An output exists already and is not to be written over."""


class MemoryExhaustedError(RestorekitError):
    """Memory ran out after every fallback."""

    exit_code = 75


class ConfigError(RestorekitError):
    """A configuration file or a model's config is wrong."""

    exit_code = 78


def unforeseen(error: Exception) -> str:
    """Return a line about an error that is none of these: of a file, or to be reported."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return (
        f"internal error: {type(error).__name__}: {error}; "
        "please report it with what RESTOREKIT_DEBUG=1 prints"
    )
