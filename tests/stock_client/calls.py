"""What the scripts here share: where the service is, and how an expectation is told."""

import os
import time

import mixpeek

BASE = os.environ["BASE"]
API_KEY = os.environ["API_KEY"]
NAMESPACE = "ns_stock"
BUCKET = "bkt_stock"
KEY_ID = os.environ["B2_KEY_ID"]
APPLICATION_KEY = os.environ["B2_APPLICATION_KEY"]
SOURCE = os.environ["B2_BUCKET"]
FILES = int(os.environ["FILES"])


def typed():
    """The typed client, as its own documentation configures it."""
    configuration = mixpeek.Configuration(host=BASE, access_token=API_KEY, api_key={"NamespaceHeader": NAMESPACE})
    return mixpeek.ApiClient(configuration)


def expect(what, actual, wanted):
    if actual != wanted:
        raise SystemExit(f"{what}: {actual!r} in place of {wanted!r}")


def refused(what, call, status, kind):
    """The call fails with this status, and with the error envelope that the client's users read."""
    try:
        answer = call()
    except mixpeek.ApiException as error:
        expect(f"{what}: status", error.status, status)
        body = __import__("json").loads(error.body)
        expect(f"{what}: success", body["success"], False)
        expect(f"{what}: type", body["error"]["type"], kind)
        if not body["error"]["message"]:
            raise SystemExit(f"{what}: no message")
        return body["error"]
    raise SystemExit(f"{what} was not refused: {answer!r}")


def until(what, look, seconds=60):
    """Looks until there is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"{what}: not within {seconds} s")
