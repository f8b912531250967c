"""Public docstrings: a sentence with a verb, all arguments, and what is returned."""

import importlib
import inspect
import pkgutil
import re

import pytest

import compressai_hm

pytest.importorskip("mmdet")


def _modules():
    for module in pkgutil.walk_packages(compressai_hm.__path__, "compressai_hm."):
        if "._" not in module.name:
            yield importlib.import_module(module.name)


def _inherited(cls, name):
    return any(hasattr(base, name) for base in cls.__mro__[1:])


def _public():
    """Lists the functions and methods that are written here, by dotted name."""
    found = {}
    for module in _modules():
        for name, value in vars(module).items():
            if (
                name.startswith("_")
                or getattr(value, "__module__", "") != module.__name__
            ):
                continue
            if inspect.isfunction(value):
                found[f"{module.__name__}.{name}"] = value
            elif inspect.isclass(value):
                for method, held in vars(value).items():
                    held = getattr(held, "__func__", held)
                    if (
                        inspect.isfunction(held)
                        and not method.startswith("_")
                        and not _inherited(value, method)
                    ):
                        found[f"{module.__name__}.{name}.{method}"] = held
    return found


PUBLIC = _public()


def complaints(function):
    """Lists what a docstring lacks that does not refer to another method."""
    text = inspect.getdoc(function)
    if not text:
        return ["it has no docstring"]
    lacks = []
    first = text.split("\n\n")[0]
    if not re.match(r"[A-Z][a-z]+s\b", first) or not first.endswith((".", "::", ":")):
        lacks.append(
            f"{first.splitlines()[0]!r} is no sentence that begins with a verb"
        )
    if re.search(r"\bsee :meth:`", text):
        return lacks
    parameters = list(inspect.signature(function).parameters)
    for name in parameters:
        if name not in ("self", "cls") and not re.search(
            rf"\b{re.escape(name)}\b", text
        ):
            lacks.append(f"{name} is not explained")
    returned = inspect.signature(function).return_annotation
    if returned not in (None, inspect.Signature.empty, "None") and not re.search(
        r"^(Returns|Yields|Says|Checks)\b|^(Returns|Yields):", text, re.M
    ):
        lacks.append("what it returns is not said")
    return lacks


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_says_all(name):
    assert not complaints(PUBLIC[name])
