//! Objects of a target bucket.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::{
    api::{
        errors::{Answered, AnsweredText, ApiError, Problem, json_text, json_value},
        list_fields::ListFields,
        pagination::{Cursor, Listing, PageRequest, render_pagination},
        query::{Query, check_problems},
        render::{self, Shown},
        service::{Coordinators, Service},
    },
    catalogue::{ObjectQuery, ObjectRecord, Objects},
    registry::{Registry, SyncRow},
};
use b2sync_core::{
    b2::{
        account::{Account, Credentials},
        sign::presign_get,
        url::object_url,
    },
    entropy::Entropy,
    error::{Error, ErrorKind},
    http::HttpClient,
    mime,
    time::Clock,
};

/// How long a presigned URL lasts, in seconds.
pub(in crate::api) const PRESIGNED_S: u64 = 3_600;

/// The longest prefix, in characters.
pub(in crate::api) const PREFIX_CHARS_MAX: usize = 1_024;

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(in crate::api) async fn list_objects(
        &self,
        namespace_id: String,
        bucket_id: String,
        query: &Query,
        body: &[u8],
    ) -> AnsweredText {
        let mut problems = Vec::new();
        let mut fields = ListFields::parse(query, body, &mut problems)?;
        let mut page = PageRequest::read(&mut fields, Listing::Objects);
        let prefix = fields.text("prefix", 0, PREFIX_CHARS_MAX);
        let presign = fields.flag("return_presigned_urls").unwrap_or(false);
        page.list_url = fields.done();
        check_problems(problems)?;
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX); // Both have bounds below.
        let answer = self
            .objects
            .list(&ObjectQuery {
                namespace_id,
                bucket_id,
                limit: small(page.limit),
                offset: small(page.offset),
                cursor: match &page.cursor {
                    Some(Cursor::Object(cursor)) => Some(cursor.clone()),
                    _ => None,
                },
                prefix,
                include_total: page.include_total,
            })
            .await?;
        let results = self.shown_objects(&answer.objects, presign).await?;
        // Of the page, whatever its names say: so the client's own model has it, and `pagination.total` has them all.
        let stats = json!({
            "total_objects": results.len(),
            "total_blobs": results.len(),
            "avg_blobs_per_object": if results.is_empty() { 0.0 } else { 1.0 },
            "objects_by_status": {"ACTIVE": results.len()},
        });
        let next = answer.next.map(Cursor::Object);
        let pagination = render_pagination(&page, answer.total, next.as_ref());
        json_text(&Page { results, pagination, stats })
    }

    pub(in crate::api) async fn get_object(
        &self,
        namespace_id: &str,
        bucket_id: &str,
        object_id: &str,
        query: &Query,
    ) -> Answered {
        let mut problems = Vec::new();
        query.check_only(&["return_presigned_urls", "include_document_count"], &mut problems);
        let presign = query.flag("return_presigned_urls", &mut problems).unwrap_or(false);
        // Clients ask for it, or ask to go without: there are no documents here.
        let _ = query.flag("include_document_count", &mut problems);
        check_problems(problems)?;
        match self.objects.get(namespace_id, bucket_id, object_id).await? {
            Some(object) => {
                let objects = [object];
                let shown = self.shown_objects(&objects, presign).await?;
                json_value(&shown.first())
            }
            None => Err(no_object(namespace_id, bucket_id, object_id)),
        }
    }

    /// Removes an object from the catalogue. The file in B2 stays.
    pub(in crate::api) async fn delete_object(&self, namespace_id: &str, bucket_id: &str, object_id: &str) -> Answered {
        match self.objects.remove(namespace_id, bucket_id, object_id).await? {
            true => Ok(Value::Null),
            false => Err(no_object(namespace_id, bucket_id, object_id)),
        }
    }

    /// Removes the objects that one sync has delivered to a bucket.
    pub(in crate::api) async fn delete_objects(&self, namespace_id: &str, bucket_id: &str, query: &Query) -> Answered {
        let sync_id = parse_delete(query)?;
        let found = self.registry.find_sync(sync_id).await?;
        let is_here = |sync: &SyncRow| sync.namespace_id == namespace_id && sync.bucket_id == bucket_id;
        let removed = match found.filter(is_here) {
            Some(sync) => {
                refuse_fed(&sync)?;
                self.objects.clear_sync(namespace_id, bucket_id, sync_id).await?
            }
            // Of a sync that was never here, nothing is noted.
            None => match self.objects.count_of_sync(namespace_id, bucket_id, sync_id).await? {
                0 => 0,
                _ => self.objects.drop_sync(namespace_id, bucket_id, sync_id).await?,
            },
        };
        let message = match removed {
            0 => format!("The bucket {bucket_id:?} has no object of the sync {sync_id:?}."),
            1 => format!("1 object of the sync {sync_id:?} was removed."),
            removed => format!("{removed} objects of the sync {sync_id:?} were removed."),
        };
        Ok(json!({"sync_config_id": sync_id, "objects_deleted": render::integer(removed), "message": message}))
    }

    async fn shown_objects<'a>(
        &self,
        records: &'a [ObjectRecord],
        presign: bool,
    ) -> Result<Vec<ShownObject<'a>>, ApiError> {
        let mut accounts: BTreeMap<&str, Option<(Account, Credentials)>> = BTreeMap::new();
        let mut shown = Vec::with_capacity(records.len());
        for record in records {
            if presign && !accounts.contains_key(record.connection_id.as_str()) {
                accounts.insert(&record.connection_id, self.signer(&record.connection_id).await?);
            }
            let url = match accounts.get(record.connection_id.as_str()) {
                None => Err(None),
                Some(None) => Err(Some(NO_SIGNER)),
                Some(Some(_)) if record.key.split('/').any(|part| part == "." || part == "..") => Err(Some(DOTS)),
                Some(Some((account, credentials))) => {
                    let url = object_url(&account.s3_endpoint, &record.source_bucket, &record.key, &[]);
                    Ok(presign_get(&url, credentials, &account.region, self.clock.now(), PRESIGNED_S)?)
                }
            };
            shown.push(shown_object(record, url));
        }
        Ok(shown)
    }

    /// What signs URLs for a connection; `None` when it is gone or was never authorized.
    async fn signer(&self, connection_id: &str) -> Result<Option<(Account, Credentials)>, Error> {
        let Some(connection) = self.registry.connection(connection_id).await? else { return Ok(None) };
        let account = connection.account.clone().and_then(|stored| Account::try_from(stored).ok());
        match (account, &connection.application_key) {
            (Some(account), Some(_)) => Ok(Some((account, connection.credentials(self.master_keys)?))),
            _ => Ok(None),
        }
    }
}

