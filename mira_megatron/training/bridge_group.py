"""Where a source group's training with Megatron-Bridge keeps its files. Free of Bridge itself.

<run folder>/bridge/<rubric>/<group>/
  base/                    the base model's weights, imported
  data-<digest>/           training.jsonl, validation.jsonl: links into sft/<rubric>/<group>/
  checkpoints-<digest>/    torch_dist checkpoints of the training on them
  tensorboard-<digest>/
  hf-<digest>/             the trained scorer for transformers and vLLM

The digest is that of the SFT data. Bridge takes its line index, its packed samples and the
checkpoint it goes on from as they lie, without looking at the text; folders named after the content
cannot hold an earlier run's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.manifest import read_manifest

SFT_FILES = ("training.jsonl", "validation.jsonl")
DIGEST_CHARS = 12  # of the manifest's digest, in a data folder's name


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFolders:
    """A source group in a run folder."""

    run_folder: Path
    rubric: str
    group: str

    @property
    def work(self) -> Path:
        """Returns the folder of everything that Bridge writes."""
        return self.run_folder / "bridge" / self.rubric / self.group

    @property
    def sft(self) -> Path:
        """Returns the folder of the group's SFT data."""
        return self.run_folder / layout.sft(self.rubric, self.group)

    @property
    def base(self) -> Path:
        """Returns the folder of the imported base weights."""
        return self.work / "base"

    @property
    def checkpoints(self) -> Path:
        """Returns the folder of the training's checkpoints."""
        return self._of_data("checkpoints")

    @property
    def tensorboard(self) -> Path:
        """Returns the folder of the training's curves."""
        return self._of_data("tensorboard")

    @property
    def export(self) -> Path:
        """Returns the folder of the trained scorer in Hugging Face's form."""
        return self._of_data("hf")

    @property
    def data(self) -> Path:
        """Returns the folder that Bridge reads the group's samples from; see `link_data`."""
        return self._of_data("data")

    def _of_data(self, name: str) -> Path:
        """Returns a folder of this very SFT data; FileNotFoundError where it is unfinished."""
        manifest = read_manifest(self.sft)
        if manifest is None:
            raise FileNotFoundError(
                f"{self.sft}: no finished SFT data of group {self.group} is here. Make it with "
                "`mira sft-data`."
            )
        return self.work / f"{name}-{manifest.output_digest[:DIGEST_CHARS]}"


def link_data(folders: GroupFolders) -> Path:
    """Returns the folder that Bridge reads a group's samples from, made where it is missing.

    Every process of a training may call it at once. Raises FileNotFoundError where the group's SFT
    data is missing or unfinished.
    """
    data_folder = folders.data
    data_folder.mkdir(parents=True, exist_ok=True)
    for name in SFT_FILES:
        with suppress(FileExistsError):  # another process was first
            (data_folder / name).symlink_to((folders.sft / name).resolve())
    return data_folder


def data_folders(folders: GroupFolders) -> list[Path]:
    """Returns the data folders that were linked so far, sorted by name."""
    return sorted(folders.work.glob("data-*"))
