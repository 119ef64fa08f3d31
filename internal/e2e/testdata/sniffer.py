"""Prints what of an interface carries the canary or comes from the agent's side, one line a frame, until it is ended."""
import socket
import sys

sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind((sys.argv[1], 0))
agent = socket.inet_aton(sys.argv[2])
print("listening", flush=True)
while True:
    frame, address = sock.recvfrom(65535)
    if address[2] == socket.PACKET_OUTGOING:
        continue
    if b"CANARY-rootcell" in frame or frame[12:14] == b"\x08\x00" and frame[26:30] == agent:
        print(frame[:60].hex(), flush=True)
