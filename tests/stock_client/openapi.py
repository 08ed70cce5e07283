"""The description of the API, as the running service gives it: valid OpenAPI 3.1, and true of what the service answers."""

import json
import urllib.parse
import urllib.request

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from calls import API_KEY, APPLICATION_KEY, BASE, BUCKET, KEY_ID, NAMESPACE, SOURCE, expect


def call(method, path, body=None):
    headers = {"Authorization": f"Bearer {API_KEY}", "X-Namespace": NAMESPACE, "Accept": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{BASE}{path}", data=data, method=method, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


description = call("GET", "/openapi.json")
OpenAPIV31SpecValidator(description).validate()
expect("the version", description["openapi"], "3.1.0")


def check(method, path, answer):
    """The answer is as the description has it."""
    content = description["paths"][path][method]["responses"]["200"]["content"]["application/json"]
    schema = {**content["schema"], "components": description["components"]}
    errors = [f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(schema).iter_errors(answer)]
    expect(f"{method} {path}", errors, [])


def ask(method, path, body=None, **places):
    """One call of a path of the description. Its body is as the description has it too."""
    operation = description["paths"][path][method]
    if body is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        errors = [error.message for error in Draft202012Validator(schema).iter_errors(body)]
        expect(f"the body of {method} {path}", errors, [])
    target = path
    for name, value in places.items():
        target = target.replace(f"{{{name}}}", urllib.parse.quote(value, safe=""))
    query = "?key=2024%2Fclip%20000.mp4" if path.endswith("/explain") else ""
    answer = call(method.upper(), target + query, body)
    check(method, path, answer)
    return answer


CONNECTIONS = "/v1/organizations/connections"
SYNCS = "/v1/buckets/{bucket_id}/syncs"
SYNC = f"{SYNCS}/{{sync_config_id}}"
credentials = {"type": "application_key", "key_id": KEY_ID, "application_key": APPLICATION_KEY}
new = {"name": "Described", "provider_type": "backblaze", "provider_config": {"credentials": credentials}}
connection = ask("post", CONNECTIONS, new)
new = {"connection_id": connection["connection_id"], "source_path": SOURCE, "sync_mode": "scheduled"}
ask("post", f"{SYNCS}/preview", new, bucket_id=BUCKET)
sync = ask("post", SYNCS, new, bucket_id=BUCKET)
places = {"bucket_id": BUCKET, "sync_config_id": sync["sync_config_id"]}
job = ask("post", f"{SYNC}/trigger", **places)
job = {**places, "sync_job_id": job["sync_job_id"]}
while ask("get", f"{SYNC}/jobs/{{sync_job_id}}", **job)["status"] == "running":
    pass

# Every path that only reads, with ids that are there.
object_id = ask("get", "/v1/buckets/{bucket_id}/objects", bucket_id=BUCKET)["results"][0]["object_id"]
everything = {**job, "connection_id": "Described", "object_id": object_id}
def answers_json(operations):
    return "get" in operations and "application/json" in operations["get"]["responses"]["200"]["content"]


reads = [path for path, operations in description["paths"].items() if answers_json(operations)]
for path in reads:
    ask("get", path, **{name: value for name, value in everything.items() if f"{{{name}}}" in path})
for path in [f"{SYNC}/pause", f"{SYNC}/resume", f"{SYNC}/unlock"]:
    ask("post", path, **places)
with urllib.request.urlopen(f"{BASE}/docs") as page:
    expect("the page", page.headers["Content-Type"], "text/html; charset=utf-8")
    text = page.read().decode()
missing = [path for path in description["paths"] if f"<code>{path}</code>" not in text]
expect("what the page leaves out", missing, [])
if len(reads) < 15:
    raise SystemExit(f"The description has only {len(reads)} paths to read: {reads}")
print("The description is true of what the service answers.")
