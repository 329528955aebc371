"""Every error that imatlas raises on purpose.

    ImatlasError
    ├── ParameterError      also ValueError         an argument or option is invalid
    ├── InputError          also ValueError         the input data are invalid (shape, dtype, range, too few images)
    ├── InputTypeError      also TypeError          the input has an unsupported type
    ├── SourceError         also FileNotFoundError  a source of images or a saved model is missing
    ├── DecodeError         also ValueError         one picture cannot be read, with the reason
    ├── ArtifactError       also ValueError         a saved model or atlas is damaged or must not be overwritten
    ├── UnsafePathError     also ValueError         a name from a file leads out of its folder, or through a link
    ├── AtlasBusyError      also ValueError         another process is writing this atlas
    ├── TrainingError       also ValueError         training cannot continue
    └── MissingExtraError   also ImportError        an optional dependency is missing; names the pip command

Warnings of imatlas are Notices, which are UserWarnings; the command line prints them as lines.

Messages state the fact, what was got, and what to do.
"""


class ImatlasError(Exception):
    """Base of all errors that imatlas raises on purpose."""


class ParameterError(ImatlasError, ValueError):
    """An argument or option is invalid."""


class InputError(ImatlasError, ValueError):
    """The input data cannot be used: wrong shape, dtype or range, or too few images."""


class InputTypeError(ImatlasError, TypeError):
    """The input has a type that imatlas does not read."""


class SourceError(ImatlasError, FileNotFoundError):
    """A folder, file or saved model does not exist or contains nothing usable."""

    # OSError.__str__ would format the arguments as a tuple.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DecodeError(ImatlasError, ValueError):
    """One picture cannot be read; the message is the plain reason, as in `skipped.csv`."""


class ArtifactError(ImatlasError, ValueError):
    """A saved model or atlas is damaged, of a newer format, or must not be overwritten."""


class UnsafePathError(ImatlasError, ValueError):
    """A name read from a file leads out of its folder, or through a link."""


class AtlasBusyError(ImatlasError, ValueError):
    """Another process holds the write lock of this atlas."""


class TrainingError(ImatlasError, ValueError):
    """Training cannot continue: the loss stays non-finite, or there is no data left."""


class MissingExtraError(ImatlasError, ImportError):
    """An optional dependency is missing; the message names the pip command."""


class Notice(UserWarning):
    """A warning that stops nothing, such as an ignored label or an unusual file encoding."""
