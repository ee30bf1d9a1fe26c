"""Tokenizers of sequences: bytes, byte pairs of one's own texts, characters and the symbols of ListOps."""

from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ..hub.values import require_integer

SPECIAL_TOKENS = {"pad_token": "<pad>", "mask_token": "<mask>", "sep_token": "<sep>", "unk_token": "<unk>"}
LIST_OPS_SYMBOLS = ("[MIN", "[MAX", "[MED", "[SM", "]", *"0123456789")

# Pieces of this many characters keep the byte-pair model, whose cost grows faster than the piece, linear in the text.
_PIECE_LENGTH = 64
# The special tokens and the bytes.
_NUM_BASE_TOKENS = len(SPECIAL_TOKENS) + 256


def byte_tokenizer(model_max_length: int | None = None) -> PreTrainedTokenizerFast:
    """One token per byte of the UTF-8 text: id 4 + byte, 260 ids in all, and no text is out of vocabulary.

    Decoding restores the text exactly; bytes that are no valid UTF-8 are decoded as replacement characters.

    Special tokens are <pad> 0, <mask> 1, <sep> 2 and <unk> 3, the same for all tokenizers of this module. A single
    text gets none of them; a pair becomes "A <sep> B", with token types 0 for A and <sep> and 1 for B when called with
    `return_token_type_ids=True`. A text that spells out a special token, as "<sep>", is read as its characters; call
    with `split_special_tokens=False` to read it as the token, for example to write <mask> in a text.

    Args:
        model_max_length: the most tokens that truncation leaves by default; None sets no limit.

    Raises:
        ValueError: if `model_max_length` is no integer of at least 1.
    """
    letters = _byte_letters()
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary([letters[byte] for byte in range(256)]), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.FixedLength(_PIECE_LENGTH), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _wrapped(tokenizer, model_max_length)


def byte_pair_tokenizer(
    texts: Iterable[str], vocab_size: int = 8192, lowercase: bool = False, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding trained on `texts` (arXiv 1508.07909, section 3.2; on bytes as in GPT-2).

    Pairs of tokens that are frequent within words become tokens, and no text is out of vocabulary: ids 4 to 259 are
    the 256 bytes. The same texts in the same order give the same tokenizer. Decoding restores the text exactly, unless
    `lowercase` is set.

    Args:
        texts: the training texts, which are read once.
        vocab_size: the most ids, at least 261; fewer if no further pair occurs twice.
        lowercase: read all texts in lower case.
        model_max_length: the most tokens that truncation leaves by default; None sets no limit.

    Returns:
        A tokenizer with the special tokens and pairs of `byte_tokenizer`.

    Raises:
        ValueError: if `texts` is a single string, has something else than strings or no pair of bytes that occurs
            twice, if `vocab_size` or `lowercase` is out of range, or as `byte_tokenizer`.
    """
    _check_texts(texts)
    require_integer("vocab_size", vocab_size, _NUM_BASE_TOKENS + 1)
    if not isinstance(lowercase, bool):
        raise ValueError(f"lowercase must be True or False; got {lowercase!r}.")
    _limits(model_max_length)
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.FixedLength(_PIECE_LENGTH)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_strings(texts), trainer)
    if tokenizer.get_vocab_size() == _NUM_BASE_TOKENS:
        raise ValueError("texts has no pair of bytes that occurs twice; pass more training texts.")
    return _wrapped(tokenizer, model_max_length)


def character_tokenizer(texts: Iterable[str], model_max_length: int | None = None) -> PreTrainedTokenizerFast:
    """One token per Unicode character (code point) of `texts`, ids from 4 in the order of the code points.

    Args:
        texts: the training texts; other characters become <unk>. None of Unicode's normal forms is applied.
        model_max_length: the most tokens that truncation leaves by default; None sets no limit.

    Returns:
        A tokenizer with the special tokens and pairs of `byte_tokenizer`.

    Raises:
        ValueError: if `texts` is a single string or has no character, or as `byte_tokenizer`.
    """
    _check_texts(texts)
    characters = sorted(set().union(*texts))
    if not characters:
        raise ValueError("texts has no character; pass the training texts.")
    tokenizer = Tokenizer(models.WordLevel(vocab=_vocabulary(characters), unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.FixedLength(1)
    tokenizer.decoder = decoders.Fuse()
    return _wrapped(tokenizer, model_max_length)


def list_ops_tokenizer(model_max_length: int | None = None) -> PreTrainedTokenizerFast:
    """One token per symbol of ListOps, separated by white space: [MIN [MAX [MED [SM ] 0 ... 9 are ids 4 to 18.

    Args:
        model_max_length: the most tokens that truncation leaves by default; None sets no limit.

    Returns:
        A tokenizer with the special tokens and pairs of `byte_tokenizer`; any other symbol becomes <unk>. A special
        token that stands between white space is read as the token.

    Raises:
        ValueError: as `byte_tokenizer`.
    """
    vocabulary = _vocabulary(LIST_OPS_SYMBOLS)
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrapped(tokenizer, model_max_length)


def _check_texts(texts: Iterable[str]) -> None:
    if isinstance(texts, str):
        raise ValueError("texts must be several texts; put a single one into a list.")


def _strings(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{number}] must be a string; got {type(text).__name__}.")
        yield text


def _vocabulary(symbols: Sequence[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate((*SPECIAL_TOKENS.values(), *symbols))}


def _byte_letters() -> dict[int, str]:
    """The visible character that `ByteLevel` writes for each byte: itself, or the next free one from 256 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + rank) for rank, byte in enumerate(hidden)}


def _limits(model_max_length: int | None) -> dict[str, int]:
    if model_max_length is None:
        return {}
    require_integer("model_max_length", model_max_length, 1, or_none="for any length")
    return {"model_max_length": model_max_length}


def _wrapped(tokenizer: Tokenizer, model_max_length: int | None) -> PreTrainedTokenizerFast:
    separator = SPECIAL_TOKENS["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0", pair=f"$A:0 {separator}:0 $B:1", special_tokens=[(separator, tokenizer.token_to_id(separator))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **SPECIAL_TOKENS,
        **_limits(model_max_length),
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )
