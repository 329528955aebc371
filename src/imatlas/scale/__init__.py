"""The same work on many processors and machines."""
