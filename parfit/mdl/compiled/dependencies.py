"""What needs what: a graph of variables, stocks, delays and macros, as PySD's translation states it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from parfit.mdl.compiled.named import Named
from parfit.mdl.compiled.section import Macro, Section
from parfit.mdl.compiled.statefuls import Initial
from parfit.mdl.compiled.tables import Knots

__all__ = ["Dependencies", "Node", "nodes_in"]

#: A variable, stock, delay or macro: its section and its name there.
Node = tuple[Section, str]


def nodes_in(section: Section, names: Iterable[str]) -> Iterator[Node]:
    """Those of the names that stand for a node of the section."""
    # In an order that is the same in every process, so that the program is the same text, and is found again.
    for name in sorted(names):
        if name in section.elements or name in section.needs:
            yield section, name


class Dependencies:
    """What the nodes of a model, each of which knows its section, are computed from, and which change over time.

    Attributes
    ----------
    overrides
        What takes the place of variables, by their keys: numbers, or knots over time. Such a variable needs nothing.
        What is known of changes outlives them: see `forget_changes`.
    """

    def __init__(self) -> None:
        self.overrides: Mapping[str, Named | Knots] = {}
        self._changing: dict[str, bool] = {}

    def needs(self, node: Node, *, initial: bool | None = None) -> Iterator[Node]:
        """What a node is computed from; of what is remembered: at the start, at each step, or (None) both."""
        section, name = node
        if name in section.elements:
            if section.key + name not in self.overrides:
                yield from nodes_in(section, section.elements[name].needs)
            return
        needs = section.needs[name]
        held = section.namespace.get(name)
        if isinstance(held, Macro):
            yield held.inner, held.result
        if initial is not False:
            yield from nodes_in(section, needs.initial)
        if initial is not True or isinstance(held, Macro):
            yield from nodes_in(section, needs.step)

    def closure(
        self, nodes: Iterable[Node], *, initial: bool | None = None, only: Collection[str] | None = None
    ) -> list[Node]:
        """Nodes and all (or only some) that they are computed from, each after what it needs, where no circle is."""
        found: dict[str, Node] = {}
        seen: set[str] = set()
        stack: list[tuple[Node, Iterator[Node]]] = []

        def push(node: Node) -> None:
            key = node[0].key + node[1]
            if key not in seen and (only is None or key in only):
                seen.add(key)
                stack.append((node, self.needs(node, initial=initial)))

        for root in nodes:
            push(root)
            while stack:
                node, waiting = stack[-1]
                following = next(waiting, None)
                if following is None:
                    stack.pop()
                    found[node[0].key + node[1]] = node
                else:
                    push(following)
        return list(found.values())

    def changes(self, node: Node) -> bool:
        """Whether a node changes over time; what has been found is kept until `forget_changes`."""
        key = node[0].key + node[1]
        if key not in self._changing:
            for part, name in self.closure([node], initial=True):
                inner = part.key + name
                if inner not in self._changing:
                    self._changing[inner] = self._changes_itself(part, name) or any(
                        self._changing.get(other[0].key + other[1], False)
                        for other in self.needs((part, name), initial=True)
                        if not isinstance(part.namespace.get(name), Initial)
                    )
        return self._changing[key]

    def forget_changes(self) -> None:
        """Let `changes` find out anew: with other overrides, other variables change."""
        self._changing.clear()

    def _changes_itself(self, section: Section, name: str) -> bool:
        element = section.elements.get(name)
        if element is None:
            return not isinstance(section.namespace.get(name), Initial)
        override = self.overrides.get(section.key + name)
        if override is not None:
            return isinstance(override, Knots)
        return name == "time" or element.draws or "time" in element.needs
