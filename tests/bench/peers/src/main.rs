//! The peers that take long to build, as clients of the bench's server, each in a process of its own:
//! `b2sync-bench-peers <name> <url> <bucket> <key-id> <application-key> <region>`.
//!
//! Each lists the bucket with signed requests and prints one line of JSON: how many keys it has seen. Nothing of b2sync
//! is used here, so that no change of it has this package built again, or can break it.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use futures_util::TryStreamExt as _;
use serde_json::json;

type Error = Box<dyn std::error::Error>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// What is listed, and as whom.
struct Listed<'a> {
    url: &'a str,
    bucket: &'a str,
    key_id: &'a str,
    application_key: &'a str,
    region: &'a str,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = run(&args).and_then(|keys| Ok(writeln!(std::io::stdout(), "{}", json!({ "keys": keys }))?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<u64> {
    let [name, url, bucket, key_id, application_key, region] = args else {
        return Err("b2sync-bench-peers <name> <url> <bucket> <key-id> <application-key> <region>".into());
    };
    let listed = Listed { url, bucket, key_id, application_key, region };
    // The HTTP client of both asks for a provider of TLS even where there is none to be spoken.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match name.as_str() {
        "object_store" => runtime.block_on(object_store(&listed)),
        "opendal" => runtime.block_on(opendal(&listed)),
        unknown => Err(format!("there is no peer {unknown}").into()),
    }
}

async fn object_store(listed: &Listed<'_>) -> Result<u64> {
    use object_store::ObjectStore as _;
    let store = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(listed.url)
        .with_allow_http(true)
        .with_region(listed.region)
        .with_bucket_name(listed.bucket)
        .with_access_key_id(listed.key_id)
        .with_secret_access_key(listed.application_key)
        .build()?;
    Ok(store.list(None).try_fold(0_u64, |listed, _| async move { Ok(listed + 1) }).await?)
}

async fn opendal(listed: &Listed<'_>) -> Result<u64> {
    opendal::HttpTransporter::install_default(opendal_http_transport_reqwest::ReqwestTransport::default());
    let builder = opendal::services::S3::default()
        .endpoint(listed.url)
        .region(listed.region)
        .bucket(listed.bucket)
        .access_key_id(listed.key_id)
        .secret_access_key(listed.application_key)
        .disable_config_load()
        .disable_ec2_metadata();
    let operator = opendal::Operator::new(builder)?;
    let lister = operator.lister_with("").recursive(true).await?;
    // It lists the root as well, as a folder.
    let files = lister.try_fold(0_u64, |files, entry| async move { Ok(files + u64::from(entry.metadata().is_file())) });
    Ok(files.await?)
}
