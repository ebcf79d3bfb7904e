"""The eight languages of MultiPL-E as a table: compiling, running, and what passing means.

Compilers come from Debian's packages and TypeScript from npm (tests/environments/eval.sh). Whatever
a program needs is found on this machine when it is asked for; a missing tool is said by name.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What a sandbox sees anyway comes first: another python3 of this user is not needed there.
_FIRST_PATH = "/usr/local/bin:/usr/bin:/bin"
# Tests end inside this many blocks; what is put behind the last test goes before their braces.
_IN_MAIN = 1
_IN_MAIN_IN_CLASS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One language. Command lines are for /bin/sh and ours alone; `{tool}` is a tool's path."""

    name: str
    title: str  # for a reader
    file: str
    compile: str = ""
    run: str
    tools: tuple[str, ...]  # looked for on PATH, or absolute
    package: str  # what brings them
    # A statement that prints `{first}` and `{second}` as one word. They never stand side by side in
    # the program, so that one that prints its own text has not printed the mark.
    mark: str
    refuted: str  # a test in the manner of MultiPL-E's: that two numbers are equal that are not
    blocks_at_end: int = 0
    failure_words: tuple[str, ...] = ()  # on stderr they mean a failed test, whatever the exit code
    environment: Mapping[str, str] = field(default_factory=dict)
    version_word: str = "--version"  # what its tools say their version to

    @property
    def commands(self) -> tuple[str, ...]:
        """The tools that are programs."""
        return tuple(tool for tool in self.tools if not Path(tool).is_absolute())

    def with_mark(self, tests: str, mark: str, *, refuted: tuple[int, int] | None = None) -> str:
        """Returns the tests followed by a statement that says they have ended.

        With `refuted`, two numbers that differ, a test that cannot hold stands between the two.
        Raises ValueError where the tests do not end in the blocks that this language's end in.
        """
        end = len(tests.rstrip())
        for _ in range(self.blocks_at_end):
            if end == 0 or tests[end - 1] != "}":
                raise ValueError(f"tests in {self.name} end in {tests[-40:]!r}, expected a brace")
            end = len(tests[: end - 1].rstrip())
        half = len(mark) // 2
        added = self.mark.replace("{first}", mark[:half]).replace("{second}", mark[half:])
        if refuted is not None:
            one, other = map(str, refuted)
            added = f"{self.refuted.replace('{one}', one).replace('{other}', other)}\n{added}"
        return f"{tests[:end]}\n{added}\n{tests[end:]}"

    def found_tools(self) -> dict[str, Path]:
        """Returns where the tools lie. Raises ValueError naming the first missing one."""
        found = {}
        for tool in self.tools:
            path = shutil.which(tool, path=_FIRST_PATH) or shutil.which(tool)
            if path is None and Path(tool).exists():  # a library
                path = tool
            if path is None:
                raise ValueError(
                    f"{self.name}: {tool} was not found; install {self.package} "
                    "(tests/environments/eval.sh installs all languages)"
                )
            found[Path(tool).name] = Path(path)
        return found


# A small, quiet JVM: its memory is reserved, and so counted, before it is used.
_JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx1g -XX:CompressedClassSpaceSize=128m"
_JAVATUPLES = "/usr/share/java/javatuples.jar"

LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (
        Language(
            name="cpp",
            title="C++",
            file="program.cpp",
            # The paths of `-lcrypto -lssl` cost nothing where nothing asks for them.
            compile="{g++} -std=c++17 -o program program.cpp -lcrypto -lssl",
            run="./program",
            tools=("g++",),
            package="g++ libboost-dev libssl-dev",
            mark='std::cout << "{first}" << "{second}" << std::endl;',
            refuted="assert(({one}) == ({other}));",
            blocks_at_end=_IN_MAIN,
        ),
        Language(
            name="cs",
            title="C#",
            file="Program.cs",
            compile="{mcs} -nologo -d:DEBUG -r:System.Numerics.dll -out:program.exe Program.cs",
            run="{mono} program.exe",
            tools=("mcs", "mono"),
            package="mono-mcs mono-runtime libmono-system-numerics4.0-cil",
            mark='Console.Write("{first}"); Console.WriteLine("{second}");',
            refuted="Debug.Assert(({one}L) == ({other}L));",
            blocks_at_end=_IN_MAIN_IN_CLASS,
            # Mono goes on, and exits with 0, after a Debug.Assert that does not hold.
            failure_words=("DefaultTraceListener.Fail",),
            environment={"MONO_TRACE_LISTENER": "Console.Error"},
        ),
        Language(
            name="java",
            title="Java",
            file="Problem.java",
            compile=f"{{javac}} -J-XX:TieredStopAtLevel=1 -J-XX:+UseSerialGC -encoding UTF8 "
            f"-nowarn -d . -cp {_JAVATUPLES} Problem.java",
            run=f"{{java}} {_JAVA} -ea -cp .:{_JAVATUPLES} Problem",
            tools=("javac", "java", _JAVATUPLES),
            package="openjdk-17-jdk-headless libjavatuples-java",
            version_word="-version",
            mark='System.out.print("{first}"); System.out.println("{second}");',
            refuted="assert(({one}l) == ({other}l));",
            blocks_at_end=_IN_MAIN_IN_CLASS,
        ),
        Language(
            name="js",
            title="JavaScript",
            file="program.js",
            run="{node} program.js",
            tools=("node",),
            package="nodejs",
            mark='console.log("{first}" + "{second}");',
            refuted="assert.deepEqual({one},{other});",
        ),
        Language(
            name="php",
            title="PHP",
            file="program.php",
            run="{php} -d display_errors=stderr program.php",
            tools=("php",),
            package="php-cli",
            mark='echo "{first}", "{second}";',
            refuted='if ({one} !== {other}) { throw new Exception("Test failed!"); }',
        ),
        Language(
            name="py",
            title="Python",
            file="program.py",
            run="{python3} -I program.py",
            tools=("python3",),
            package="python3",
            mark='print("{first}", "{second}", sep="")',
            refuted="assert {one} == {other}",
        ),
        Language(
            name="sh",
            title="bash",
            file="program.sh",
            run="{bash} program.sh",
            tools=("bash",),
            package="bash",
            mark="printf '%s%s\\n' {first} {second}",
            refuted='[[ "{one}" = "{other}" ]]',
        ),
        Language(
            name="ts",
            title="TypeScript",
            file="program.ts",
            # To check the standard library's own types each time takes half of the time.
            compile="{node} {tsc} --target es2020 --skipLibCheck program.ts",
            run="{node} program.js",
            tools=("node", "tsc"),
            package="nodejs, and typescript@5.5.4 from npm",
            mark='console.log("{first}" + "{second}");',
            refuted="assert.deepEqual({one},{other});",
        ),
    )
}
