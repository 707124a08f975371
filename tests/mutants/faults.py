"""Small faults in mathematics, made by `ast`: signs, factors, indices, masks, terms, arguments.

`faults(source, name)` lists every fault that can be planted in a text of Python; `planted(source,
fault)` is its tree with that one fault. Left alone, because a fault there is none of mathematics:
messages, annotations, decorators, defaults of arguments (settings), `raise` with its condition,
functions that only check an input or describe an object, dtypes and devices, seeds.
"""

from __future__ import annotations

import ast
import copy
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SWAPPED = {
    **{"sum": "mean", "mean": "sum", "exp": "expm1", "expm1": "exp", "log": "log1p"},
    **{"log1p": "log", "sin": "cos", "cos": "sin", "tril": "triu", "triu": "tril"},
    **{"min": "max", "max": "min", "amin": "amax", "amax": "amin", "minimum": "maximum"},
    **{"maximum": "minimum", "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like"},
    **{"ones_like": "zeros_like", "new_zeros": "new_ones", "new_ones": "new_zeros"},
    **{"tanh": "sigmoid", "sigmoid": "tanh", "softplus": "relu", "any": "all", "all": "any"},
    **{"std": "var", "var": "std", "floor": "ceil", "argmin": "argmax", "argmax": "argmin"},
    **{"logsigmoid": "sigmoid", "randn_like": "rand_like", "sinh": "cosh", "cosh": "sinh"},
}
DROPPED = set("square exp log neg abs sqrt rsqrt reciprocal flip cumsum roll mT T".split())
DROPPED |= set("tril triu transpose log_softmax softmax tanh sigmoid".split())
OPERATORS = {
    ast.Add: (ast.Sub, "sign"),
    ast.Sub: (ast.Add, "sign"),
    ast.Mult: (ast.Div, "factor"),
    ast.Div: (ast.Mult, "factor"),
    ast.BitAnd: (ast.BitOr, "mask"),
    ast.BitOr: (ast.BitAnd, "mask"),
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
QUIET = re.compile(r"^_?check|^__repr__$|^extra_repr$|^main$|^__init_subclass__$")
SETTINGS = {"dtype", "device", "memory_format", "non_blocking", "generator", "seed", "strict"}
SETTINGS |= {"desc", "disable", "rtol", "atol", "power", "stderr", "routes", "persistent"}
NO_CALL = {"print", "warn", "manual_seed", "isinstance", "getattr", "hasattr", "check", "range"}
COMMUTE = set("transpose swapaxes maximum minimum logaddexp dot equal max min gcd".split())
NO_CALL |= {"show_source", "setattr", "register_buffer", "super", "open"}
Slot = tuple[ast.AST, str, int | None]  # where a node hangs: parent, field, index


@dataclass(frozen=True)
class Fault:
    """One fault: the text it changes, in which function, and which of several equal ones."""

    name: str  # of the file or chapter, with its cell
    where: str  # the function's qualified name, "" outside of any
    kind: str
    before: str
    after: str
    nth: int  # among equal changes of this function
    index: int  # in the list of all faults of the text

    def __str__(self) -> str:
        again = f" #{self.nth}" if self.nth else ""
        return f"{self.name}::{self.where}: {self.before} -> {self.after}{again}"


def _variants(node: ast.AST, in_slice: bool, constants: bool) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            if any(_is_text(x) for x in (left, right)):
                return
            if type(op) in OPERATORS:
                other, kind = OPERATORS[type(op)]
                yield kind, ast.BinOp(left, other(), right)
            if isinstance(op, ast.Add | ast.Mult | ast.BitAnd | ast.BitOr):
                yield "dropped", right
            if isinstance(op, ast.MatMult):
                yield "swapped", ast.BinOp(right, op, left)
            elif not isinstance(op, ast.FloorDiv):
                yield "dropped", left
        case ast.UnaryOp(op=op, operand=operand):
            if isinstance(op, ast.USub | ast.Not | ast.Invert):
                yield ("sign" if isinstance(op, ast.USub) else "mask"), operand
        case ast.Compare(left=left, ops=[op], comparators=right) if type(op) in COMPARISONS:
            for other in COMPARISONS[type(op)]:
                yield "comparison", ast.Compare(left, [other()], right)
        case ast.BoolOp(op=op, values=values):
            yield "mask", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield "swapped", ast.IfExp(test, orelse, body)
        case ast.Constant(value=bool() as value) if constants:
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int() as value) if constants:
            yield ("index" if in_slice else "constant"), ast.Constant(value + 1)
        case ast.Constant(value=float() as value) if constants:
            yield "constant", ast.Constant(2 * value or 1.0)
        case ast.Slice(lower=lower, upper=upper, step=None) if (lower is None) != (upper is None):
            yield "index", ast.Slice(upper, lower)
        case ast.Slice(lower=ast.AST(), upper=ast.AST() as upper):
            yield "index", ast.Slice(None, upper, node.step)
        case ast.Attribute(value=value, attr="T" | "mT", ctx=ast.Load()):
            yield "dropped", value
        case ast.Call():
            yield from _calls(node)
        case ast.AugAssign(target=target, op=op, value=value):
            if type(op) in OPERATORS:
                yield OPERATORS[type(op)][1], ast.AugAssign(target, OPERATORS[type(op)][0](), value)
            yield "dropped", ast.Pass()


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    args, func = node.args, node.func
    name = getattr(func, "attr", getattr(func, "id", ""))
    plain = not any(isinstance(a, ast.Starred) for a in args)
    first = 1 if name == "where" and len(args) == 3 else 0
    plain &= name not in COMMUTE
    if plain and len(args) >= 2 and ast.unparse(args[first]) != ast.unparse(args[first + 1]):
        turned = list(args)
        turned[first], turned[first + 1] = args[first + 1], args[first]
        yield "swapped", ast.Call(func, turned, node.keywords)
    if name in SWAPPED and isinstance(func, ast.Attribute):
        renamed = ast.Attribute(func.value, SWAPPED[name], func.ctx)
        yield "function", ast.Call(renamed, args, node.keywords)
    if name in DROPPED and isinstance(func, ast.Attribute):
        module = isinstance(func.value, ast.Name) and func.value.id in ("torch", "math", "F", "np")
        yield "dropped", args[0] if module and args else func.value


