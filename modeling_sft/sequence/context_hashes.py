"""Context hashes of sequences: which run of tokens, and which words, end at a token (docs/design.md, section 6)."""

import torch
from torch import Tensor

from ..encoder.context_hashes import ContextHashes
from ..nn.hashing import last_place, mix, run_hashes

# The token id of byte 0 in `byte_tokenizer`, behind the special tokens.
FIRST_BYTE = 4


def sequence_hashes(
    input_ids: Tensor, mask: Tensor, sizes: list[int], words: bool = False, seed: int = 0
) -> ContextHashes:
    """Hashes of the runs of tokens that end at each token, and of words so far.

    Args:
        input_ids: `(B, N)` integers of any type.
        mask: `(B, N)` bool, real tokens, which stand together.
        sizes: lengths of the runs; at the start of a row they are shorter.
        words: hashes words of bytes too, without regard to capitals of ASCII.
        seed: of the hashes.

    Returns:
        A kind for each size, and for words two more: the word so far, and the previous word with the word so far.
        Counted are all runs, and whole words.
    """
    input_ids = input_ids.long()
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    first = mask.long().argmax(1, keepdim=True)
    tokens = mix(input_ids + 1, seed).masked_fill(~mask, 0)
    lengths = torch.tensor(sizes, dtype=torch.long, device=input_ids.device)
    runs = run_hashes(tokens, torch.maximum(places[:, None] - lengths + 1, first[..., None]))
    ids = [runs]
    present = [mask[..., None].expand_as(runs)]
    counted = list(present)
    if words:
        letters = letters_of_bytes(input_ids).masked_fill(~mask, 0)
        in_word = letters > 0
        # The last place between words, and the last place within one.
        gap, end = last_place(~in_word), last_place(in_word)
        word = run_hashes(mix(letters, seed), gap[..., None] + 1).squeeze(-1)
        previous_end = end.gather(1, gap.clamp(min=0)).masked_fill(gap < 0, -1)
        previous = word.gather(1, previous_end.clamp(min=0)).masked_fill(previous_end < 0, 0)
        ids.append(torch.stack([word, mix(previous, seed) + word], dim=-1))
        # A gather in place of a slice, whose length of N - 1 exporters take for a constant.
        last = input_ids.shape[1] - 1
        next_in_word = in_word.gather(1, (places + 1).clamp(max=last).expand_as(input_ids))
        is_end = in_word & ~(next_in_word & (places < last))
        present.append(in_word[..., None].expand_as(ids[-1]))
        counted.append(is_end[..., None].expand_as(ids[-1]))
    return ContextHashes(mix(torch.cat(ids, -1)), torch.cat(present, -1), torch.cat(counted, -1))


def letters_of_bytes(input_ids: Tensor) -> Tensor:
    """What token ids of `byte_tokenizer` are within words; 0 for what stands between: spaces, stops, special tokens.

    Letters of ASCII are small ones; digits, the apostrophe and bytes of all other scripts are as they are.
    """
    byte = input_ids - FIRST_BYTE
    byte = torch.where((byte >= ord("A")) & (byte <= ord("Z")), byte + (ord("a") - ord("A")), byte)
    is_letter = (byte >= ord("a")) & (byte <= ord("z"))
    is_digit = (byte >= ord("0")) & (byte <= ord("9"))
    is_of_other_script = (byte >= 128) & (byte < 256)
    return torch.where(is_letter | is_digit | is_of_other_script | (byte == ord("'")), byte, 0)
