"""The provider of development and demo: one JSON line for each SMS in a file.

The file holds phones and codes in clear, so it is for development only, and only its owner may read it.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from services.notify.providers import Outgoing

log = structlog.get_logger()

FILE_MODE: Final = 0o600
FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class FileProvider:
    """Appends to `path`; can tell what it has written. SMS that are sent at once share a write and its fsync."""

    name: Final = "file"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        log.warning("SMS go to a file, phones and codes in clear: for development only")

    async def send(self, sms: Outgoing) -> None:
        """Returns when the line is on the disk."""
        line = {
            "sms_id": str(sms.sms_id),
            "phone": sms.phone,
            "purpose": sms.purpose,
            "text": sms.text,
            "sent_at": sms.at.isoformat(),
        }
        on_disk = asyncio.get_running_loop().create_future()
        self._waiting.append(((json.dumps(line, ensure_ascii=False) + "\n").encode(), on_disk))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await on_disk

    async def _write(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            failure: OSError | None = None
            try:
                await asyncio.to_thread(self._append, b"".join(line for line, _ in waiting))
            except OSError as error:
                failure = error
            for _, on_disk in waiting:
                if on_disk.done():
                    continue  # its caller had no more patience
                if failure is None:
                    on_disk.set_result(None)
                else:
                    on_disk.set_exception(failure)

    async def was_sent(self, sms_id: UUID) -> bool:
        """Whether a whole line with that id stands in the file."""
        return await asyncio.to_thread(self._contains, sms_id)

    def _append(self, lines: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, FLAGS, FILE_MODE)
        try:
            os.chmod(self.path, FILE_MODE)  # also where the file was there before
            # One write, so that lines of several processes never mix. What a power cut left of a line is ended first.
            data = b"\n" + lines if self._ends_torn(descriptor) else lines
            written = os.write(descriptor, data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _ends_torn(descriptor: int) -> bool:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size == 0:
            return False
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        return os.read(descriptor, 1) != b"\n"

    def _contains(self, sms_id: UUID) -> bool:
        wanted = str(sms_id)
        try:
            with self.path.open("rb") as file:
                return any(wanted.encode() in line and _id_of(line) == wanted for line in file)
        except FileNotFoundError:
            return False


def _id_of(line: bytes) -> str | None:
    """The id of a whole line; None of a torn one."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("sms_id") if line.endswith(b"\n") and isinstance(found, dict) else None
