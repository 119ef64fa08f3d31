"""A gRPC client: grpc_client.py HOST CA. In the bidirectional call each message waits for the answer to the one before."""
import queue
import sys

import grpc

with open(sys.argv[2], "rb") as f:
    credentials = grpc.ssl_channel_credentials(f.read())
channel = grpc.secure_channel(f"{sys.argv[1]}:443", credentials)

answer, call = channel.unary_unary("/lab.Echo/Unary").with_call(b"abc", timeout=10)
print("unary", answer.decode(), dict(call.trailing_metadata())["checksum"])

messages = queue.Queue()
messages.put(b"m0")
call = channel.stream_stream("/lab.Echo/Bidirectional")(iter(messages.get, None), timeout=10)
count = 0
for answer in call:
    assert answer == f"m{count}".encode()[::-1], answer
    count += 1
    messages.put(f"m{count}".encode() if count < 100 else None)
print("bidirectional", count, dict(call.trailing_metadata())["checksum"])

try:
    channel.unary_unary("/lab.Echo/Failing")(b"", timeout=10)
except grpc.RpcError as e:
    print("failing", e.code().name, e.details())

call = channel.stream_stream("/lab.Echo/Bidirectional")(iter([b"x"] and queue.Queue().get, None), timeout=10)
call.cancel()
print("cancelled", call.code().name)
