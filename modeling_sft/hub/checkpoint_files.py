"""Files of checkpoints: shards of weights stay in their folder, and a save that fails leaves what was there."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_SHARD = re.compile(r"model.*-\d{5}-of-\d{5}\.safetensors|model\.safetensors(\.index\.json)?")


def check_shard_indices(folder: str | os.PathLike[str]) -> None:
    """Check that the indices of sharded weights in a folder name safetensors beside them, and nothing else.

    Transformers joins the names to the folder as they are, and unpickles shards that are no safetensors.

    Raises:
        ValueError: a name is another's, leads out of the folder, or the index is none.
    """
    for path in sorted(Path(folder).glob("*.safetensors.index.json")):
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            shards = set(index["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"`{path}` is damaged ({type(error).__name__}): save the model again.") from error
        for shard in shards:
            if not isinstance(shard, str) or not re.fullmatch(r"[^/\\]+\.safetensors", shard):
                raise ValueError(f"`{path}` names {shard!r}: shards must be safetensors in the same folder.")


@contextmanager
def saved_at_once(folder: str | os.PathLike[str], marker: str) -> Iterator[str | os.PathLike[str]]:
    """A folder to save in, whose files then replace those of the same names in `folder`.

    Where saving fails, as on a full disk, `folder` stays as it was. Files behind links are not written through them.
    Where `folder` holds no file `marker`, nothing is there to keep, and it is itself the folder to save in.
    """
    target = Path(folder)
    if not Path(target, marker).exists():
        yield folder
        return
    with TemporaryDirectory(prefix=".saving-", dir=target) as staging:
        yield staging
        # Renaming takes no space.
        saved = {path.name for path in Path(staging).iterdir()}
        for name in sorted(saved):
            os.replace(Path(staging, name), target / name)
    if any(_SHARD.fullmatch(name) for name in saved):
        for path in target.iterdir():
            if path.name not in saved and _SHARD.fullmatch(path.name):
                path.unlink()  # of an earlier save in another number of shards
