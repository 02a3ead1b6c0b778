"""What a user can do wrong: one line that says what, where, and what would be right."""


class SpikefoldError(Exception):
    """Base of all errors that spikefold raises on purpose."""


class ShapeError(SpikefoldError, ValueError):
    """A tensor has the wrong number of dimensions, channels or steps."""


class ConfigError(SpikefoldError, ValueError):
    """A setting is unknown, of the wrong type, or out of range."""


class GraphError(SpikefoldError, ValueError):
    """A network cannot be followed from call to call.

    Attributes:
        path: of the module that cannot be followed.
    """

    path: str = ""

    @classmethod
    def at(cls, path: str, message: str) -> "GraphError":
        """The error for this module."""
        error = cls(message)
        error.path = path
        return error


class FoldError(SpikefoldError, ValueError):
    """A network cannot be folded, fused or verified as it is."""


class AdoptError(SpikefoldError, ValueError):
    """Weights or a network from elsewhere cannot be taken over as they are."""


class ExportError(SpikefoldError, ValueError):
    """A network cannot be said in the form that was asked for, or an exported file not be run."""


class FileFormatError(SpikefoldError, ValueError):
    """A file is not what it should be: cut off, foreign, of a newer format or of another model."""


class DataError(SpikefoldError, ValueError):
    """A data set is unknown, absent or damaged."""


class SpikefoldWarning(UserWarning):
    """Work goes on, but not as one might expect; the command line prints it as one line."""
