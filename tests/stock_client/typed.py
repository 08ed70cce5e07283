"""The whole life of a connection and a sync with the typed client: every call of its connection, sync, job, dead
letter, metrics and object API. Each answer passes the client's own models, or this script ends with an error."""

import mixpeek
from mixpeek import models

from calls import APPLICATION_KEY, BUCKET, FILES, KEY_ID, SOURCE, expect, refused, typed, until

client = typed()
connections = mixpeek.OrganizationConnectionsApi(client)
syncs = mixpeek.BucketSyncsApi(client)
objects = mixpeek.BucketObjectsApi(client)


def connection_request(name, **changes):
    credentials = {"type": "application_key", "key_id": KEY_ID, "application_key": APPLICATION_KEY}
    fields = {
        "name": name,
        "provider_type": models.StorageProvider.BACKBLAZE,
        "provider_config": {"provider_type": "backblaze", "credentials": credentials},
        "description": "Of the stock client",
        "metadata": {"team": "media"},
        **changes,
    }
    return models.StorageConnectionCreateRequest(**fields)


# ---- connections ----

created = connections.create_storage_connection_organizations(connection_request("Stock / B2"))
expect("a new connection", (created.name, created.status), ("Stock / B2", models.TaskStatusEnum.ACTIVE))
expect("its metadata", created.metadata, {"team": "media"})
if APPLICATION_KEY in created.to_str() or KEY_ID in created.to_str():
    raise SystemExit("The answer shows the key.")
connection_id = created.connection_id

by_name = connections.get_storage_connection_organizations("Stock / B2")
expect("a connection by its name", by_name.connection_id, connection_id)
expect("by its id", connections.get_storage_connection_organizations(connection_id).name, "Stock / B2")
refused(
    "a name that is taken",
    lambda: connections.create_storage_connection_organizations(connection_request("Stock / B2")),
    409,
    "AlreadyExistsError",
)
wrong = {"credentials": {"type": "application_key", "key_id": KEY_ID, "application_key": "K005wrong"}}
refused(
    "a wrong key",
    lambda: connections.create_storage_connection_organizations(connection_request("Wrong", provider_config=wrong)),
    400,
    "BadRequestError",
)

tested = connections.test_storage_connection_organizations(connection_id)
expect("a test", tested.success, True)
updated = connections.update_storage_connection_organizations(
    connection_id, models.StorageConnectionUpdateRequest(description="Changed", metadata={"team": "video"})
)
expect("a changed connection", (updated.description, updated.metadata), ("Changed", {"team": "video"}))

listed = connections.list_storage_connections_organizations()
expect("a list of connections", (listed.total, listed.results[0].connection_id), (1, connection_id))
wanted = models.ListStorageConnectionsRequest(provider_type="backblaze", status="ACTIVE", is_active=True)
listed = connections.list_storage_connections_organizations(
    limit=10, offset=0, include_total=True, list_storage_connections_request=wanted
)
expect("a list with filters", [it.connection_id for it in listed.results], [connection_id])
expect("a page behind the last", connections.list_storage_connections_organizations(page_size=10, page=2).results, [])
refused(
    "a provider that b2sync does not have",
    lambda: connections.list_google_drive_files_organizations_connections(connection_id),
    404,
    "NotFoundError",
)
refused(
    "its folders",
    lambda: connections.list_google_drive_folders_organizations_connections(connection_id),
    404,
    "NotFoundError",
)

# ---- a sync ----

request = models.SyncCreateRequest(
    connection_id=connection_id,
    source_path=f"b2://{SOURCE}/",
    sync_mode=models.SyncMode.CONTINUOUS,
    file_filters={"exclude_patterns": ["*.tmp"]},
    polling_interval_seconds=300,
    batch_size=50,
    reconcile=models.ReconcileSettings(on_delete=True, on_update=True, on_filter_drift=True),
    description="Everything",
    metadata={"purpose": "test"},
)
sync = syncs.create_sync_configuration_buckets(BUCKET, request)
sync_id = sync.sync_config_id
expect("a new sync", (sync.bucket_id, sync.connection_id, sync.locked), (BUCKET, connection_id, False))
expect("its source", sync.source_path, f"b2://{SOURCE}/")

