"""Whether operations on tensors record themselves, per thread."""

from contextlib import ContextDecorator
from types import TracebackType

from ._sorix import _set_grad_enabled


class set_grad_enabled(ContextDecorator):
    """Records operations, or does not, within a ``with`` block or a decorated function.

    Parameters
    ----------
    mode : bool
        Whether to record.
    """

    def __init__(self, mode: bool) -> None:
        self._mode = mode
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_set_grad_enabled(self._mode))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _set_grad_enabled(self._before.pop())

    def _recreate_cm(self) -> "set_grad_enabled":
        # A decorated function may run on several threads at once.
        return set_grad_enabled(self._mode)


class no_grad(set_grad_enabled):
    """Does not record operations within a ``with`` block or a decorated function.

    Examples
    --------
    >>> import sorix
    >>> x = sorix.tensor([1.0], requires_grad=True)
    >>> with sorix.no_grad():
    ...     y = x * 2.0
    >>> y.requires_grad
    False
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(set_grad_enabled):
    """Records operations within a ``with`` block or a decorated function, also within :class:`no_grad`."""

    def __init__(self) -> None:
        super().__init__(True)