/// Why there is no presigned URL, though one was asked for.
const NO_SIGNER: &str = "The connection was deleted, or was never tested: there is no key to sign with.";
const DOTS: &str = "The key has a part \".\" or \"..\", which HTTP clients take out of a URL. Download the file with \
    B2's native API.";

fn no_object(namespace_id: &str, bucket_id: &str, object_id: &str) -> ApiError {
    Error::new(
        ErrorKind::NotFound,
        format!("The bucket {bucket_id:?} of the namespace {namespace_id:?} has no object {object_id:?}."),
        "The file may have been deleted from its bucket. Check the target bucket in the path and the header \
         X-Namespace.",
    )
    .into()
}

/// Whose objects are to be removed: `sync_id`.
fn parse_delete(query: &Query) -> Result<&str, ApiError> {
    let mut problems = Vec::new();
    query.check_only(&["sync_id"], &mut problems);
    let sync_id = query.get("sync_id");
    if sync_id.is_none() && problems.is_empty() {
        problems.push(Problem {
            location: vec!["query".to_owned(), "sync_id".to_owned()],
            kind: "missing",
            message: "`sync_id` is required: the sync whose objects are to be removed. Each object shows its \
                      `sync_config_id`."
                .to_owned(),
        });
    }
    check_problems(problems)?;
    sync_id.ok_or(ApiError::Invalid(Vec::new())) // It was reported above.
}

/// The objects of a sync that feeds the catalogue are its own: they would no longer be what the sync has delivered.
fn refuse_fed(sync: &SyncRow) -> Result<(), ApiError> {
    if sync.read().is_ok_and(|record| record.sinks.is_empty()) {
        return Ok(());
    }
    let id = &sync.sync_id;
    Err(Error::new(
        ErrorKind::Conflict,
        format!("The sync {id} exists, and its objects are kept as its files are."),
        format!(
            "Delete the sync together with its objects (DELETE …/syncs/{id}?delete_objects=true), or switch its \
             catalogue off first (PATCH {{\"sinks\": []}})."
        ),
    )
    .into())
}

