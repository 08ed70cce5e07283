//! Many requests at the same time.

use std::thread;

use b2sync_tests::service::{CONNECTIONS, Service, ServiceConfig, text};
use fake_b2::media::seed_plain_bucket;
use serde_json::json;

use crate::{BUCKET, Outcome};

/// How many changes of one record.
const CHANGES: usize = 50;

#[test]
fn fifty_changes_of_one_record_all_succeed() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 10, 1)?;
    let connected = service.connect("at_once", &format!("b2://{BUCKET}"))?;
    for path in [format!("{CONNECTIONS}/{}", connected.connection_id), connected.sync.path()] {
        let change = |i: usize| {
            let body = json!({"description": format!("change {i}")});
            service.ask("PATCH", &path, Some(&body)).map_err(|error| error.to_string())
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let calls: Vec<_> = (0..CHANGES).map(|i| scope.spawn(move || change(i))).collect();
            calls.into_iter().map(|call| call.join().unwrap_or_else(|_| Err("a call panicked".to_owned()))).collect()
        });
        for answer in answers {
            let (status, answer) = answer?;
            assert_eq!(status, 200, "{path}: {answer}");
        }
        let (_, now) = service.ask("GET", &path, None)?;
        assert!(text(&now, "description")?.starts_with("change "), "{now}");
    }
    Ok(())
}
