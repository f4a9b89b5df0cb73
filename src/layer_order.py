"""In which order a network's variables meet what comes in: how deep each is. A module lists them in any order.

depths(function, variables)       # [1, 2, 2, 5, ...]: operations between the input and the first that uses the variable
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf


class _Value(NamedTuple):
    """What comes out of an operation: how deep below the input (-1: it depends on no input), and variables read so far."""

    depth: int
    variables: frozenset[int]


NOTHING = _Value(-1, frozenset())


def depths(function: tf.types.experimental.ConcreteFunction, variables: Sequence[tf.Variable]) -> list[int | None]:
    """How deep in a function of one input each variable is first used; None for one that it does not use."""
    graph = function.graph.as_graph_def()
    number_of = {id(variable.handle): number for number, variable in enumerate(variables)}
    values = {}
    for outside, inside in function.graph.captures:
        number = number_of.get(id(outside))
        values[inside.op.name] = NOTHING if number is None else _Value(-1, frozenset([number]))
    for tensor in function.graph.inputs:
        values.setdefault(tensor.op.name, _Value(0, frozenset()))
    found: dict[int, int] = {}
    _walk(graph.node, values, {each.signature.name: each for each in graph.library.function}, found)
    return [found.get(number) for number in range(len(variables))]


def _walk(nodes: Iterable[Any], values: dict[str, _Value], functions: dict[str, Any], found: dict[int, int]) -> None:
    """Give each node its value, inputs before what uses them; note in `found` where variables first meet the input."""
    waiting = {node.name: node for node in nodes if node.name not in values}
    needs = {name: {_source(text) for text in node.input} & set(waiting) for name, node in waiting.items()}
    users: dict[str, list[str]] = {}
    for name, sources in needs.items():
        for source in sources:
            users.setdefault(source, []).append(name)
    ready = [name for name, sources in needs.items() if not sources]
    while ready:
        name = ready.pop()
        node = waiting[name]
        inputs = [values.get(_source(text), NOTHING) for text in node.input if not text.startswith("^")]
        values[name] = _answer(node, inputs, functions, found)
        for user in users.get(name, ()):
            needs[user].discard(name)
            if not needs[user]:
                ready.append(user)


def _source(text: str) -> str:
    return text.lstrip("^").split(":")[0]


def _answer(node: Any, inputs: list[_Value], functions: dict[str, Any], found: dict[int, int]) -> _Value:
    called = [attribute.func.name for attribute in node.attr.values() if attribute.HasField("func")]
    answers = []
    for definition in (functions[name] for name in called if name in functions):
        arguments = definition.signature.input_arg
        given = inputs[len(inputs) - len(arguments) :]  # without the condition of an If
        values = {argument.name: value for argument, value in zip(arguments, given)}
        _walk(definition.node_def, values, functions, found)
        answers += [values.get(_source(text), NOTHING) for text in definition.ret.values()]
    together = _together(answers or inputs)
    if answers or together.depth < 0:
        return together
    for number in together.variables:
        found[number] = min(found.get(number, together.depth + 1), together.depth + 1)
    return _Value(together.depth + 1, frozenset())


def _together(values: list[_Value]) -> _Value:
    depth = max((value.depth for value in values), default=-1)
    return _Value(depth, frozenset().union(*(value.variables for value in values)))
