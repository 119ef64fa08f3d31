"""A WebSocket echo server: websocket_origin.py PORT PEM."""
import asyncio
import ssl
import sys

import websockets


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    async with websockets.serve(echo, "0.0.0.0", int(sys.argv[1]), ssl=context, max_size=None):
        await asyncio.Future()


asyncio.run(main())
