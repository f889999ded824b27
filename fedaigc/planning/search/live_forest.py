"""A forest whose points come, change their number of tasks, and go."""

from collections.abc import Iterable, Sequence

from fedaigc.planning.search.agglomerate import NEIGHBOURS, agglomerate, join
from fedaigc.planning.search.forest import Block, Forest, Tables


class LiveForest(Forest):
    """A forest with places for points; a place without tasks is free.

    Attributes:
        power: Power of the scores of merges.
    """

    def __init__(self, tables: Tables, places: int, power: float) -> None:
        """Make a forest of free places.

        Args:
            tables: The setting's tables.
            places: The most points.
            power: Power of the scores of merges.
        """
        self.power = power
        self._squares = [[0.0] * places for _ in range(places)]
        self._counts, self._own, self._slack = [0] * places, [0.0] * places, [0.0] * places
        super().__init__(tables, self._squares, self._counts, self._own, self._slack)

    @property
    def present(self) -> list[int]:
        """The places that hold points."""
        return [place for place, count in enumerate(self._counts) if count]

    def put(self, place: int, line: Sequence[float], own: float, slack: float) -> None:
        """Put a point with one task into a free place, by itself.

        Args:
            place: The place.
            line: Squared distance to the point of each place.
            own: Cost of a step on the task's device.
            slack: What is added to the point's distances.
        """
        self._squares[place] = list(line)
        for other, square in zip(self._squares, line, strict=True):
            other[place] = square
        self._slack[place], self._own[place] = slack, 0.0
        self.add(place, 1, own)

    def add(self, place: int, tasks: int, own: float) -> None:
        """Add tasks to a point, or take some away; its tree stays together where the tolerance allows it.

        Args:
            place: The place of the point.
            tasks: Number of tasks; negative ones are taken away.
            own: Cost of a step on their devices, of the same sign.
        """
        tree = [p for p in self.tree(place) if p != place]
        structure = [{id(row[p]): row[p].points for p in (*tree, place)}.values() for row in self.blocks]
        self._counts[place] += tasks
        self._own[place] = self._own[place] + own if self._counts[place] else 0.0
        self._pairs.clear()
        self._alone[place] = self._single(place)
        self.dissolve([*tree, place])
        left = [*tree, place] if self._counts[place] else tree
        if tree and not self._rebuilt(structure, left):
            self.dissolve(left)
            join(self, left, self.power)

    def clear(self, places: Iterable[int]) -> None:
        """Free the places of whole trees."""
        gone = list(places)
        for place in gone:
            self._counts[place], self._own[place] = 0, 0.0
            self._alone[place] = self._single(place)
        self._pairs.clear()
        self.dissolve(gone)

    def reach(self, place: int) -> None:
        """Merge a point's tree with trees near the point as far as it goes."""
        line = self._squares[place]
        near = sorted((p for p in self.present if p != place), key=line.__getitem__)[:NEIGHBOURS]
        agglomerate(self, [(place, other) for other in near], self.power)

    def _rebuilt(self, structure: Iterable[Iterable[tuple[int, ...]]], points: Sequence[int]) -> bool:
        """Set the blocks of a tree anew from their points; return whether all stay within the tolerance."""
        used = dict.fromkeys(points, 0.0)
        for rung, (row, blocks) in enumerate(zip(self.blocks, structure, strict=True)):
            for block in blocks:
                members = tuple(p for p in block if self._counts[p])
                if len(members) < 2:
                    for p in members:
                        used[p] += row[p].added[0]
                    continue
                made = self._made(rung, members)
                for p, extra in zip(members, made.added, strict=True):
                    used[p] += extra
                    row[p] = made
        for p, damage in used.items():
            self.used[p] = damage
            self.changes[p] = self._clock
        return max(used.values()) <= self.tables.tolerance

    def _made(self, rung: int, members: tuple[int, ...]) -> Block:
        """Return the block of some points, two and more."""
        made = self._alone[members[0]][0][rung]
        for p in members[1:]:
            other = self._alone[p][0][rung]
            added, sums, total = self._computed(rung, made, other)
            tasks, own = made.tasks + other.tasks, made.own + other.own
            cost = self.tables.cost(rung, tasks, own, True)
            made = Block((*made.points, p), tasks, own, tuple(sums), total, tuple(added), cost, True)
        return made
