"""A WebSocket client: websocket_client.py HOST. Prints what it got, one item a line."""
import asyncio
import ssl
import sys

import websockets


async def main():
    async with websockets.connect(f"wss://{sys.argv[1]}/", ssl=ssl.create_default_context(), max_size=None) as socket:
        await socket.send("hello")
        print(await socket.recv())
        await socket.send(b"x" * 1_000_000)
        print(len(await socket.recv()))
        pong = await socket.ping()
        await asyncio.wait_for(pong, 5)
        print("pong")
    print(socket.close_code)


asyncio.run(main())
