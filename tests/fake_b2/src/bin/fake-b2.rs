//! `fake-b2 [--port N] [--objects N] [--seed S]`: the embedded B2 as a program, until it is interrupted.
//!
//! It prints what a connection needs, one `NAME=value` a line, and serves a bucket `demo-media` that is filled from the
//! seed. The back door for changing what it holds is described in `fake_b2::admin`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use fake_b2::Config;
use fake_b2::keys::NewKey;
use fake_b2::media::seed_media_bucket;
use fake_b2::server::FakeB2Server;

const USAGE: &str = "usage: fake-b2 [--port N] [--objects N] [--seed S]";
const BUCKET: &str = "demo-media";

struct Arguments {
    port: u16,
    objects: usize,
    seed: u64,
}

fn parse_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments { port: 0, objects: 1_000, seed: 1 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} takes a value"))?;
        let wrong = |_| format!("{value:?} is no value for {name}");
        match name.as_str() {
            "--port" => parsed.port = value.parse().map_err(wrong)?,
            "--objects" => parsed.objects = value.parse().map_err(wrong)?,
            "--seed" => parsed.seed = value.parse().map_err(wrong)?,
            _ => return Err(format!("there is no option {name:?}")),
        }
    }
    Ok(parsed)
}

fn start(arguments: &Arguments) -> Result<FakeB2Server, Box<dyn std::error::Error>> {
    let server = FakeB2Server::start_on(arguments.port, Config::default())?;
    let fake = server.model();
    fake.create_bucket(BUCKET)?;
    seed_media_bucket(fake, BUCKET, arguments.objects, arguments.seed)?;
    let key = fake.create_key(NewKey::unrestricted())?;
    let mut out = io::stdout().lock();
    writeln!(out, "B2_URL={}", server.url())?;
    writeln!(out, "B2_KEY_ID={}", key.key_id)?;
    writeln!(out, "B2_APPLICATION_KEY={}", key.secret)?;
    writeln!(out, "B2_BUCKET={BUCKET}")?;
    out.flush()?;
    Ok(server)
}

fn main() -> ExitCode {
    let started = parse_arguments(std::env::args().skip(1))
        .map_err(|error| format!("{error}\n{USAGE}"))
        .and_then(|arguments| start(&arguments).map_err(|error| error.to_string()));
    match started {
        Ok(_server) => loop {
            std::thread::park();
        },
        Err(error) => {
            let _ = writeln!(io::stderr(), "fake-b2: {error}");
            ExitCode::FAILURE
        }
    }
}
