"""What results are filed under."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from functools import lru_cache

DIGEST_FORMAT = 1  # goes up when the meaning of a stored outcome changes


def digest_of(**parts: object) -> str:
    """Returns a digest of named parts, each of them something that JSON can hold."""
    text = json.dumps({"format": DIGEST_FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def code_digest(kind: type) -> str:
    """Returns a digest of the code of a class's module, comments and layout left out.

    So an author who changes an attack gets new numbers without thinking of `Attack.version`.
    Empty where there is no source.
    """
    try:
        module = inspect.getmodule(kind)
        return _source_digest(inspect.getsource(module if module is not None else kind))
    except (OSError, TypeError, SyntaxError):  # typed into a console, or compiled: no source
        return ""


@lru_cache(maxsize=256)  # a suite asks for the same attacks for every model
def _source_digest(source: str) -> str:
    tree = _WithoutDemands().visit(ast.parse(source))
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


class _WithoutDemands(ast.NodeTransformer):
    """Leaves out what an attack says it needs, which changes none of its candidates."""

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        return None if any(map(_is_demand, node.targets)) else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign | None:
        return None if _is_demand(node.target) else node


def _is_demand(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "needs_gradient"
