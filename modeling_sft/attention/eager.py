"""The eager attention: the readable reference of all attention backends.

Cost and memory are O(N K): queries are handled in chunks, and nothing of size (N, N) or (N, K, d) is allocated.
Sources: docs/design.md, section 3; SFT, arXiv 2408.05822, section 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from .inputs import AttentionInputs
from .probabilities import attention_probabilities
from .scores import ATTENTION_SCORES

# Elements of one (B, H, n, K) block of scores, about 8 MiB in float32.
CHUNK_ELEMENTS = 2**21


def eager_attention(inputs: AttentionInputs, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention over sampled tokens in plain torch operations.

    Args:
        inputs: what to compute from.
        output_attentions: return the weights as well.

    Returns:
        The heads' outputs `(B, H, N, d)` and the weights `(B, H, N, K)` or `None`.
    """
    query, key, value, leak_logits, valid, relation, score, probability, dropout = inputs
    dtype = torch.promote_types(query.dtype, torch.float32)
    batch, heads, length, _ = query.shape
    with maybe_autocast(query.device.type, enabled=False):
        # In half precision, the gradient of the weights would overflow before the scores' gradient is normalised.
        query, key, exact_value = query.to(dtype), key.to(dtype), value.to(dtype)
        valid = valid[:, :, None]
        leak_logits = None if leak_logits is None else leak_logits[:, :, None].to(dtype)
        # One chunk while tracing: a loop over N would fix the length.
        rows = length if torch.compiler.is_compiling() else max(1, CHUNK_ELEMENTS // (batch * heads * key.shape[2]))
        starts = [0] if torch.compiler.is_compiling() else range(0, length, rows)
        outputs, weights = [], []
        for start in starts:
            stop = start + rows
            scores = ATTENTION_SCORES[score](query[:, :, start:stop], key)
            if relation is not None:
                part = relation if rows == length else relation.queries(slice(start, stop))
                scores = part.effect().apply(scores)
            p = attention_probabilities(scores, valid, leak_logits, probability)
            p = F.dropout(p, dropout) if dropout else p
            if output_attentions:
                weights.append(p)
            else:
                outputs.append((p @ exact_value).to(value.dtype))
        if output_attentions:
            p = torch.cat(weights, dim=2)
            return (p @ exact_value).to(value.dtype), p.to(value.dtype)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2), None
