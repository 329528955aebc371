"""Requests that arrive together are worked on together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any


class Batcher:
    """Collects what requests ask for, and works on it in batches in a thread, one batch at a time.

    Parameters
    ----------
    work : callable
        From a batch to one answer each: a value, or the exception to raise.
    most : int
        Largest batch.
    wait : float
        Seconds that the first of a batch waits for others. While a batch is worked on, the next one gathers anyway.
    """

    def __init__(self, work: Callable[[Sequence[Any]], Sequence[Any]], *, most: int, wait: float) -> None:
        self._work, self._most, self._wait = work, most, wait
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    async def ask(self, item: Any) -> Any:
        """The answer for one item."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._waiting.put((item, answer))
        return await answer

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            await asyncio.sleep(self._wait)
            while len(batch) < self._most and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            items, futures = zip(*batch, strict=True)
            try:
                answers = await asyncio.to_thread(self._work, items)
            except Exception as error:
                answers = [error] * len(items)
            for future, answer in zip(futures, answers, strict=True):
                if future.cancelled():  # who asked has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
