//! The whole pipeline, from cargo to the real runtime: bindings, SQLite, KV, alarm, cron, outgoing requests, restarts.

use b2sync_tests::workerd::{Answer, Workerd, WorkerdConfig, WorkerdError};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn start() -> Result<(TempDir, Workerd), Box<dyn std::error::Error>> {
    let folder = TempDir::new()?;
    let config = WorkerdConfig::new(folder.path())
        .var("API_KEY", "a \"quoted\" key")
        .var("MASTER_KEY", "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .var("B2_API_URL", "http://127.0.0.1:9");
    let workerd = Workerd::start(config)?;
    Ok((folder, workerd))
}

fn json(answer: Result<Answer, WorkerdError>) -> Result<Value, WorkerdError> {
    answer?.json()
}

/// Asks until `done`, for at most ten seconds.
fn poll(workerd: &Workerd, path: &str, done: impl Fn(&Value) -> bool) -> Result<Value, Box<dyn std::error::Error>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = json(workerd.get(path))?;
        if done(&seen) {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            return Err(format!("{path} still answers {seen}; logs: {:#?}", workerd.logs()).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn answers_and_pings_its_durable_objects() -> Outcome {
    let (_folder, workerd) = start()?;
    let health = workerd.get("/healthz")?;
    assert_eq!((health.status, health.json::<Value>()?["status"].clone()), (200, json!("ok")));
    assert_eq!(health.headers.get("content-type").map(String::as_str), Some("application/json"));
    assert_eq!(workerd.get("/nothing/here")?.status, 404);

    let catalogue = json(workerd.get("/_probe/catalogue"))?;
    assert_eq!(catalogue, json!({ "class": "Catalogue", "text": "ping", "bytes": [0, 159, 255] }));
    let coordinator = json(workerd.get("/_probe/coordinator/ping"))?;
    assert_eq!(coordinator, json!({ "class": "SyncCoordinator", "row": { "answer": 42 } }));
    assert_eq!(json(workerd.get("/_probe/registry"))?["pings"], 1);
    // A Durable Object that calls another reaches the same instance.
    assert_eq!(json(workerd.get("/_probe/coordinator/registry"))?["pings"], 2);
    Ok(())
}

#[test]
fn has_secrets_time_randomness_and_delays() -> Outcome {
    let (_folder, workerd) = start()?;
    let (one, two) = (json(workerd.get("/_probe/platform"))?, json(workerd.get("/_probe/platform"))?);
    assert_eq!(one["api_key_bytes"], "a \"quoted\" key".len());
    assert_eq!(one["b2_api_url"], "http://127.0.0.1:9");
    assert_ne!(one["random"], two["random"]);
    assert!(one["delayed_ms"].as_u64() >= Some(20), "{one}");
    assert!(one["now_ms"].as_u64() > Some(1_700_000_000_000), "{one}");
    Ok(())
}

#[test]
fn kv_takes_any_bytes() -> Outcome {
    let (_folder, workerd) = start()?;
    let all_bytes: Vec<u8> = (0..=255).collect();
    // Larger than what the simulator keeps inline, so it goes through a file.
    let large: Vec<u8> = all_bytes.iter().copied().cycle().take(300_000).collect();
    for (key, value) in [("seg/a", &all_bytes), ("seg/b%20c", &large), ("seg/empty", &Vec::new()), ("other", &large)] {
        let path = format!("/_probe/kv/{key}");
        assert_eq!(json(workerd.send("PUT", &path, &[], value))?["stored_bytes"], value.len());
        assert_eq!(&workerd.get(&path)?.body, value, "{key}");
    }
    let list = json(workerd.get("/_probe/kv?prefix=seg/"))?;
    assert_eq!(list["names"], json!(["seg/a", "seg/b%20c", "seg/empty"]));
    assert_eq!(list["complete"], true);
    let first = json(workerd.get("/_probe/kv?prefix=seg/&limit=2"))?;
    assert_eq!((&first["names"], &first["complete"]), (&json!(["seg/a", "seg/b%20c"]), &json!(false)));
    let cursor = first["cursor"].as_str().unwrap_or_default();
    let rest = json(workerd.get(&format!("/_probe/kv?prefix=seg/&limit=2&cursor={cursor}")))?;
    assert_eq!((&rest["names"], &rest["complete"]), (&json!(["seg/empty"]), &json!(true)));

    assert_eq!(workerd.send("DELETE", "/_probe/kv/seg/a", &[], b"")?.status, 200);
    assert_eq!(workerd.get("/_probe/kv/seg/a")?.status, 404);

    // The simulator has the limits of the real one, and each is an error that Rust can handle.
    let too_long = "k".repeat(513);
    let answer = workerd.send("PUT", &format!("/_probe/kv/{too_long}"), &[], b"v")?;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("key length limit of 512"), "{}", answer.text());
    Ok(())
}

#[test]
fn state_outlives_a_kill() -> Outcome {
    let (_folder, mut workerd) = start()?;
    workerd.send("PUT", "/_probe/kv/key", &[], &[0, 159, 146, 150])?;
    json(workerd.get("/_probe/registry"))?;
    workerd.kill();
    assert!(workerd.get("/healthz").is_err());
    workerd.restart()?;
    assert_eq!(workerd.get("/_probe/kv/key")?.body, [0, 159, 146, 150]);
    assert_eq!(json(workerd.get("/_probe/registry"))?["pings"], 2);
    Ok(())
}

#[test]
fn an_alarm_fires_even_after_a_kill() -> Outcome {
    let (_folder, mut workerd) = start()?;
    assert!(json(workerd.get("/_probe/coordinator/arm?n=50"))?["alarm_at_ms"].is_u64());
    let seen = poll(&workerd, "/_probe/coordinator/show", |seen| seen["alarms"] == 1)?;
    assert_eq!(seen["alarm_at_ms"], Value::Null);

    json(workerd.get("/_probe/coordinator/arm?n=400"))?;
    workerd.restart()?;
    poll(&workerd, "/_probe/coordinator/show", |seen| seen["alarms"] == 2)?;
    Ok(())
}

#[test]
fn a_cron_tick_carries_its_scheduled_time() -> Outcome {
    let (_folder, workerd) = start()?;
    workerd.cron(1_790_000_060_000)?;
    assert_eq!(json(workerd.get("/_probe/coordinator/show"))?["last_tick_ms"], 1_790_000_060_000_u64);
    Ok(())
}

#[test]
fn outgoing_requests_have_a_time_limit() -> Outcome {
    let (_folder, workerd) = start()?;
    let probe = |server: &TcpListener| -> Result<Value, Box<dyn std::error::Error>> {
        let url = format!("http://{}/", server.local_addr()?);
        Ok(json(workerd.get(&format!("/_probe/fetch?timeout_ms=300&url={url}")))?)
    };

    // One that answers, one that never does, one that stops in the middle of the body.
    let answering =
        serve(|stream| stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nok"))?;
    let seen = probe(&answering)?;
    assert_eq!((&seen["status"], &seen["body"]), (&json!(302), &json!("ok")), "{seen}");

    let silent = serve(|_| {
        thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    let seen = probe(&silent)?;
    assert_eq!(seen["timed_out"], true, "{seen}");
    assert!(seen["elapsed_ms"].as_u64() < Some(3_000), "{seen}");

    let stalling = serve(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\npart")?;
        thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    let seen = probe(&stalling)?;
    assert_eq!(seen["timed_out"], true, "{seen}");
    assert!(seen["elapsed_ms"].as_u64() < Some(3_000), "{seen}");

    // One that hangs up at once, and two that do so in the middle of the body: never a short body that looks whole.
    for beginning in ["", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\npart", CHUNKED] {
        let rude = serve(move |stream| stream.write_all(beginning.as_bytes()))?;
        let seen = probe(&rude)?;
        assert_eq!(seen["timed_out"], false, "{beginning:?}: {seen}");
        assert!(seen["error"].is_string(), "{beginning:?}: {seen}");
    }
    Ok(())
}

/// A chunked answer whose last chunk never comes.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";

/// A server for one connection: it reads what comes first, and then does `then`.
fn serve(
    then: impl FnOnce(&mut std::net::TcpStream) -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.try_clone()?;
    thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = server.accept()?;
        let _ = stream.read(&mut [0; 4_096])?;
        then(&mut stream)
    });
    Ok(listener)
}

#[test]
fn instances_run_side_by_side() -> Outcome {
    let ((_folder_a, a), (_folder_b, b)) = (start()?, start()?);
    assert_ne!(a.url(), b.url());
    assert_eq!(json(a.get("/_probe/registry"))?["pings"], 1);
    assert_eq!(json(b.get("/_probe/registry"))?["pings"], 1);
    Ok(())
}

#[test]
fn a_missing_binding_is_an_answer_and_the_log_is_kept() -> Outcome {
    let folder = TempDir::new()?;
    let workerd = Workerd::start(WorkerdConfig::new(folder.path()))?;
    assert_eq!(json(workerd.get("/_probe/platform"))?["api_key_bytes"], Value::Null);
    let answer = workerd.get("/_probe/coordinator/nowhere")?;
    assert_eq!(answer.status, 404);
    let answer = workerd.get("/_probe/fetch")?;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("`url` is missing"), "{}", answer.text());
    workerd.await_log("`url` is missing")?;
    Ok(())
}
