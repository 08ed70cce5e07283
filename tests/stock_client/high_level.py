"""The high-level client: the calls of the documentation as they go over the wire, and what it does about 503."""

import sys
import time
import urllib.request
from datetime import datetime, timezone

from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError
from mixpeek.models import SyncConfigurationModel

from calls import API_KEY, APPLICATION_KEY, BASE, BUCKET, FILES, KEY_ID, NAMESPACE, SOURCE, expect, until

client = Mixpeek(api_key=API_KEY, base_url=f"{BASE}/v1", namespace=NAMESPACE)
request = client._request
BACKBLAZE = {"type": "application_key", "key_id": KEY_ID, "application_key": APPLICATION_KEY}


def create_connection(name):
    body = {"name": name, "provider_type": "backblaze", "provider_config": {"credentials": BACKBLAZE}}
    return request("POST", "/organizations/connections", body=body)


def create_sync(source_path, **fields):
    body = {"connection_id": connection["connection_id"], "source_path": source_path, **fields}
    return request("POST", f"/buckets/{BUCKET}/syncs", body=body)


# B2 is down for the first call: the service answers 503 and when to come again, and the client does.
started = time.monotonic()
connection = create_connection("Backblaze B2 Production")
waited = time.monotonic() - started
if waited < 1:
    raise SystemExit(f"The first call was to be answered 503, and took {waited:.1f} s.")
expect("connections", request("POST", "/organizations/connections/list")["total"], 1)

# The snippets of the documentation.
sync = create_sync(f"b2://{SOURCE}/", sync_mode="scheduled", polling_interval_seconds=3600)
expect("the mode that was asked for", sync["schedule"]["mode"], "scheduled")
filtered = create_sync(
    f"b2://{SOURCE}/",
    sync_mode="scheduled",
    polling_interval_seconds=86400,
    include_patterns=["*.mp4", "*.mov", "*.jpg"],
    exclude_patterns=["*_thumbnail.*", "*.tmp"],
)
expect("patterns", filtered["file_filters"]["include_patterns"], ["*.mp4", "*.mov", "*.jpg"])
since = create_sync(
    f"b2://{SOURCE}/", sync_mode="continuous", polling_interval_seconds=300, modified_since="2024-01-01T00:00:00Z"
)
expect("a time", since["file_filters"]["modified_after"], "2024-01-01T00:00:00Z")
for aware in [datetime(2024, 1, 1, tzinfo=timezone.utc).isoformat(), "2024-01-01"]:
    create_sync(f"b2://{SOURCE}/", sync_mode="one_time", modified_since=aware)
# What the client does not know of yet, its models read as well.
nightly = create_sync(SOURCE, sync_mode="scheduled", schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin"})
nightly = SyncConfigurationModel.from_dict(nightly)
expect("times of the day", (nightly.schedule["cron"], nightly.schedule["timezone"]), ("0 3 * * *", "Europe/Berlin"))
for path in [f"s3://{SOURCE}/2024/", f"{SOURCE}/2024/", SOURCE]:
    create_sync(path, sync_mode="one_time")
curl = urllib.request.Request(
    f"{BASE}/v1/buckets/{BUCKET}/syncs/{sync['sync_config_id']}/trigger",
    method="POST",
    headers={"Authorization": f"Bearer {API_KEY}", "X-Namespace": NAMESPACE},
)
with urllib.request.urlopen(curl) as answer:
    expect("the trigger of the documentation", answer.status, 200)


def delivered():
    return request("GET", f"/buckets/{BUCKET}/syncs/{sync['sync_config_id']}")["total_files_synced"] == FILES


until("the first sync", delivered)
page = client.buckets.list_objects(BUCKET, page_size=2)
expect("a page of objects", len(page["results"]), 2)
following = client.buckets.list_objects(BUCKET, cursor=page["pagination"]["next_cursor"], page_size=2)
if {it["object_id"] for it in page["results"]} & {it["object_id"] for it in following["results"]}:
    raise SystemExit("Two pages have an object in common.")

# What cannot be mended by waiting is not tried again.
started = time.monotonic()
try:
    create_sync(f"b2://{SOURCE}-none/")
    raise SystemExit("A bucket that is not there was accepted.")
except MixpeekAPIError as error:
    expect("a bucket that is not there", error.status, 400)
    print(error, file=sys.stderr)
if time.monotonic() - started > 5:
    raise SystemExit("The client waited though nothing could change.")
print("The high-level client has made its calls.")
