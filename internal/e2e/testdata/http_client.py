"""Clients from Python's standard library: http_client.py TASK HOST. What they find they print."""
import http.client
import json
import ssl
import sys

task, host = sys.argv[1:3]
context = ssl.create_default_context()


def pieces():
    for n in range(10):
        yield f"piece {n};".encode()


def keep_alive():
    connection = http.client.HTTPSConnection(host, context=context, timeout=10)
    sockets = set()
    for n in range(20):
        connection.request("GET", f"/inspect/{n}")
        sockets.add(connection.sock)
        response = connection.getresponse()
        assert json.load(response)["url"] == f"/inspect/{n}"
    print(len(sockets))


def chunked_upload():
    connection = http.client.HTTPSConnection(host, context=context, timeout=10)
    connection.request("POST", "/inspect", body=pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    print(json.load(connection.getresponse())["length"])


def pipelining():
    import socket
    raw = context.wrap_socket(socket.create_connection((host, 443), 10), server_hostname=host)
    lines = [f"POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\n{n:04d}" for n in range(20)]
    raw.sendall("".join(lines).encode())
    got = []
    reader = raw.makefile("rb")
    for _ in lines:
        response = http.client.HTTPResponse.__new__(http.client.HTTPResponse)
        response.__init__(raw, method="POST")
        response.fp.close()
        response.fp = Unclosed(reader)
        response.begin()
        got.append(int(response.read()))
    print(got == list(range(20)))


class Unclosed:
    """A reader that outlives the response that reads it."""

    def __init__(self, reader):
        self.reader = reader

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def close(self):
        pass


def truncated():
    for path in ("/truncated?length", "/truncated"):
        connection = http.client.HTTPSConnection(host, context=context, timeout=10)
        connection.request("GET", path)
        try:
            print(path, len(connection.getresponse().read()))
        except http.client.IncompleteRead as e:
            print(path, "incomplete", len(e.partial))


globals()[task]()