/// The type of a blob, of those that the client knows. What has none of them is the string that its URL is.
fn blob_type(mime: &str) -> &'static str {
    match mime.split_once('/') {
        Some(("image", _)) => "image",
        Some(("video", _)) => "video",
        Some(("audio", _)) => "audio",
        Some(("text", _)) => "text",
        Some(("application", "pdf")) => "pdf",
        Some(("application", kind)) if kind.contains("excel") || kind.contains("spreadsheet") => "excel",
        _ => "string",
    }
}

/// A page of objects, as the client reads it.
#[derive(Serialize)]
struct Page<'a> {
    results: Vec<ShownObject<'a>>,
    pagination: Value,
    stats: Value,
}

/// An object, as the client reads it.
#[derive(Serialize)]
struct ShownObject<'a> {
    object_id: &'a str,
    bucket_id: &'a str,
    key_prefix: &'a str,
    blobs: [ShownBlob<'a>; 1],
    source_details: [ShownSource<'a>; 1],
    status: &'static str,
    created_at: Option<Shown>,
    updated_at: Option<Shown>,
    source_bucket: &'a str,
    source_key: &'a str,
    source_url: FileUrl<'a>,
    etag: &'a str,
    size_bytes: u64,
    last_modified: Option<Shown>,
    sync_config_id: &'a str,
    connection_id: &'a str,
    version: u32,
    change_id: &'a str,
}

/// The one blob of an object: its file.
#[derive(Serialize)]
struct ShownBlob<'a> {
    blob_id: String,
    property: &'static str,
    key_prefix: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    properties: BlobProperties<'a>,
    presigned_url: Option<String>,
    /// Why there is none, if one was asked for.
    presigned_url_reason: Option<&'static str>,
    details: BlobDetails<'a>,
}

#[derive(Serialize)]
struct BlobProperties<'a> {
    url: FileUrl<'a>,
}

#[derive(Serialize)]
struct BlobDetails<'a> {
    filename: &'a str,
    size_bytes: u64,
    mime_type: &'static str,
    hash: &'a str,
}

#[derive(Serialize)]
struct ShownSource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    source_id: &'a str,
}

/// `b2://bucket/key`
#[derive(Clone, Copy)]
struct FileUrl<'a> {
    bucket: &'a str,
    key: &'a str,
}

impl Serialize for FileUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("b2://{}/{}", self.bucket, self.key))
    }
}

fn shown_object<'a>(record: &'a ObjectRecord, presigned_url: Result<String, Option<&'static str>>) -> ShownObject<'a> {
    let mime = mime::guess(&record.key);
    let url = FileUrl { bucket: &record.source_bucket, key: &record.key };
    let digits = record.object_id.strip_prefix("obj_").unwrap_or(&record.object_id);
    let (presigned_url, presigned_url_reason) = match presigned_url {
        Ok(url) => (Some(url), None),
        Err(reason) => (None, reason),
    };
    ShownObject {
        object_id: &record.object_id,
        bucket_id: &record.bucket_id,
        key_prefix: &record.key,
        blobs: [ShownBlob {
            blob_id: format!("blob_{digits}"),
            property: "content",
            key_prefix: &record.key,
            kind: blob_type(mime),
            properties: BlobProperties { url },
            presigned_url,
            presigned_url_reason,
            details: BlobDetails {
                filename: record.key.rsplit_once('/').map_or(record.key.as_str(), |(_, name)| name),
                size_bytes: render::int(record.size),
                mime_type: mime,
                hash: &record.etag,
            },
        }],
        source_details: [ShownSource { kind: "bucket", source_id: &record.source_bucket }],
        // It is in the catalogue, and nothing here processes it further.
        status: "ACTIVE",
        created_at: Shown::of(record.created_at),
        updated_at: Shown::of(record.updated_at),
        source_bucket: &record.source_bucket,
        source_key: &record.key,
        source_url: url,
        etag: &record.etag,
        size_bytes: render::int(record.size),
        last_modified: Shown::of(record.last_modified),
        sync_config_id: &record.sync_id,
        connection_id: &record.connection_id,
        version: record.version,
        change_id: &record.change_id,
    }
}