def _is_text(node: ast.AST) -> bool:
    text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    return text or isinstance(node, ast.JoinedStr)


def _only_raises(body: list[ast.stmt]) -> bool:
    return all(isinstance(s, ast.Raise) for s in body)


def _is_failure(node: ast.AST) -> bool:
    """`verify(..., expect_failure=True)`: a gallery's own bug."""
    return isinstance(node, ast.Call) and any(k.arg == "expect_failure" for k in node.keywords)


@dataclass(frozen=True)
class _At:
    """Where a walk stands."""

    where: str = ""
    in_slice: bool = False
    inside: bool = False  # of a function


def _walk(node: ast.AST, slot: Slot | None, at: _At, parameters: bool) -> Iterator:
    """Slots with their variants: (slot, where, kind, new node), in the order of the text."""
    name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", 0), "id", ""))
    silent = isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom)
    if silent or (isinstance(node, ast.Call) and name in NO_CALL) or _is_failure(node):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        own = getattr(node, "name", "<lambda>")
        if QUIET.match(own):
            return
        is_class = isinstance(node, ast.ClassDef)
        where = f"{at.where}.{own}" if at.where else own
        at = _At(where, False, at.inside or not is_class)
    if slot is not None:
        constants = at.inside or parameters
        for kind, new in _variants(node, at.in_slice, constants):
            yield slot, at.where, kind, new
    skip = {"annotation", "returns", "decorator_list", "args", "type_params", "simple_stmt"}
    for field, value in ast.iter_fields(node):
        if field in skip and not (isinstance(node, ast.Call) and field == "args"):
            continue
        if isinstance(node, ast.keyword) and node.arg in SETTINGS:
            continue
        if isinstance(node, ast.Subscript) and field == "slice":
            at = _At(at.where, True, at.inside)
        if isinstance(node, ast.If) and field == "test" and _only_raises(node.body):
            continue
        items = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in items:
            if isinstance(child, ast.Expr) and _is_text(child.value):
                continue  # a docstring
            if isinstance(child, ast.AST):
                yield from _walk(child, (node, field, index), at, parameters)


def _all(tree: ast.AST, parameters: bool) -> list:
    return list(_walk(tree, None, _At(), parameters))


def faults(source: str, name: str, parameters: bool = True) -> list[Fault]:
    """Every fault that can be planted, in the order of the text.

    `parameters`: also change numbers outside of functions. A chapter sets the generic values of
    its checks there, and an identity holds at other values as well.
    """
    out, seen = [], {}
    for index, (slot, where, kind, new) in enumerate(_all(ast.parse(source), parameters)):
        parent, field, i = slot
        old = getattr(parent, field) if i is None else getattr(parent, field)[i]
        before, after = (_text(x) for x in (old, new))
        key = (where, before, after)
        seen[key] = seen.get(key, -1) + 1
        if before != after:
            out.append(Fault(name, where, kind, before, after, seen[key], index))
    return out


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Slice):
        node = ast.Subscript(ast.Name("_"), node)
    return re.sub(r"\s+", " ", ast.unparse(node))


def planted(source: str, fault: Fault, parameters: bool = True) -> ast.Module:
    """The tree of the text with this fault."""
    tree = ast.parse(source)
    slot, _, _, new = _all(tree, parameters)[fault.index]
    parent, field, i = slot
    old: Any = getattr(parent, field) if i is None else getattr(parent, field)[i]
    new = ast.copy_location(copy.deepcopy(new), old)
    if i is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[i] = new
    return ast.fix_missing_locations(tree)


def sample(everything: list[Fault], size: int, seed: int, name: str) -> list[Fault]:
    """`size` of the faults, or all; the same for a seed and a text, in the order of the text."""
    chosen = random.Random(f"{seed} {name}").sample(everything, min(size, len(everything)))
    return sorted(chosen, key=lambda f: f.index)
