"""Text is UTF-8 whatever the machine's locale is."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    ROOT / "setup.py",
    *sorted(ROOT.glob("compressai_hm/**/*.py")),
    *sorted(ROOT.glob("tools/*.py")),
]
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def python(*args):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, **C_LOCALE, "PYTHONPATH": str(ROOT / "tools")},
    )  # fmt: skip


def test_it_installs_where_the_locale_is_not_utf_8():
    done = python("setup.py", "--name", "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == "compressai-hm"


def test_tools_print_what_the_screen_lacks():
    code = "import _command; _command.run(lambda: print('\\u03bb'))"
    done = python("-c", code)
    assert done.returncode == 0 and done.stdout.strip() == r"\u03bb"


def without_encoding(tree: ast.AST):
    """Lines that open text files in the locale's encoding."""
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", None))
        modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
        binary = any("b" in m for m in modes if isinstance(m, str) and len(m) < 4)
        text = name in ("read_text", "write_text")
        text |= isinstance(call.func, ast.Name) and name == "open" and not binary
        if text and "encoding" not in {k.arg for k in call.keywords}:
            yield call.lineno


def test_the_search_finds_what_it_should():
    code = "open('a')\nopen('a', 'wb')\np.read_text()\np.write_text('', encoding='x')"
    assert list(without_encoding(ast.parse(code))) == [1, 3]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_text_files_say_their_encoding(path):
    lines = list(without_encoding(ast.parse(path.read_text(encoding="utf-8"))))
    assert not lines
