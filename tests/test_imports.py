"""The package's imports: no circle, neither of modules nor of rooms."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "compressai_hm"


def modules():
    """Lists the file of each module, by dotted name."""
    found = {}
    for path in sorted((ROOT / NAME).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports():
    """Lists what each module imports when it runs, also inside functions."""
    files = modules()
    graph = defaultdict(set)
    for name, path in files.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If)
            and getattr(node.test, "id", "") == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or id(node) in for_types:
                continue
            source = node.module or ""
            if node.level:
                above = package.split(".")
                above = above[: len(above) - node.level + 1]
                source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found = inner if inner in files else source
                if found in files and found != name and found != NAME:
                    graph[name].add(found)
    return graph


def room(name):
    """Names the room of a module; detection has rooms inside."""
    parts = name.split(".")
    return ".".join(parts[: 3 if parts[1] == "detection" else 2])


@pytest.mark.parametrize("of", [str, room], ids=["modules", "rooms"])
def test_no_circle(of):
    graph = defaultdict(set)
    for name, imported in imports().items():
        if name != NAME:
            graph[of(name)] |= {of(other) for other in imported} - {of(name)}
    assert len(graph) > (10 if of is room else 80)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as e:
        pytest.fail(" -> ".join(e.args[1]))


def test_the_codec_needs_no_openmmlab():
    graph = imports()
    for name in modules():
        if not name.startswith((f"{NAME}.detection", f"{NAME}.evaluation")):
            rooms = {other.split(".")[1] for other in graph[name]}
            assert not rooms & {"detection", "evaluation"}, name
    code = f"import sys, {NAME}; sys.exit('mmengine' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code], check=False).returncode


def names_in(path):
    """Yields the attributes and strings of a file, without what precedes a dot."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.rpartition(".")[2]


def test_one_file_uses_private_names_of_compressai():
    user = f"{NAME}.compat.compressai_private"
    private = {name for name in names_in(modules()[user]) if re.match("_[a-z]", name)}
    assert {"_get_medians", "_likelihood", "_quantized_cdf"} <= private
    users = {n for n, path in modules().items() if private & set(names_in(path))}
    assert users == {user}
