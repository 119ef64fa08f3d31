"""A gRPC server without generated code: grpc_origin.py PORT PEM."""
import sys
from concurrent import futures

import grpc


def unary(request, context):
    context.set_trailing_metadata((("checksum", str(len(request))),))
    return request[::-1]


def bidirectional(requests, context):
    for request in requests:
        yield request[::-1]
    context.set_trailing_metadata((("checksum", "end"),))


def failing(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")


handlers = grpc.method_handlers_generic_handler("lab.Echo", {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Bidirectional": grpc.stream_stream_rpc_method_handler(bidirectional),
    "Failing": grpc.unary_unary_rpc_method_handler(failing),
})
with open(sys.argv[2], "rb") as f:
    pem = f.read()
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((handlers,))
server.add_secure_port(f"0.0.0.0:{sys.argv[1]}", grpc.ssl_server_credentials([(pem, pem)]))
server.start()
server.wait_for_termination()
