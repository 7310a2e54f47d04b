"""The signalling that tests of operations need: a WebSocket in a room."""

import json
import socket


class Refused(Exception):
    """The server did not take somebody in."""


def join(port, room, patience):
    """A WebSocket in a room; returns the connection and what `joined` says."""
    stream = socket.create_connection(("127.0.0.1", port), patience)
    stream.sendall(
        b"GET /ws HTTP/1.1\r\nHost: l\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    file = stream.makefile("rb")
    while file.readline() not in (b"\r\n", b""):
        pass
    say(stream, {"type": "join", "roomId": room})
    while True:
        message = receive(file)
        if message["type"] == "joined":
            return stream, message
        if message["type"] == "error":
            raise Refused(message)


def say(stream, message):
    """Sends a JSON message."""
    text = json.dumps(message).encode()
    assert len(text) < 126
    # A mask of zeros masks nothing (RFC 6455 §5.3).
    stream.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)


def receive(file):
    """The next JSON message."""
    while True:
        head = file.read(2)
        assert len(head) == 2, "the socket has ended"
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(file.read(2), "big")
        elif length == 127:
            length = int.from_bytes(file.read(8), "big")
        payload = file.read(length)
        if head[0] & 0x0F == 1:
            return json.loads(payload)
