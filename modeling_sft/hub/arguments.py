"""Names of arguments: what takes any keyword refuses those that nobody reads, in one wording."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def unknown_argument(owner: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no such argument, with the nearest one that there is, or all of them if none is near.

    Args:
        owner: what was called.
        name: the argument that it was given.
        known: the arguments that it takes.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean `{close[0]}`?" if close else f"it takes {', '.join(known)}."
    return f"{owner} has no argument `{name}`: {remedy}"


def refuse_unknown_arguments(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of arguments.

    Args:
        owner: what was called, for the message.
        given: the names that it was called with.
        known: the names that it takes.

    Raises:
        TypeError: a name is unknown; the message is that of [`unknown_argument`].
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise TypeError(unknown_argument(owner, name, known))


def refuses_unknown_arguments(*also: str) -> Callable[[Method], Method]:
    """Decorator of a method: a TypeError for keywords that nobody reads.

    As the outermost decorator it sees what the caller wrote, not what other decorators add. Keywords of methods that
    take any pass if their value is `None`, which says nothing: PEFT gives every model `input_ids=None`. Only names are
    looked at, which are constants of a trace, so that `torch.compile` and `torch.export` see nothing of it.

    Args:
        also: names that the method reads beside those of its signature.
    """

    def decorate(method: Method) -> Method:
        names = (*argument_names(method), *also)
        known = frozenset(names)

        @functools.wraps(method)
        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            for name, value in kwargs.items():
                if name not in known and value is not None:
                    raise TypeError(unknown_argument(type(self).__name__, name, names))
            return method(self, *args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def argument_names(method: Callable[..., Any]) -> list[str]:
    """The arguments that a method takes by name, in their order."""
    _, *parameters = inspect.signature(method).parameters.values()
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind not in any_number]


def constructor_arguments(cls: type) -> list[str]:
    """The arguments that a class takes by name, with those that its constructor hands on to its bases."""
    own = [argument_names(vars(base)["__init__"]) for base in cls.__mro__[:-1] if "__init__" in vars(base)]
    return list(dict.fromkeys(name for names in own for name in names))