got = syncs.get_sync_configuration_buckets_id_config(BUCKET, sync_id)
expect("a sync by its id", (got.sync_config_id, got.description), (sync_id, "Everything"))
listed = syncs.list_sync_configurations_buckets(BUCKET)
expect("a list of syncs", (listed.total, listed.results[0].sync_config_id), (1, sync_id))
wanted = models.ListSyncConfigurationsRequest(connection_id=connection_id, is_active=True)
listed = syncs.list_sync_configurations_buckets(BUCKET, limit=5, list_sync_configurations_request=wanted)
expect("a list with filters", [it.sync_config_id for it in listed.results], [sync_id])

# ---- jobs ----

triggered = syncs.trigger_sync_configuration_buckets_id_config(BUCKET, sync_id)
job_id = triggered["sync_job_id"] if isinstance(triggered, dict) else triggered.sync_job_id


def ended():
    job = syncs.get_sync_job_buckets_id_config(BUCKET, sync_id, job_id)
    return job if job.status != models.SyncJobStatus.RUNNING else None


job = until("the first job", ended)
expect("the first job", (job.status, job.files_synced), (models.SyncJobStatus.COMPLETED, FILES))
listed = syncs.list_sync_jobs_buckets_id_config(BUCKET, sync_id)
if job_id not in [it.sync_job_id for it in listed.results]:
    raise SystemExit(f"The list of jobs has no {job_id}: {listed}")
wanted = models.ListSyncJobsRequest(status=models.SyncJobStatus.COMPLETED)
listed = syncs.list_sync_jobs_buckets_id_config(BUCKET, sync_id, page_size=10, list_sync_jobs_request=wanted)
expect("completed jobs", {it.status for it in listed.results}, {models.SyncJobStatus.COMPLETED})
wanted = models.ListSyncJobsRequest(status=models.SyncJobStatus.FAILED)
listed = syncs.list_sync_jobs_buckets_id_config(BUCKET, sync_id, list_sync_jobs_request=wanted)
expect("failed jobs", (listed.total, listed.results), (0, []))
refused(
    "a job that is not there",
    lambda: syncs.get_sync_job_buckets_id_config(BUCKET, sync_id, "job_none"),
    404,
    "NotFoundError",
)

metrics = syncs.get_sync_metrics_buckets_id_config(BUCKET, sync_id)
expect("metrics", (metrics.sync_config_id, metrics.is_stale), (sync_id, False))
stands = syncs.get_sync_configuration_buckets_id_config(BUCKET, sync_id)
expect("the sync after its first job", (stands.status, stands.total_files_synced), ("ACTIVE", FILES))

# ---- objects ----

page = objects.list_objects_get_buckets(BUCKET, limit=FILES)
expect("objects", len(page.results), FILES)
keys = sorted(it.key_prefix for it in page.results)
posted = objects.list_objects_buckets(
    BUCKET,
    page_size=2,
    include_total=True,
    list_objects_request=models.ListObjectsRequest(return_presigned_urls=True),
)
expect("a page of objects", (len(posted.results), posted.pagination.total), (2, FILES))
seen, cursor = [], None
while True:
    page = objects.list_objects_buckets(BUCKET, limit=3, cursor=cursor)
    seen += [it.key_prefix for it in page.results]
    cursor = page.pagination.next_cursor
    if cursor is None:
        break
expect("all pages", seen, keys)
one = objects.get_object_buckets(BUCKET, posted.results[0].object_id, return_presigned_urls=True)
expect("an object", (one.key_prefix, one.bucket_id), (posted.results[0].key_prefix, BUCKET))
with __import__("urllib.request").request.urlopen(one.blobs[0].presigned_url) as answer:
    expect("its file", len(answer.read()), one.blobs[0].details.size_bytes)
