"""The guard object: what `with snapshot(store)`, `async with` and the decorator do, with a session for each block."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup._support.threads import uninterrupted
from novabackup.errors import ConfigurationError
from novabackup.format.records import Point
from novabackup.objects.objects import Objects
from novabackup.operations.backup import Request
from novabackup.store.store import IndexStore
from novabackup.transaction.session import Call, Opener, Session

_P = ParamSpec("_P")
_T = TypeVar("_T")


@attrs.define(kw_only=True, eq=False)
class Guard:
    """Guards blocks of code. Each is a session of its own, so one guard can be entered again and again.

    Attributes:
        store: Opens the store.
        objects: The repository.
        opener: Opens another repository that an interrupted block may have used.
        target: What to record of the snapshot that is taken on entering, or an existing snapshot to go back to.
        timeout: Seconds to wait for another writer; None does not wait.
        callback: Progress in bytes.
    """

    store: Callable[[], IndexStore]
    objects: Objects
    opener: Opener
    target: Request | Point
    timeout: float | None = None
    callback: Callback = DEFAULT_CALLBACK
    _sessions: list[Session] = attrs.field(init=False, factory=list)

    def _enter(self, call: Call) -> Point:
        session = Session(self.store(), self.objects, self.opener, call)
        point = session.enter(self.target)
        self._sessions.append(session)
        return point

    def _exit(self, error: BaseException | None) -> None:
        self._sessions.pop().exit(error)

    def _call(self) -> Call:
        return Call(timeout=self.timeout, callback=self.callback)

    def __enter__(self) -> Point:
        return self._enter(self._call())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(error)

    async def __aenter__(self) -> Point:
        try:
            return await uninterrupted(functools.partial(self._enter, self._call()))
        except asyncio.CancelledError as cancelled:
            if self._sessions:  # entered before the task was cancelled: nothing else will leave it
                await uninterrupted(functools.partial(self._exit, cancelled))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await uninterrupted(functools.partial(self._exit, error))

    def decorate(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Guard every call of a function, or of a coroutine function.

        Raises:
            ConfigurationError: The function is a generator, whose body does not run when it is called.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"{function.__qualname__} is a generator: its body runs after the call has returned, outside of "
                "the guard. Use `with snapshot(store):` inside of it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def guarded_async(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                async with attrs.evolve(self):  # calls may overlap, and must not share sessions
                    return await cast("Callable[_P, Awaitable[Any]]", function)(*args, **kwargs)

            return cast("Callable[_P, _T]", guarded_async)

        @functools.wraps(function)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with attrs.evolve(self):
                return function(*args, **kwargs)

        return guarded
