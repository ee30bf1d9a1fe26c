"""What all SFT models can do: initialise their weights, and change how they sample."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, initialization
from transformers.utils.output_capturing import OutputRecorder

from .attention_dispatch_sft import resolve_backend
from .attention_sft import SFTAttention
from .checkpoint_files_sft import check_shard_indices, saved_at_once
from .configuration_sft import SFTEncoderConfig
from .encoder_sft import SFTLayer
from .initialization_sft import start_with_unit_variance
from .relation_base_sft import SFTRelation
from .sampling_sft import Selector, SFTSampler


class SFTPreTrainedModel(PreTrainedModel):
    """Base of all SFT models: weight initialisation, output capturing, and the controls of the sampler."""

    config: SFTEncoderConfig
    base_model_prefix = "sft"
    supports_gradient_checkpointing = True
    _no_split_modules = ["SFTLayer"]
    _can_record_outputs = {
        "hidden_states": SFTLayer,
        "attentions": OutputRecorder(SFTAttention, index=1),
        "sampled_tokens": OutputRecorder(SFTAttention, index=2),
        "importance_scores": OutputRecorder(SFTAttention, index=3),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if start_with_unit_variance(module):
            return
        if isinstance(module, SFTSampler):
            # No longer None once the configuration is made.
            initialization.normal_(module.weight, mean=0.0, std=cast(float, self.config.initializer_range))
            if module.bias is not None:
                initialization.zeros_(module.bias)
            if module.extra_tokens is not None:
                initialization.normal_(module.extra_tokens, mean=0.0, std=1.0)
        elif isinstance(module, SFTRelation):
            # Zero on both: with softplus shifted to 1, the relation starts as the identity.
            initialization.zeros_(module.scale_weight)
            initialization.zeros_(module.bias_weight)
        elif isinstance(module, SFTLayer):
            initialization.constant_(module.residual_scale, self.config.residual_scale_init)

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """The attention backend for a request, `None` being the default.

        Raises:
            ValueError: unknown, or it does not support the configuration or this machine.
        """
        return resolve_backend(requested_attention, self.config)

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, is_init_check: bool = False, **kwargs: Any
    ) -> str:
        # Transformers would first download and run the kernel of the Hub that config.json or a caller names.
        return self.get_correct_attn_implementation(attn_implementation, is_init_check)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in Transformers, but from safetensors only: pickles are neither looked for nor opened.

        Raises:
            ValueError: `use_safetensors=False`, or an index of shards that names anything but safetensors in its
                folder.
            OSError: there are no safetensors.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError("`use_safetensors` is False: SFT models are read from safetensors only; leave it out.")
        kwargs["use_safetensors"] = True
        if isinstance(pretrained_model_name_or_path, str | os.PathLike):
            check_shard_indices(Path(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in Transformers, but a model that the folder holds stays whole if saving fails, as on a full disk."""
        self._forget_absent_pipelines(save_directory)
        if kwargs.get("push_to_hub") or not Path(save_directory, "config.json").exists():
            super().save_pretrained(save_directory, *args, **kwargs)
            return
        with saved_at_once(save_directory) as staging:
            super().save_pretrained(staging, *args, **kwargs)

    def _forget_absent_pipelines(self, folder: str | os.PathLike[str]) -> None:
        """Leave pipelines out of the configuration whose code is not in the folder.

        A pipeline writes its code before it saves the model. One that the model was loaded with would otherwise still
        be named, and `pipeline` ask for its file in vain, even where the package is imported.
        """
        pipelines = vars(self.config).pop("custom_pipelines", None)
        if isinstance(pipelines, dict):
            written = {
                task: entry
                for task, entry in pipelines.items()
                if isinstance(entry, dict) and Path(folder, f"{str(entry.get('impl')).split('.')[0]}.py").is_file()
            }
            if written:
                self.config.custom_pipelines = written

    def _samplers(self) -> list[SFTSampler]:
        return [module for module in self.modules() if isinstance(module, SFTSampler)]

    def set_num_sampled_tokens(self, num_sampled_tokens: int) -> None:
        """Set K, the dial between cost and accuracy; also after training. Written to the configuration.

        Raises:
            ValueError: not an integer of at least 1.
        """
        if isinstance(num_sampled_tokens, bool) or not isinstance(num_sampled_tokens, int) or num_sampled_tokens < 1:
            raise ValueError(f"`num_sampled_tokens` is {num_sampled_tokens!r}: use an integer of at least 1.")
        self.config.num_sampled_tokens = num_sampled_tokens

    def set_sampling_noise(self, sampling_noise: float) -> None:
        """Set the factor of the Gumbel noise. Written to the configuration: it belongs to the weights trained with it.

        Raises:
            ValueError: negative or not finite.
        """
        if not 0 <= sampling_noise < float("inf"):
            raise ValueError(f"`sampling_noise` is {sampling_noise!r}: use a finite number of at least 0.")
        self.config.sampling_noise = float(sampling_noise)

    def set_sampler(self, selector: Selector | None) -> None:
        """Choose tokens by a function instead of the learned sampler, in all layers; `None` brings it back.

        Args:
            selector: called with scores `(B, S, N)`, mask `(B, N)` bool, K, and the modality's relation inputs;
                returns long indices `(B, S, K)` or `(B, 1, K)`, -1 in unused slots. `random_selector` and
                `farthest_point_selector` are ready made. Not saved with the model.

        Raises:
            ValueError: not callable.
        """
        if selector is not None and not callable(selector):
            raise ValueError(f"`selector` is {selector!r}: give a function, or None for the learned sampler.")
        for sampler in self._samplers():
            sampler.selector = selector

    @contextmanager
    def sampled_inference(self, seed: int | None = None) -> Iterator[None]:
        """Sample at inference as in training, for estimates of uncertainty.

        Args:
            seed: seeds torch's generators within the context and restores them after it; `None` uses them as they are.

        Example:

        ```python
        >>> with model.sampled_inference(seed=0):
        ...     passes = [model(**inputs).logits for _ in range(5)]
        ```
        """
        samplers = self._samplers()
        previous = [sampler.samples_at_inference for sampler in samplers]
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            for sampler in samplers:
                sampler.samples_at_inference = True
            try:
                yield
            finally:
                for sampler, value in zip(samplers, previous, strict=True):
                    sampler.samples_at_inference = value


__all__ = ["SFTPreTrainedModel"]
