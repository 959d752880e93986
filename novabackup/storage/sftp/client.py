"""The way to an SFTP server: a verified connection, opened again when it breaks, in a thread that an interrupt spares.

asyncssh is used as it is and not through the file system of ``sshfs``, which takes any host key by default, cannot be
given a time limit for connecting, and does not reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import asyncssh

from novabackup.errors import ConfigurationError
from novabackup.storage.sftp.connection import Connection, LostError, together
from novabackup.storage.sftp.url import Address

OPTIONS = """
    agent_identities agent_path client_certs client_keys compression_algs config connect_timeout disable_trivial_auth
    encryption_algs family gss_auth gss_delegate_creds gss_host gss_kex gss_store host_key_alias identities_only
    ignore_encrypted kbdint_auth keepalive_count_max keepalive_interval kex_algs known_hosts local_addr login_timeout
    mac_algs passphrase password password_auth pkcs11_pin pkcs11_provider port preferred_auth proxy_command
    public_key_auth rekey_bytes rekey_seconds server_host_key_algs signature_algs tcp_keepalive tunnel username
    x509_purposes x509_trusted_cert_paths x509_trusted_certs
"""
"""What a caller may say, by the names of asyncssh: all that concerns a client, nothing that turns its checks off."""

_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 30,
    "login_timeout": 30,
    "keepalive_interval": 15,
    "keepalive_count_max": 3,
    # On a distant server, what may be on its way at once bounds the speed.
    "window": 16 << 20,
}
_FAST = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Twice as fast as what asyncssh prefers, where processors help with AES."""
_ATTEMPTS = 7
"""Attempts to get work done over connections that break: over 6 seconds, as long as a server takes to start again."""
_LOGIN_TIMEOUT = "Login timeout"
_GIVING_UP = 10.0
"""Seconds to wait for work that was interrupted."""

_Result = TypeVar("_Result")


