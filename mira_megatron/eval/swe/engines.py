"""How a container engine is told to run one instance.

The container sees one folder of ours, read-only: the patch, the evaluation script and run.sh, which
applies the one and runs the other. What it prints while it applies goes to stderr, the evaluation
to stdout, so that a patch's own text never stands in the log that is graded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ENGINES = ("docker", "podman", "apptainer")
_NO_NETWORK = "-no-network"
# What containers are run in, as `Engine.setting` calls it.
SETTINGS = tuple(f"{name}{network}" for name in ENGINES for network in ("", _NO_NETWORK))
FOLDER = "/mira"
PATCH_FILE, EVALUATION_FILE, SCRIPT_FILE = "patch.diff", "eval.sh", "run.sh"
PATCH_REFUSED, NO_TESTBED = 90, 91  # exit codes of run.sh
_KILLED = 128 + 9  # in the container, for its memory most likely, which is the patch's doing

# The ways to apply a patch and their order are those of swebench 5; a refused one may leave parts
# behind, so the tree is reset between them.
SCRIPT = f"""#!/bin/bash
cd /testbed || exit {NO_TESTBED}
applied=
for way in "git apply --verbose" "git apply --verbose --3way" "git apply --verbose --reject" \\
    "patch --batch --forward --fuzz=5 -p1 -i"; do
    if [ -n "$tried" ]; then
        git checkout -- . >&2
        git clean -fd >&2
    fi
    tried=yes
    if $way {FOLDER}/{PATCH_FILE} >&2; then
        applied=yes
        break
    fi
done
# The last way may have done all of it and still say otherwise.
[ -n "$applied" ] || git apply --check --reverse {FOLDER}/{PATCH_FILE} >&2 || exit {PATCH_REFUSED}
/bin/bash {FOLDER}/{EVALUATION_FILE} 2>&1
exit 0
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A container engine and what every container may use."""

    name: str
    has_network: bool = True  # as the official harness has it; some tests fetch what they need
    memory_gb: int = 16
    num_processes: int = 4096
    images: Path | None = None  # apptainer: a folder of .sif files, named as `image_file` says

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"engine={self.name!r}, expected one of {', '.join(ENGINES)}")
        if self.memory_gb < 1 or self.num_processes < 1:
            raise ValueError(f"{self}: memory and processes must be 1 or more")

    @property
    def setting(self) -> str:
        """What the outcome of a run depends on beside the image: another one is another run."""
        return self.name if self.has_network else f"{self.name}{_NO_NETWORK}"

    def run_words(self, image: str, folder: Path, container: str) -> list[str]:
        """Returns the command that runs run.sh in a fresh container and waits for it."""
        script = ["/bin/bash", f"{FOLDER}/{SCRIPT_FILE}"]
        if self.name == "apptainer":
            words = ["apptainer", "exec", "--containall", "--cleanenv", "--no-home", "--fakeroot"]
            words += ["--writable-tmpfs", "--pwd", "/testbed", "--bind", f"{folder}:{FOLDER}:ro"]
            if not self.has_network:
                words += ["--net", "--network", "none"]
            return [*words, self._apptainer_image(image), *script]
        words = [self.name, "run", "--rm", "--name", container, "--user", "root"]
        words += ["--workdir", "/testbed", "--volume", f"{folder}:{FOLDER}:ro"]
        words += ["--memory", f"{self.memory_gb}g", "--pids-limit", str(self.num_processes)]
        words += ["--security-opt", "no-new-privileges", "--entrypoint", ""]
        if not self.has_network:
            words += ["--network", "none"]
        return [*words, image, *script]

    def kill_words(self, container: str) -> list[str] | None:
        """Returns the command that ends a container; None: it ends with the process that began."""
        return None if self.name == "apptainer" else [self.name, "kill", container]

    def is_engines_failure(self, exit_code: int) -> bool:
        """Returns whether the engine itself failed: no image, no daemon, no room.

        That says nothing about the patch. Nor does the death of a client, here outside: only
        apptainer's process is the container's own.
        """
        is_own_death = self.name == "apptainer" and exit_code == -9
        return exit_code not in (0, PATCH_REFUSED, _KILLED) and not is_own_death

    def _apptainer_image(self, image: str) -> str:
        return f"docker://{image}" if self.images is None else str(self.images / image_file(image))


def image_file(image: str) -> str:
    """Returns the file that an image is kept in for apptainer."""
    return image.replace("/", "_").replace(":", "_").replace("@", "_") + ".sif"
