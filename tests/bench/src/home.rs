//! The native home that is measured: blocking HTTP by `ureq`, state in a folder, a sink that counts.

use std::cell::Cell;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use b2sync_core::change::Change;
use b2sync_core::entropy::Entropy;
use b2sync_core::error::{Error, ErrorKind};
use b2sync_core::http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault};
use b2sync_core::sink::{Delivery, Sink};
use b2sync_core::store::{BlobStore, Document, DocumentStore, Swapped};
use b2sync_core::time::{Clock, Timestamp};
use bytes::Bytes;

/// Sends requests with `ureq`, one at a time.
pub(crate) struct Ureq(pub(crate) ureq::Agent);

/// An agent that takes every status as an answer.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into()
}

/// The body of an answer, of at most this many bytes.
pub(crate) fn read_body(response: &mut ureq::http::Response<ureq::Body>, most: u64) -> Result<Vec<u8>, ureq::Error> {
    let body = response.body_mut();
    // Room for all of it at once: otherwise it is copied each time that there is too little.
    let length = body.content_length().unwrap_or(0).min(most);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    body.with_config().limit(most).reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl HttpClient for Ureq {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        let failed = |error: ureq::Error| TransportError {
            fault: match error {
                ureq::Error::Timeout(_) => TransportFault::TimedOut,
                ureq::Error::BodyExceedsLimit(_) => TransportFault::BodyTooLarge,
                ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => TransportFault::Unreachable,
                _ => TransportFault::Interrupted,
            },
            message: error.to_string(),
        };
        // Each part has the limit of the whole: with one for the whole, ureq looks the host up in a new thread before
        // each request, though the connection is there.
        let within = Some(Duration::from_millis(limits.timeout_ms));
        let request = self
            .0
            .configure_request(request.map(|_| ()))
            .timeout_connect(within)
            .timeout_send_request(within)
            .timeout_recv_response(within)
            .timeout_recv_body(within)
            .build();
        let mut response = self.0.run(request).map_err(failed)?;
        let body = read_body(&mut response, limits.body_bytes_max as u64).map_err(failed)?;
        Ok(response.map(|_| body.into()))
    }
}

/// The system's clock, and its randomness.
pub(crate) struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, millis: u64) {
        thread::sleep(Duration::from_millis(millis));
    }
}

impl Entropy for System {
    fn fill(&self, bytes: &mut [u8]) {
        // It only spreads retries; without it they come at the same time.
        let _ = getrandom::fill(bytes);
    }
}

/// State in a folder: a file a blob, a file a document. One process at a time.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Whole or not at all.
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, bytes)?;
        fs::rename(fresh, path)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(storage(&error)),
        }
    }
}

fn storage(error: &io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("The state folder failed: {error}."), "Make room, or choose another folder.")
}

impl BlobStore for Folder {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.read(name)?.map(Bytes::from))
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        self.write(name, &value).map_err(|error| storage(&error))
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage(&error)),
            _ => Ok(()),
        }
    }
}

impl DocumentStore for Folder {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        let Some(bytes) = self.read(&format!("{name}.document"))? else { return Ok(None) };
        let Some((revision, value)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
        Ok(Some(Document { revision: u64::from_le_bytes(*revision), value: Bytes::copy_from_slice(value) }))
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let revision = self.load(name).await?.map_or(0, |document| document.revision);
        if revision != expected {
            return Ok(Swapped::Conflict);
        }
        let bytes = [&(revision + 1).to_le_bytes(), value.unwrap_or_default().as_ref()].concat();
        self.write(&format!("{name}.document"), &bytes).map_err(|error| storage(&error))?;
        Ok(Swapped::Done(revision + 1))
    }
}

/// Takes every change, and counts them.
#[derive(Default)]
pub(crate) struct CountingSink(Cell<u64>);

impl CountingSink {
    pub(crate) fn changes(&self) -> u64 {
        self.0.get()
    }
}

impl Sink for CountingSink {
    fn batch_max(&self) -> usize {
        500
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        self.0.set(self.0.get() + changes.len() as u64);
        Ok(vec![Delivery::Delivered; changes.len()])
    }
}
