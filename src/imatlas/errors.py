"""Every error that imatlas raises on purpose.

    ImatlasError
    ├── ParameterError      also ValueError         a constructor or option value is wrong
    ├── InputError          also ValueError         the data given is wrong (shape, dtype, range, too few images)
    ├── InputTypeError      also TypeError          the kind of object given is wrong
    ├── SourceError         also FileNotFoundError  a source of images or a saved thing is not there
    ├── DecodeError         also ValueError         one picture cannot be read; carries the plain reason
    ├── ArtifactError       also ValueError         a saved model or atlas cannot be read or must not be overwritten
    ├── UnsafePathError     also ValueError         a name from a file leads out of its folder, or through a link
    ├── NotLearnedError      also AttributeError     a fitted model holds nothing of this name; an older one may not
    ├── AtlasBusyError      also ValueError         another process is writing this atlas
    ├── TrainingError       also ValueError         learning cannot go on
    └── MissingExtraError   also ImportError        an optional part is not installed; names the pip command

A warning that imatlas gives on purpose is a Notice, also a UserWarning: the command line shows it as a line.

Messages state the fact, what was got, and what to do, in one sentence each.
"""


class ImatlasError(Exception):
    """The root of all errors that imatlas raises on purpose."""


class ParameterError(ImatlasError, ValueError):
    """A constructor or option value is outside what is allowed."""


class InputError(ImatlasError, ValueError):
    """The data that was given cannot be used: wrong shape, dtype, range, or too few images."""


class InputTypeError(ImatlasError, TypeError):
    """The kind of object that was given is not one that imatlas reads."""


class SourceError(ImatlasError, FileNotFoundError):
    """A folder, file or saved model that was named does not exist or holds nothing usable."""

    # OSError's own __str__ would show the arguments as a tuple.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DecodeError(ImatlasError, ValueError):
    """One picture cannot be read; the message is the plain reason, fit for `skipped.csv`."""


class ArtifactError(ImatlasError, ValueError):
    """A saved model or atlas is damaged, of a newer format, or must not be overwritten."""


class UnsafePathError(ImatlasError, ValueError):
    """A name that was read from a file leads out of its folder, or through a link."""


class NotLearnedError(ImatlasError, AttributeError):
    """A fitted model holds nothing of this name: it was saved by a version that did not learn it, or never has it."""


class AtlasBusyError(ImatlasError, ValueError):
    """Another process holds the write lock of this atlas."""


class TrainingError(ImatlasError, ValueError):
    """Learning cannot go on: the loss stays non-finite, or nothing is left to learn from."""


class MissingExtraError(ImatlasError, ImportError):
    """An optional part is not installed; the message names the pip command that brings it."""


class Notice(UserWarning):
    """Something that the user should know and that stops nothing: a label left out, a file read in another way."""