refused(
    "an object that is not there", lambda: objects.get_object_buckets(BUCKET, "obj_none"), 404, "NotFoundError"
)
# Objects come from the bucket: what the real service has to write them, b2sync has not.
create = models.CreateObjectRequest(key_prefix="x")
for what, call in {
    "creating an object": lambda: objects.create_object_buckets(BUCKET, create),
    "creating objects": lambda: objects.create_objects_batch_buckets(
        BUCKET, models.CreateObjectsBatchRequest(objects=[create])
    ),
    "changing an object": lambda: objects.patch_object_buckets(BUCKET, one.object_id, models.PatchObjectRequest()),
    "replacing an object": lambda: objects.update_object_buckets(BUCKET, one.object_id, models.UpdateObjectRequest()),
    "disabling objects": lambda: objects.bulk_soft_delete_objects_buckets(
        BUCKET, models.BulkSoftDeleteRequest(object_ids=[one.object_id], reason="none")
    ),
}.items():
    refused(what, call, 405, "MethodNotAllowedError")
expect("a deleted object", objects.delete_object_buckets(BUCKET, one.object_id), None)
refused("a deleted object", lambda: objects.get_object_buckets(BUCKET, one.object_id), 404, "NotFoundError")

# ---- dead letters: the catalogue refuses nothing ----

letters = syncs.list_dlq_entries_buckets_id_syncs_config(BUCKET, sync_id)
expect("dead letters", (letters.total, letters.results), (0, []))
wanted = models.ListDLQRequest(only_max_retries=True, error_types=["refused"])
letters = syncs.list_dlq_entries_buckets_id_syncs_config(BUCKET, sync_id, list_dlq_request=wanted)
expect("dead letters with filters", letters.total, 0)
expect("requeued", syncs.requeue_dlq_entries_buckets_id_syncs_config(BUCKET, sync_id).requeued, 0)
wanted = models.BulkRequeueDLQRequest(error_types=["refused"])
requeued = syncs.requeue_dlq_entries_buckets_id_syncs_config(BUCKET, sync_id, bulk_requeue_dlq_request=wanted)
expect("requeued by type", requeued.requeued, 0)
wanted = models.BulkMarkDLQRequest(error_types=["refused"])
marked = syncs.bulk_mark_dlq_permanently_failed_buckets_id_syncs_config(BUCKET, sync_id, wanted)
expect("given up", marked.updated, 0)

# ---- how a sync goes on ----

change = models.SyncUpdateRequest(polling_interval_seconds=600, description="Slower", metadata={"purpose": "both"})
changed = syncs.update_sync_configuration_buckets_id_config(BUCKET, sync_id, change)
expect("a changed sync", (changed.polling_interval_seconds, changed.description), (600, "Slower"))
paused = syncs.pause_sync_configuration_buckets_id_config(BUCKET, sync_id)
expect("a paused sync", (paused.paused, paused.status), (True, "SUSPENDED"))
refused(
    "a trigger of a paused sync",
    lambda: syncs.trigger_sync_configuration_buckets_id_config(BUCKET, sync_id),
    409,
    "ConflictError",
)
resumed = syncs.resume_sync_configuration_buckets_id_config(BUCKET, sync_id)
expect("a resumed sync", (resumed.paused, resumed.status), (False, "ACTIVE"))
syncs.force_unlock_sync_configuration_buckets_id_config(BUCKET, sync_id)
full = syncs.trigger_sync_configuration_buckets_id_config(BUCKET, sync_id, full_sync=True)
job_id = full["sync_job_id"] if isinstance(full, dict) else full.sync_job_id
expect("the second job", until("the second job", ended).status, models.SyncJobStatus.COMPLETED)

# ---- the end ----

syncs.delete_sync_configuration_buckets_id_config(BUCKET, sync_id)
refused(
    "a deleted sync", lambda: syncs.get_sync_configuration_buckets_id_config(BUCKET, sync_id), 404, "NotFoundError"
)
connections.delete_storage_connection_organizations(connection_id)
archived = connections.get_storage_connection_organizations(connection_id)
expect("an archived connection", archived.status, models.TaskStatusEnum.ARCHIVED)
expect("the list after it", connections.list_storage_connections_organizations().total, 0)
wrong_key = mixpeek.Configuration(host=client.configuration.host, access_token="wrong")
refused(
    "a wrong API key",
    lambda: mixpeek.OrganizationConnectionsApi(mixpeek.ApiClient(wrong_key)).list_storage_connections_organizations(),
    401,
    "UnauthorizedError",
)
print("The typed client has made every call.")
