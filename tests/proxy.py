"""A proxy that cuts connections to PostgreSQL where it hurts: after the server has committed, before anybody knows."""

import asyncio
from typing import Final
from urllib.parse import parse_qs, urlsplit

COMMIT: Final = b"COMMIT;\0"


class Proxy:
    """Between a service and PostgreSQL: lets all pass, cuts all, or cuts the next COMMIT that has arrived."""

    def __init__(self, dsn: str) -> None:
        """`dsn`: the server's, through TCP or the folder of its socket."""
        self._server_dsn = urlsplit(dsn)
        self.commits_to_cut = 0
        self.commits_cut = 0
        self.open = True
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    @property
    def dsn(self) -> str:
        """The way to the same database through here."""
        login = self._server_dsn.netloc.rpartition("@")[0]
        return self._server_dsn._replace(netloc=f"{login}@127.0.0.1:{self.port}", query="").geturl()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query = parse_qs(self._server_dsn.query)
        if folder := query.get("host"):
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{query['port'][0]}")
        return await asyncio.open_connection("127.0.0.1", self._server_dsn.port)

    def cut(self) -> None:
        """Ends all connections at once."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        server_reader, server_writer = await self._connected()
        self._writers |= {writer, server_writer}
        answers = asyncio.create_task(self._pump(server_reader, writer))
        try:
            while chunk := await reader.read(65536):
                if self.commits_to_cut and chunk.endswith(COMMIT):
                    self.commits_to_cut -= 1
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    server_writer.write(chunk)
                    await server_reader.read(65536)  # it has been done, and nobody will ever hear of it
                    self.commits_cut += 1
                    break
                server_writer.write(chunk)
        except ConnectionError:  # one side is gone: the other one is told below
            pass
        finally:
            answers.cancel()
            for one in (writer, server_writer):
                one.transport.abort()
            self._writers -= {writer, server_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
        writer.close()
