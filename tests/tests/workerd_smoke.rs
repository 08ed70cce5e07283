//! The Worker comes up on the real runtime, and says what it lacks.

use b2sync_tests::workerd::{Workerd, WorkerdConfig};
use serde_json::Value;
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const API_KEY: &str = "a \"quoted\" key";
const MASTER_KEY: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn start(vars: &[(&str, &str)]) -> Result<(TempDir, Workerd), Box<dyn std::error::Error>> {
    let folder = TempDir::new()?;
    let config = vars.iter().fold(WorkerdConfig::new(folder.path()), |config, (name, value)| config.var(*name, *value));
    let workerd = Workerd::start(config)?;
    Ok((folder, workerd))
}

#[test]
fn it_is_healthy_and_lets_nobody_in_without_the_key() -> Outcome {
    let (_folder, mut workerd) = start(&[("API_KEY", API_KEY), ("MASTER_KEY", MASTER_KEY)])?;
    let health = workerd.get("/healthz")?;
    assert_eq!((health.status, &health.json::<Value>()?["status"]), (200, &"ok".into()));
    assert_eq!(workerd.get("/v1/organizations/connections")?.status, 401);
    let key = format!("Bearer {API_KEY}");
    let answer = workerd.send("GET", "/v1/nothing", &[("authorization", &key)], b"")?;
    assert_eq!((answer.status, &answer.json::<Value>()?["error"]["type"]), (404, &"NotFoundError".into()));

    workerd.kill();
    assert!(workerd.get("/healthz").is_err());
    workerd.restart()?;
    assert_eq!(workerd.get("/healthz")?.status, 200);
    // Nothing is due, and that is no error.
    workerd.cron(1_800_000_000_000)?;
    Ok(())
}

#[test]
fn a_variable_that_cannot_be_used_is_told_by_every_route() -> Outcome {
    let secrets = [("API_KEY", API_KEY), ("MASTER_KEY", MASTER_KEY)];
    for (name, value) in [("B2_API_URL", "notaurl"), ("STEP_BUDGET", "garbage"), ("API_KEY", " "), ("MASTER_KEY", " ")]
    {
        let others: Vec<_> = secrets.into_iter().filter(|(other, _)| *other != name).chain([(name, value)]).collect();
        let (_folder, workerd) = start(&others)?;
        for path in ["/healthz", "/", "/v1/organizations/connections"] {
            let answer = workerd.get(path)?;
            let text = answer.text();
            assert_eq!(answer.status, 500, "{path}: {text}");
            assert!(text.contains("\"misconfigured\"") && text.contains(name), "{path}: {text}");
        }
    }
    Ok(())
}

#[test]
fn a_missing_secret_is_named_with_the_command_that_sets_it() -> Outcome {
    let too_short = [("API_KEY", API_KEY), ("MASTER_KEY", "k1:AAAA")];
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[("API_KEY", API_KEY)], "wrangler secret put MASTER_KEY"),
        (&[("MASTER_KEY", MASTER_KEY)], "wrangler secret put API_KEY"),
        (&too_short, "32"),
    ];
    for (vars, expected) in cases {
        let (_folder, workerd) = start(vars)?;
        let answer = workerd.get("/healthz")?;
        assert_eq!(answer.status, 500, "{}", answer.text());
        let text = answer.text();
        assert!(text.contains(expected) && !text.contains("AAAA"), "{text}");
    }
    Ok(())
}
