"""Files of checkpoints: shards of weights stay in their folder, and a save that fails leaves what was there."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .writing import staging_folder


def check_shard_indices(folder: str | os.PathLike[str]) -> None:
    """Check that the indices of sharded weights in a folder, of any variant, name safetensors beside them alone.

    Transformers joins the names to the folder as they are, and unpickles shards that are no safetensors.

    Raises:
        ValueError: a name is another's, leads out of the folder, or the index is none.
    """
    for path in sorted(Path(folder).glob("*.safetensors.index*.json")):
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            shards = set(index["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"`{path}` is damaged ({type(error).__name__}): save the model again.") from error
        check_shard_names(str(path), shards)


def base_of_adapter(folder: str | os.PathLike[str]) -> Path | None:
    """The folder of the model whose weights a folder with an adapter alone stands for; None for other folders."""
    path = Path(folder, "adapter_config.json")
    if not path.is_file() or Path(folder, "config.json").is_file():
        return None
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
        return Path(base) if Path(base).is_dir() else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"`{path}` is damaged ({type(error).__name__}): save the adapter again.") from error


def check_shard_names(source: str, names: Iterable[Any]) -> None:
    """Check that shards are safetensors beside what names them.

    Raises:
        ValueError: a name is another's, or leads out of the folder.
    """
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\]+\.safetensors", name):
            raise ValueError(f"`{source}` names {name!r}: shards must be safetensors in the same folder.")


def check_weight_files(files: Iterable[str]) -> None:
    """Check the files that weights are about to be read from, by whatever way they were found.

    Raises:
        ValueError: one is no file of safetensors.
    """
    for file in files:
        if not file.endswith(".safetensors"):
            raise ValueError(f"`{file}` is no file of safetensors: SFT models and adapters are read from these only.")


def weights_of_variant(variant: str | None) -> re.Pattern[str]:
    """The names of a model's weights in any number of shards: those of a variant, or the main ones."""
    part = "" if variant is None else f"\\.{re.escape(variant)}"
    return re.compile(rf"model{part}(-\d{{5}}-of-\d{{5}})?\.safetensors|model\.safetensors\.index{part}\.json")


@contextmanager
def saved_at_once(folder: str | os.PathLike[str], weights: re.Pattern[str] | None = None) -> Iterator[Path]:
    """A folder to save in, whose files then replace those of the same names in `folder`.

    Where saving fails, as on a full disk, `folder` stays as it was. Files behind links are not written through them.

    Args:
        folder: the folder; made if it is missing.
        weights: names of files that belong together: where some are saved, the others of these names in `folder` are
            of an earlier save, in another number of shards, and are removed. Nothing else is.

    Raises:
        CannotWriteError: it cannot be written, or something else is saving there.
    """
    target = Path(folder)
    with staging_folder(target) as staging:
        yield staging
        saved = sorted(path.name for path in staging.iterdir())
        for name in saved:
            # Renaming takes no space.
            os.replace(staging / name, target / name)
        if weights is not None and any(weights.fullmatch(name) for name in saved):
            for path in target.iterdir():
                if path.name not in saved and weights.fullmatch(path.name):
                    path.unlink()
