import logging
import runpy
import sys
from pathlib import Path

import _command
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Runs a tool in this process, and gives its exit status and what it prints."""

    def run(name, *args):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        monkeypatch.delitem(sys.modules, "_shared", raising=False)  # it keeps weights
        # MMEngine's handlers keep the streams of the test before.
        monkeypatch.setattr(logging, "raiseExceptions", False)
        with pytest.raises(SystemExit) as stop:
            _command.run(runpy.run_path(str(ROOT / f"tools/{name}.py"))["main"])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return stop.value.code, out, err

    return run