class Call(Generic[_Result]):
    """Work that is under way in the client's thread."""

    def __init__(self, engine: _Engine, work: Callable[[], Coroutine[Any, Any, _Result]]) -> None:
        """Start it."""
        self._engine = engine
        self._task: asyncio.Task[Any] | None = None
        self._is_given_up = threading.Event()
        self._ended = threading.Event()
        self._future: Future[_Result] = asyncio.run_coroutine_threadsafe(self._tracked(work), engine.loop)

    async def _tracked(self, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        self._task = asyncio.current_task()
        try:
            if self._is_given_up.is_set():
                raise asyncio.CancelledError
            return await work()
        finally:
            self._ended.set()

    def result(self) -> _Result:
        """Wait for the end; a caller that is interrupted while waiting leaves nothing running."""
        try:
            return self._future.result()
        except BaseException:
            self.give_up()
            raise

    def give_up(self) -> None:
        """End the work, if it has not ended, and wait until it has; its error is discarded."""
        self._is_given_up.set()  # before a look at the task: work that has not begun yet never will
        if not self._ended.is_set():
            task = self._task
            if task is not None:
                self._engine.loop.call_soon_threadsafe(task.cancel)
            self._ended.wait(_GIVING_UP)


class SftpClient:
    """Does work over one connection; several threads may ask for it at once, and a forked child gets its own."""

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        """Keep the options; nothing is sent yet.

        Args:
            address: The server.
            options: Some of `OPTIONS`.

        Raises:
            ConfigurationError: An option cannot be used.
        """
        self._url = address.url
        self._address = address
        self._options = dict(options)
        self._check_options()
        self._engine: _Engine | None = None
        self._inherited: list[_Engine] = []
        self._starting = threading.Lock()
        self._tally = _Tally()
        _clients.add(self)

    @property
    def requests(self) -> int:
        """How many requests have been sent."""
        return self._tally.requests

    def _check_options(self) -> None:
        unknown = sorted(self._options.keys() - set(OPTIONS.split()))
        if unknown:
            raise ConfigurationError(
                f"{self._url}: expected storage_options of asyncssh such as username, password, client_keys, "
                f"passphrase and known_hosts, found {', '.join(unknown)}. Leave them out"
            )
        if "known_hosts" in self._options and self._options["known_hosts"] is None:
            raise ConfigurationError(
                f"{self._url}: expected known_hosts to name a file, found None: the server's key is always verified. "
                "Leave the option out to use ~/.ssh/known_hosts"
            )
        for name, named in (("port", self._address.port), ("username", self._address.username)):
            if named is not None and self._options.setdefault(name, named) != named:
                raise ConfigurationError(
                    f"{self._url}: expected one {name}, found {self._options[name]!r} in storage_options and {named!r} "
                    "in the URL. Leave one of them out"
                )
        if not isinstance(self._options.get("tunnel", ""), str):
            raise ConfigurationError(f"{self._url}: expected a tunnel such as user@host, found an object")

    def run(self, work: Callable[[Connection], Coroutine[Any, Any, _Result]]) -> _Result:
        """Do something and wait for it; see `start`."""
        return self.start(work).result()

    def start(
        self, work: Callable[[Connection], Coroutine[Any, Any, _Result]], attempts: int = _ATTEMPTS
    ) -> Call[_Result]:
        """Begin something that is done again from its start when the connection breaks.

        Args:
            work: What to do with a connection; must bear being repeated after it had its effect.
            attempts: How often to try.
        """
        with self._starting:
            if self._engine is None:
                self._engine = _Engine()
                weakref.finalize(self, self._engine.stop)
            engine = self._engine
        return Call(engine, lambda: self._attempt(engine, work, attempts))

    def finish_with(self, connection: Connection, last: Callable[[], None]) -> None:
        """Do the last thing with what belongs to a connection, if it is the one in use, without waiting."""
        engine = self._engine
        if engine is not None and engine.connection is connection and not connection.is_broken:
            engine.loop.call_soon_threadsafe(last)

    def remove(self, *paths: str) -> None:
        """Remove temporary files, if that can be done at once."""

        async def work(connection: Connection) -> None:
            await together(connection.remove(path) for path in paths)

        if paths:
            with contextlib.suppress(OSError):
                self.start(work, attempts=2).result()

    async def _attempt(
        self, engine: _Engine, work: Callable[[Connection], Coroutine[Any, Any, _Result]], attempts: int
    ) -> _Result:
        for attempt in range(attempts):
            try:
                return await work(await self._connection(engine))
            except LostError:
                if attempt == attempts - 1:
                    raise
            # Spread at random, so that writers who were thrown out together do not come back together.
            await asyncio.sleep(0.1 * 2**attempt * (0.5 + secrets.randbelow(1000) / 1000))
        raise AssertionError("unreachable")

    async def _connection(self, engine: _Engine) -> Connection:
        async with engine.connecting:
            connection = engine.connection
            if connection is None or connection.is_broken:
                connection = await self._connect(again=connection is not None)
                engine.connection = connection
            return connection

    async def _connect(self, *, again: bool) -> Connection:
        """Connect and check the server's key; ``again``: a server that was connected before is expected to return."""
        where = self._address.host
        try:
            options = await self._prepared()
            ssh = await asyncssh.connect(where, options=options)
        except ConfigurationError:
            raise
        except asyncssh.HostKeyNotVerifiable as error:
            raise self._unverified(error) from None
        except asyncssh.PermissionDenied as error:
            raise PermissionError(
                errno.EACCES,
                f"the server accepts none of the credentials for the user {options.username!r} ({error.reason}). "
                "Looked in storage_options (password, client_keys, passphrase), the ssh agent and ~/.ssh",
                self._url,
            ) from None
        except (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError, EOFError) as error:
            if _LOGIN_TIMEOUT in str(error):
                raise TimeoutError(errno.ETIMEDOUT, "the server did not let us in for too long", self._url) from error
            # A server that has too many who are not logged in yet throws some of them out.
            raise LostError(errno.ECONNRESET, f"the server broke the connection off: {error}", self._url) from error
        except asyncssh.Error as error:
            raise ConfigurationError(f"{self._url}: no connection can be agreed upon: {error.reason}") from error
        except OSError as error:
            raise self._unreachable(error, again=again) from error
        except (ValueError, TypeError) as error:
            raise self._unusable(error) from None
        try:
            async with asyncio.timeout(float(_DEFAULTS["login_timeout"])):
                sftp = await ssh.start_sftp_client(path_errors="surrogateescape")
        except (asyncssh.ConnectionLost, asyncssh.SFTPConnectionLost) as error:
            ssh.abort()
            raise LostError(errno.ECONNRESET, f"the server broke the connection off: {error}", self._url) from error
        except (asyncssh.Error, TimeoutError) as error:
            ssh.abort()
            raise ConfigurationError(
                f"{self._url}: expected a server that speaks SFTP, found that it starts none ({error}). Look at "
                "'Subsystem sftp' in its sshd_config, and whether the account may use it"
            ) from error
        except BaseException:
            ssh.abort()
            raise
        return Connection(ssh, sftp, self._tally.add)

    async def _prepared(self) -> asyncssh.SSHClientConnectionOptions:
        """Put the options together, and make sure that they verify the server's key."""
        said = {**_DEFAULTS, **self._options}
        construct = asyncssh.SSHClientConnectionOptions.construct
        options: asyncssh.SSHClientConnectionOptions = await construct(None, host=self._address.host, **said)
        if "encryption_algs" not in said and options.config.get("Ciphers") is None:
            options = await construct(None, host=self._address.host, **said, encryption_algs=_FAST)
        if options.known_hosts is None:
            raise ConfigurationError(
                f"{self._url}: expected a file of known hosts, found 'UserKnownHostsFile none' in the ssh "
                "configuration: the server's key is always verified. Pass storage_options={'known_hosts': FILE}"
            )
        return options

    def _unverified(self, error: asyncssh.HostKeyNotVerifiable) -> ConfigurationError:
        host = self._options.get("host_key_alias") or self._address.host
        port = self._options.get("port")
        named = f"-p {port} {host}" if port else host
        kept = self._options.get("known_hosts")
        file = kept if isinstance(kept, str | os.PathLike) else "~/.ssh/known_hosts"
        return ConfigurationError(
            f"{self._url}: expected a server whose key is in {file}, found one that is unknown there, or another one "
            f"than there ({error.reason}). If this is its first use: 'ssh-keyscan {named} > key', compare 'ssh-keygen "
            f"-lf key' with what the server's owner says, and append it to {file}. If it was known before, someone "
            "may be in between: ask the owner before you replace its key"
        )

    def _unreachable(self, error: OSError, *, again: bool) -> Exception:
        if error.filename:
            return ConfigurationError(
                f"{self._url}: expected a file of keys or of known hosts, found that {error.filename!r} cannot be read "
                f"({error.strerror}). Look at storage_options and the ssh configuration"
            )
        host = self._address.host
        if isinstance(error, socket.gaierror):
            return OSError(
                errno.EHOSTUNREACH, f"the host name {host!r} cannot be resolved: {error.strerror}", self._url
            )
        number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno or errno.ECONNREFUSED
        text = f"the server at {host} cannot be reached: {error.strerror or str(error) or os.strerror(number)}"
        return LostError(number, text, self._url) if again else OSError(number, text, self._url)

    def _unusable(self, error: Exception) -> ConfigurationError:
        # Only such text is shown as names a file or an algorithm: others may hold what was passed, secrets included.
        keys = isinstance(error, asyncssh.KeyImportError | asyncssh.KeyEncryptionError)
        why = f": {error}" if keys else f" ({type(error).__name__})"
        return ConfigurationError(
            f"{self._url}: the storage_options ({', '.join(sorted(self._options)) or 'none'}) or the ssh configuration "
            f"cannot be used{why}. Look at the files of client_keys and at the passphrase"
        )

    def _begin_anew(self) -> None:
        """Forget the connection that a forked child shares with its parent.

        It is kept, as closing it would close it for the parent too.
        """
        self._starting = threading.Lock()
        if self._engine is not None:
            self._inherited.append(self._engine)
            self._engine = None


# What a process shares: a fork copies descriptors and locks, but none of the threads.
_clients: weakref.WeakSet[SftpClient] = weakref.WeakSet()


def _begin_anew() -> None:
    for client in list(_clients):
        client._begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


class _Tally:
    """Counts requests; apart from the client, which nothing that outlives it may hold."""

    def __init__(self) -> None:
        self.requests = 0

    def add(self) -> None:
        self.requests += 1


class _Engine:
    """A thread that turns an event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.connecting = asyncio.Lock()
        self.connection: Connection | None = None
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._turn, name="novabackup-sftp", daemon=True)
        self._thread.start()

    def _turn(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def stop(self) -> None:
        """End the connection and the thread; in a forked child, where there is none, do nothing."""
        if self._process != os.getpid() or self.loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(self._end(), self.loop)
            if threading.current_thread() is not self._thread:
                self._thread.join(1.0)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if self.connection is not None:
            self.connection.drop()
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=0.5)
        await asyncio.sleep(0)  # for the transport to be closed
        self.loop.stop()
