"""What all SFT models can do: initialise their weights, and change how they sample."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import nn
from transformers import PreTrainedModel, initialization
from transformers.utils.output_capturing import OutputRecorder

from ..attention.attention import SFTAttention
from ..attention.backends import resolve_backend
from ..attention.relation import SFTRelation
from ..configuration_sft import LARGEST_SIZE, SFTEncoderConfig, check_sampling_noise
from ..hub.checkpoint_files import (
    base_of_adapter,
    check_shard_indices,
    check_shard_names,
    check_weight_files,
    saved_at_once,
    weights_of_variant,
)
from ..hub.remote_code import class_reference, write_code
from ..hub.values import require_integer
from ..nn.initialization import start_with_unit_variance
from ..sampling.sample import Selector
from ..sampling.sampler import SFTSampler
from .context_hashes import SFTContextCounts
from .encoder import SFTLayer

# The keywords of a call that models take beside their signature. Trainer counts labels, programs for models of all
# kinds set `use_cache`, which means nothing here, and decorators of Transformers read the others.
FORWARD_OPTIONS = (
    *("output_hidden_states", "output_attentions", "output_sampled_tokens", "output_importance_scores"),
    *("return_dict", "num_items_in_batch", "use_cache", "debug_io", "debug_io_dir", "prune_layers"),
)
# What of the arguments of `save_pretrained` is for the upload.
HUB_ARGUMENTS = (
    "repo_id",
    "commit_message",
    "commit_description",
    "private",
    "token",
    "revision",
    "create_pr",
    "tags",
)
# Bytes: one file, whatever its size.
LARGEST_SHARD = 2**62


class SFTPreTrainedModel(PreTrainedModel):
    """Base of all SFT models: weight initialisation, output capturing, and the controls of the sampler."""

    config: SFTEncoderConfig
    relation_class: ClassVar[type[SFTRelation] | None] = None
    """The relation of the modality, for models whose configuration has one."""
    auto_class_name: ClassVar[str | None] = None
    """The Auto class that loads a checkpoint; None for models whose code does not travel with them."""
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
        elif isinstance(module, SFTContextCounts):
            # Close to 0: neighbourhoods never seen in training then add little at inference.
            initialization.normal_(module.weight, mean=0.0, std=0.001)
        elif isinstance(module, SFTLayer):
            initialization.constant_(module.residual_scale, self.config.residual_scale_init)

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """The attention backend for a request, `None` being the default.

        Raises:
            ValueError: unknown, or it does not support the configuration or this machine.
        """
        return resolve_backend(requested_attention, self.config, self.relation_class)

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, is_init_check: bool = False, **kwargs: Any
    ) -> str:
        # Transformers would first download and run the kernel of the Hub that config.json or a caller names.
        return self.get_correct_attn_implementation(attn_implementation, is_init_check)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in Transformers, but from safetensors only: pickles are neither looked for nor opened.

        Raises:
            ValueError: `use_safetensors=False`, or an index of shards, an adapter or `transformers_weights` that
                names anything but safetensors in its folder.
            OSError: there are no safetensors.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError("`use_safetensors` is False: SFT models are read from safetensors only; leave it out.")
        kwargs["use_safetensors"] = True
        if isinstance(pretrained_model_name_or_path, str | os.PathLike):
            folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
            check_shard_indices(folder)
            base = base_of_adapter(folder)
            if base is not None:
                check_shard_indices(base)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: list[str] | None, load_config: Any, **kwargs: Any
    ) -> Any:
        # All weights come by here, those of adapters, of the base model that one names, and of the Hub too.
        check_weight_files(checkpoint_files or ())
        if load_config.sharded_metadata:
            check_shard_names("the index of shards", set(load_config.sharded_metadata["weight_map"].values()))
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, load_config, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """As in Transformers, with the model's code beside it; what the folder holds stays whole if saving fails.

        A save replaces the weights of its own variant, whatever their number of shards: other variants and adapters
        in the folder stay. Adapters are saved in one file, since Transformers reads no others.

        Args:
            save_directory: the folder; made if it is missing.
            is_main_process, state_dict, kwargs: as in Transformers.
            push_to_hub: upload the model as well, saved alike, as its method `push_to_hub` does, to `repo_id` or a
                repository of the folder's name.

        Raises:
            CannotWriteError: the folder cannot be written, or something else is saving there.
        """
        to_hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs} if push_to_hub else {}
        if getattr(self, "_hf_peft_config_loaded", False):
            # Beside a model in shards, the index of an adapter in shards would replace the model's.
            kwargs["max_shard_size"] = LARGEST_SHARD
        self._forget_absent_pipelines(save_directory)
        if self._is_written_here(is_main_process, **kwargs):
            with saved_at_once(save_directory, weights_of_variant(kwargs.get("variant"))) as staging:
                self._save(
                    staging, is_main_process, state_dict=None if state_dict is None else dict(state_dict), **kwargs
                )
        else:
            self._save(save_directory, is_main_process, state_dict=state_dict, **kwargs)
        if push_to_hub and is_main_process:
            to_hub = {"repo_id": Path(save_directory).name} | to_hub
            if "max_shard_size" in kwargs:
                to_hub["max_shard_size"] = kwargs["max_shard_size"]
            # Transformers saves what it uploads once more, by this method, and knows of no variant.
            vars(self)["save_pretrained"] = partial(self.save_pretrained, state_dict=state_dict, **kwargs)
            try:
                self.push_to_hub(**to_hub)
            finally:
                del vars(self)["save_pretrained"]

    @staticmethod
    def _is_written_here(is_main_process: bool, distributed_checkpoint: bool = False, **kwargs: Any) -> bool:
        """Whether this process writes the files, and no other does: not where several save one sharded model."""
        if not is_main_process or distributed_checkpoint:
            return False
        in_group = torch.distributed.is_available() and torch.distributed.is_initialized()
        return not in_group or torch.distributed.get_rank() == 0

    def _save(self, folder: str | os.PathLike[str], is_main_process: bool, **kwargs: Any) -> None:
        cls = type(self)
        if cls.auto_class_name is not None and is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_code(cls, Path(folder))
            # Those of this package are there already; another's class, derived from one, is loaded from its own file.
            self.config.auto_map = {**(self.config.auto_map or {}), cls.auto_class_name: class_reference(cls)}
        # Transformers copies code that it takes for remote; it would look for files that rooms do not have.
        vars(self)["is_remote_code"] = lambda: False
        try:
            super().save_pretrained(folder, is_main_process, **kwargs)
        finally:
            del vars(self)["is_remote_code"]

    @classmethod
    def is_remote_code(cls) -> bool:
        """True: the code travels with the weights. Transformers' bot converts no weights of such models."""
        return True

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoModel") -> None:
        """Choose the Auto class under which a checkpoint of this class is loaded; its code is saved in any case."""
        cls.auto_class_name = auto_class if isinstance(auto_class, str) else auto_class.__name__

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # Transformers looks for its own dispatcher in the source, and a checkpoint's file has a class of attention.
        return True

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
            ValueError: not an integer of at least 1, or far above any number of tokens.
        """
        require_integer("num_sampled_tokens", num_sampled_tokens, 1, LARGEST_SIZE)
        self.config.num_sampled_tokens = num_sampled_tokens

    def set_sampling_noise(self, sampling_noise: float) -> None:
        """Set the factor of the Gumbel noise. Written to the configuration: it belongs to the weights trained with it.

        Raises:
            ValueError: neither 0 nor finite and large enough to matter.
        """
        check_sampling_noise(sampling_noise)
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
