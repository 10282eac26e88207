"""Whether what was given is of the kind that was expected."""


def check_kind(name: str, value: object, kind: type, expected: str) -> None:
    """A TypeError by the argument's name otherwise. Modules are named, too: other libraries have classes of the same
    names."""
    if not isinstance(value, kind):
        got = type(value)
        raise TypeError(f"{name}: expected {expected}, got {got.__module__}.{got.__qualname__}")
