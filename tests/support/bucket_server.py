"""A bucket on this machine: an emulator of Google Cloud Storage, with the generations of objects for TensorStore.

As a program, `python tests/support/bucket_server.py PORT BUCKET` serves an empty bucket until it is ended;
`environment(PORT)` is what others need to find it.
"""

import contextlib
import socket
import sys
from collections.abc import Iterator
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def environment(port: int) -> dict[str, str]:
    """Variables for gcsfs, Google's client and TensorStore, in this order."""
    url = f"http://localhost:{port}"
    return {
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks for the kind of bucket by gRPC
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    }


def _generation(storage, bucket: str, name: str) -> str:
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def _download(request, response, storage, *rest, _original=objects.download):
    """With the generation in a header, and nothing for those who have that one."""
    generation = _generation(storage, request.params["bucket_name"], request.params["object_id"])
    if generation != "0" and request.query.get("ifGenerationNotMatch", [None])[0] == generation:
        response.status = HTTPStatus.NOT_MODIFIED
        return
    _original(request, response, storage, *rest)
    response["x-goog-generation"] = generation


def _insert(request, response, storage, *rest, _original=objects.insert):
    """Only over the generation that is asked for."""
    wanted = request.query.get("ifGenerationMatch", [None])[0]
    name = request.query.get("name", [""])[0]
    if wanted is not None and wanted != _generation(storage, request.params["bucket_name"], name):
        response.status = HTTPStatus.PRECONDITION_FAILED
        return
    _original(request, response, storage, *rest)


objects.download, objects.insert = _download, _insert
from gcp_storage_emulator.server import create_server  # noqa: E402, its table of handlers is made now


@contextlib.contextmanager
def serve(bucket: str, port: int | None = None) -> Iterator[int]:
    """An empty bucket in memory, at a port of this machine."""
    if port is None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
    with create_server("localhost", port, in_memory=True, default_bucket=bucket) as server:
        server._api._httpd.handle_error = lambda *_: (
            None
        )  # of clients that hang up, as gcsfs does on the slower of two requests
        yield port


if __name__ == "__main__":
    with serve(sys.argv[2], int(sys.argv[1])):
        sys.stdin.read()
