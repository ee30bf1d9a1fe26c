"""ListOps: nested expressions over lists of digits, generated as Long Range Arena defines them, and evaluated.

Nangia and Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", NAACL SRW 2018; Tay et al., "Long Range
Arena", ICLR 2021.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modeling_sft.hub.values import require_integer
from modeling_sft.sequence.tokenization import LIST_OPS_SYMBOLS

OPERATOR_PROBABILITY = 0.25
MAX_ATTEMPTS = 100_000
MAX_REPETITIONS = 1_000


def _median(values: Sequence[int]) -> int:
    """The median, rounded down if it lies between two values."""
    ordered = sorted(values)
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) // 2


def _sum_modulo(values: Sequence[int]) -> int:
    return sum(values) % 10


OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {"[MIN": min, "[MAX": max, "[MED": _median, "[SM": _sum_modulo}
END = "]"
DIGITS = {str(digit): digit for digit in range(10)}
TOKENS = LIST_OPS_SYMBOLS
NUM_OPERATORS = len(OPERATORS)
FIRST_DIGIT = TOKENS.index("0")


def evaluate_list_ops(text: str) -> int:
    """The value of an expression, from 0 to 9.

    Args:
        text: tokens separated by white space: an operator `[MIN`, `[MAX`, `[MED` (the median, rounded down) or `[SM`
            (the sum modulo 10), its arguments, which are digits or expressions, and `]`.

    Raises:
        ValueError: if the text is not an expression.
    """
    operators: list[Callable[[Sequence[int]], int]] = []
    arguments: list[list[int]] = [[]]
    for token in text.split():
        if token in DIGITS:
            arguments[-1].append(DIGITS[token])
        elif token in OPERATORS:
            operators.append(OPERATORS[token])
            arguments.append([])
        elif token != END:
            raise ValueError(f"text has the token {token!r}, which is none of ListOps ({' '.join(TOKENS)}).")
        elif not operators or not arguments[-1]:
            raise ValueError(f"text is no expression: a {END!r} closes no operator or one without arguments.")
        else:
            values = arguments.pop()
            arguments[-1].append(operators.pop()(values))
    if operators or len(arguments[0]) != 1:
        raise ValueError("text is no expression: an operator is not closed, or there is not exactly one value.")
    return arguments[0][0]


@dataclass(frozen=True)
class ListOpsGenerator:
    """Expressions whose trees grow at random, by default as in Long Range Arena.

    With probability 0.25 a node is an operator of 2 to `max_args` arguments; otherwise it is a digit, as is every node
    at depth `max_depth` (the root has depth 1). Trees whose length is out of range are dropped.

    Args:
        min_length: expressions have more tokens than this.
        max_length: expressions have fewer tokens than this.
        max_depth: the largest depth of a tree, digits included.
        max_args: the largest number of arguments of an operator.

    Raises:
        ValueError: if an argument is not a positive integer, or if no tree can have such a length.
    """

    min_length: int = 500
    max_length: int = 2000
    max_depth: int = 10
    max_args: int = 10

    def __post_init__(self) -> None:
        for name in ("min_length", "max_length", "max_depth", "max_args"):
            require_integer(name, getattr(self, name), 1)
        if self.max_length < self.min_length + 2:
            raise ValueError(
                f"max_length must be at least min_length + 2 = {self.min_length + 2}, as lengths lie between the two, "
                f"both excluded; got {self.max_length}."
            )
        if self.max_args < 2:
            raise ValueError(f"max_args must be at least 2; got {self.max_args}.")
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = 2 + self.max_args * longest
            if longest > self.min_length:
                break
        else:
            raise ValueError(
                f"min_length {self.min_length} is beyond max_depth {self.max_depth} and max_args {self.max_args}: the "
                f"longest expressions have {longest} tokens."
            )

    def expression(self, seed: int, stream: int, index: int) -> str:
        """A random expression, a pure function of the arguments (each from 0 to 2**32 - 1) and of the settings.

        Raises:
            ValueError: if hardly any tree has the wanted length.
        """
        # Use RandomState instead of Generator: its numbers are the same in every version of NumPy.
        rng = np.random.RandomState(np.random.PCG64([seed, stream, index]))
        for _ in range(MAX_ATTEMPTS):
            tokens = self._grow(rng)
            if tokens is not None:
                return " ".join(tokens)
        raise ValueError(
            f"min_length {self.min_length} and max_length {self.max_length} fit none of {MAX_ATTEMPTS} trees of "
            f"max_depth {self.max_depth} and max_args {self.max_args}: widen the range, or raise these."
        )

    def _grow(self, rng: np.random.RandomState) -> list[str] | None:
        """The tokens of a tree from left to right; None if its length does not fit."""
        draws = rng.random_sample((3, self.max_length))
        is_operator = draws[0] < OPERATOR_PROBABILITY
        digits = (draws[1] * len(DIGITS)).astype(int).tolist()
        kinds = (draws[2] * NUM_OPERATORS * (self.max_args - 1)).astype(int).tolist()
        # Make the root an operator: a tree of one digit would be dropped anyway.
        is_operator[0] = True

        tokens: list[str] = []
        num_missing: list[int] = []  # arguments of each operator that is not closed yet
        max_open = self.max_depth - 1
        length = 1  # the length if every missing argument is a digit
        for operator, digit, kind in zip(is_operator.tolist(), digits, kinds):
            if operator and len(num_missing) < max_open:
                num_args, operator_id = divmod(kind, NUM_OPERATORS)
                num_args += 2
                length += 1 + num_args
                if length >= self.max_length:
                    return None
                tokens.append(TOKENS[operator_id])
                num_missing.append(num_args)
                continue
            tokens.append(TOKENS[FIRST_DIGIT + digit])
            while num_missing:
                num_missing[-1] -= 1
                if num_missing[-1]:
                    break
                num_missing.pop()
                tokens.append(END)
            if not num_missing:
                break
        return tokens if length > self.min_length else None

    def distinct(self, seed: int, sizes: Mapping[str, int], split: str) -> Iterator[str]:
        """The expressions of a split, without repetitions and without expressions of earlier splits.

        Args:
            seed: seed from 0 to 2**32 - 1.
            sizes: number of expressions of each split, always in the same order.
            split: the split to generate; a larger split begins with the rows of a smaller one.

        Raises:
            ValueError: if there are too few different expressions.
        """
        seen: set[bytes] = set()
        for stream, (name, size) in enumerate(sizes.items()):
            num_made = index = num_repeated = 0
            while num_made < size:
                text = self.expression(seed, stream, index)
                index += 1
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if digest in seen:
                    num_repeated += 1
                    if num_repeated >= MAX_REPETITIONS:
                        raise ValueError(
                            f"{sum(sizes.values())} different expressions of more than {self.min_length} and fewer "
                            f"than {self.max_length} tokens are not to be had: ask for fewer, or raise max_length."
                        )
                    continue
                num_repeated = 0
                seen.add(digest)
                num_made += 1
                if name == split:
                    yield text
            if name == split:
                return
