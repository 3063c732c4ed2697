"""Every Python block of the README runs, in order, in one interpreter; what a block prints is what the README says.

A ``text`` block that follows a Python block directly is its output; ``...`` in it stands for anything. Python that is
not to be run is marked ``text``, too.
"""

from __future__ import annotations

import doctest
import json
import re
from typing import NamedTuple

import pytest

from tests.scripts import ROOT, run_script

README = ROOT / "README.md"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Runs the blocks as cells of one script; leaves what each printed in a file.
_RUNNER = """
import contextlib, io, json
_printed = []
with open("blocks.json", encoding="utf-8") as _file:
    _blocks = json.load(_file)
for _line, _code in _blocks:
    _out = io.StringIO()
    with contextlib.redirect_stdout(_out):
        exec(compile("\\n" * _line + _code, "README.md", "exec"))
    _printed.append(_out.getvalue())
with open("printed.json", "w", encoding="utf-8") as _file:
    json.dump(_printed, _file)
"""


class Block(NamedTuple):
    """A Python block, the line above it, and the output that the README shows for it."""

    line: int
    code: str
    output: str | None


def blocks_of(text: str) -> list[Block]:
    """The Python blocks, in order."""
    fences = list(_FENCE.finditer(text))
    found = []
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        if fence[1] != "python":
            continue
        output = None
        if following is not None and following[1] == "text" and not text[fence.end() : following.start()].strip():
            output = following[2]
        found.append(Block(text.count("\n", 0, fence.start()) + 1, fence[2], output))
    return found


BLOCKS = blocks_of(README.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "blocks.json").write_text(json.dumps([(b.line, b.code) for b in BLOCKS]), encoding="utf-8")
    (folder / "readme.py").write_text(_RUNNER, encoding="utf-8")
    run_script(folder / "readme.py", cwd=folder)
    shown: list[str] = json.loads((folder / "printed.json").read_text(encoding="utf-8"))
    return shown


def test_there_are_blocks_and_outputs() -> None:
    assert len(BLOCKS) > 5
    assert sum(block.output is not None for block in BLOCKS) > 3


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[f"line {block.line}" for block in BLOCKS])
def test_block_prints_what_the_readme_says(number: int, printed: list[str]) -> None:
    wanted = BLOCKS[number].output or ""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(wanted, printed[number], options), (
        f"the block at README.md:{BLOCKS[number].line} prints\n{printed[number]}\nand the README shows\n{wanted}"
    )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    broken = [link for link in links if not (ROOT / link.partition("#")[0]).exists()]
    assert not broken
