"""The interface of pools of workers, each a process somewhere that computes shards."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gibbon.runner.executors.protocol import ShardTask, WorkerReply


class WorkerPool(ABC):
    """Starts workers at numbered places, sends them tasks, and receives their replies.

    Attributes:
        count: number of places.
    """

    count: int

    @abstractmethod
    def start(self, place: int) -> None:
        """Starts a worker at a place, which replies `Ready` or `Refused`."""

    @abstractmethod
    def send(self, place: int, task: ShardTask) -> None:
        """Sends a task to a worker, which replies once."""

    @abstractmethod
    def replies(self, seconds: float) -> list[tuple[int, WorkerReply]]:
        """Returns the replies that came, each with its place; waits for one at most so long.

        A worker that ends without a reply is `Ended`, once.
        """

    @abstractmethod
    def end(self, place: int) -> None:
        """Ends the worker at a place, whatever it does; it replies no more."""

    def close(self) -> None:
        """Ends all workers."""
        for place in range(self.count):
            self.end(place)
