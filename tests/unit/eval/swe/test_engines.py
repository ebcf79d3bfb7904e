"""What engines are told; and run.sh in a real git repository, seen at /testbed by bubblewrap."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.swe.engines import NO_TESTBED, PATCH_REFUSED, SCRIPT, Engine, image_file

GIVEN = Path("/logs/a-1/given")


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_container_sees_one_folder_and_may_not_grow_without_end(name: str) -> None:
    words = Engine(name=name).run_words("swebench/a-1:latest", GIVEN, "mira-swe-1")
    assert words[:5] == [name, "run", "--rm", "--name", "mira-swe-1"]
    assert words.count("--volume") == 1
    assert words[words.index("--volume") + 1] == "/logs/a-1/given:/mira:ro"
    assert words[words.index("--memory") + 1] == "16g"
    assert "no-new-privileges" in words
    assert "--network" not in words
    assert words[-3:] == ["swebench/a-1:latest", "/bin/bash", "/mira/run.sh"]
    assert Engine(name=name).kill_words("mira-swe-1") == [name, "kill", "mira-swe-1"]


def test_container_without_a_network_is_told_so() -> None:
    words = Engine(name="docker", has_network=False).run_words("i", GIVEN, "c")
    assert words[words.index("--network") + 1] == "none"
    words = Engine(name="apptainer", has_network=False).run_words("i", GIVEN, "c")
    assert words[words.index("--net") + 1 : words.index("--net") + 3] == ["--network", "none"]


def test_apptainer_takes_images_from_a_registry_or_a_folder() -> None:
    words = Engine(name="apptainer").run_words("swebench/a-1:latest", GIVEN, "c")
    assert words[:3] == ["apptainer", "exec", "--containall"]
    assert words[-3] == "docker://swebench/a-1:latest"
    local = Engine(name="apptainer", images=Path("/sif"))
    assert local.run_words("swebench/a-1:latest", GIVEN, "c")[-3] == "/sif/swebench_a-1_latest.sif"
    assert local.kill_words("c") is None
    assert image_file("docker.io/x/y@sha256:0") == "docker.io_x_y_sha256_0.sif"


def test_engine_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="engine='lxc'"):
        Engine(name="lxc")


def test_codes_of_the_engine_are_not_those_of_the_patch() -> None:
    engine = Engine(name="docker")
    assert [engine.is_engines_failure(code) for code in (0, PATCH_REFUSED, 137)] == [False] * 3
    codes = (125, 127, 255, NO_TESTBED)
    assert [engine.is_engines_failure(code) for code in codes] == [True] * 4


ADDER = "".join(f"line {number}\n" for number in range(20))
FIXED = ADDER.replace("line 10", "line ten")


@pytest.fixture
def repository(tmp_path: Path, sandbox: Sandbox) -> Path:
    """A git repository of one file."""
    folder = tmp_path / "testbed"
    folder.mkdir()
    (folder / "adder.txt").write_text(ADDER)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "safe.directory=*"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def patch_between(folder: Path, content: str) -> str:
    (folder / "adder.txt").write_text(content)
    patch = git(folder, "diff")
    git(folder, "checkout", "-q", ".")
    return patch


def run_script(
    repository: Path, patch: str, evaluation: str = "cat adder.txt; echo said >&2; exit 3"
) -> tuple[int, str, str]:
    """Returns run.sh's exit code, stdout and stderr."""
    given = repository.parent / "given"
    given.mkdir(exist_ok=True)
    (given / "patch.diff").write_text(patch)
    (given / "eval.sh").write_text(evaluation)
    (given / "run.sh").write_text(SCRIPT)
    bwrap = shutil.which("bwrap")
    assert bwrap is not None
    words = [bwrap, "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"]
    for name in ("bin", "lib", "lib64"):
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    words += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-all"]
    words += ["--bind", str(repository), "/testbed", "--ro-bind", str(given), "/mira"]
    words += ["/bin/bash", "/mira/run.sh"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_patch_is_applied_and_the_evaluation_alone_is_on_stdout(repository: Path) -> None:
    code, out, err = run_script(repository, patch_between(repository, FIXED))
    assert (code, out) == (0, f"{FIXED}said\n")
    assert "Applied patch" in err
    assert "said" not in err


def test_patch_against_a_file_that_moved_a_little_is_applied_all_the_same(repository: Path) -> None:
    patch = patch_between(repository, FIXED).replace(" line 8\n", " line eight\n")
    code, out, _ = run_script(repository, patch, "cat adder.txt; ls *.rej")
    assert code == 0
    assert out.startswith(FIXED)
    assert "adder.txt.rej\n" not in out  # what the ways before have left


def test_patch_that_does_not_apply_runs_nothing(repository: Path) -> None:
    patch = patch_between(repository, FIXED)
    git(repository, "rm", "-q", "adder.txt")
    git(repository, "commit", "-qm", "gone")
    code, out, err = run_script(repository, patch)
    assert (code, out) == (PATCH_REFUSED, "")
    assert "error" in err


def test_half_of_a_patch_is_taken_back_before_the_next_way(repository: Path) -> None:
    # --reject applies the first file and not the second, for which `patch` has to be lenient.
    (repository / "other.txt").write_text(ADDER)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "second")
    (repository / "other.txt").write_text(FIXED)
    other = git(repository, "diff").replace(" line 8\n", " line eight\n")
    git(repository, "checkout", "-q", ".")
    patch = patch_between(repository, FIXED) + other
    code, out, _ = run_script(repository, patch, "cat adder.txt other.txt")
    assert (code, out) == (0, FIXED + FIXED)


def test_patch_that_is_there_already_is_taken_as_applied(repository: Path) -> None:
    lines = patch_between(repository, FIXED).splitlines(keepends=True)
    # Without the files' digests there is nothing for a three-way merge.
    patch = "".join(line for line in lines if not line.startswith("index "))
    (repository / "adder.txt").write_text(FIXED)
    git(repository, "commit", "-qam", "fixed")
    code, out, _ = run_script(repository, patch)
    assert (code, out) == (0, f"{FIXED}said\n")


def test_image_without_the_repository_is_no_fault_of_the_patch(tmp_path: Path) -> None:
    given = tmp_path / "run.sh"
    given.write_text(SCRIPT)
    done = subprocess.run(["bash", given], capture_output=True, check=False)
    assert done.returncode == NO_TESTBED
