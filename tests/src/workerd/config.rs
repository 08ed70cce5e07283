//! The Cap'n Proto configuration that workerd is started with: the worker, its bindings as in `wrangler.toml`, KV on
//! disk, and the driver in front.

use super::{Bundle, Outbound};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The Durable Object classes of the worker, each with its binding.
const DURABLE_OBJECTS: [(&str, &str); 4] =
    [("REGISTRY", "Registry"), ("SYNC_COORDINATOR", "SyncCoordinator"), ("SHARD", "Shard"), ("CATALOGUE", "Catalogue")];

/// What [`Bundle::Conformance`] has beyond them.
const CONFORMANCE: (&str, &str) = ("CONFORMANCE", "Conformance");

/// Writes the configuration. All paths in it are relative to the state folder.
pub(super) fn capnp(
    compatibility_date: &str,
    vars: &BTreeMap<String, String>,
    outbound: Outbound,
    bundle: Bundle,
) -> String {
    let mut bindings = String::new();
    let mut namespaces = String::new();
    let mut driver_bindings = String::new();
    let extra = (bundle == Bundle::Conformance).then_some(CONFORMANCE);
    for (binding, class) in DURABLE_OBJECTS.into_iter().chain(extra) {
        let _ = writeln!(bindings, "    (name = \"{binding}\", durableObjectNamespace = \"{class}\"),");
        let _ = writeln!(
            driver_bindings,
            "    (name = \"{binding}\", durableObjectNamespace = (className = \"{class}\", serviceName = \"main\")),"
        );
        let _ =
            writeln!(namespaces, "    (className = \"{class}\", uniqueKey = \"b2sync-{class}\", enableSql = true),");
    }
    for (name, value) in vars {
        let _ = writeln!(bindings, "    (name = {}, text = {}),", quote(name), quote(value));
    }
    let allow = match outbound {
        Outbound::Local => r#"(allow = ["local"])"#,
        Outbound::LocalAndPublic => r#"(allow = ["local", "public"], tlsOptions = (trustBrowserCas = true))"#,
    };
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "kv", worker = .kv),
    (name = "driver", worker = .driver),
    (name = "objects", disk = (path = "objects", writable = true)),
    (name = "blobs", disk = (path = "blobs", writable = true)),
    (name = "internet", network = {allow}),
  ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "driver") ],
);
const main :Workerd.Worker = (
  modules = [
    (name = "index.js", esModule = embed "worker/index.js"),
    (name = "index_bg.wasm", wasm = embed "worker/index_bg.wasm"),
  ],
  compatibilityDate = "{compatibility_date}",
  bindings = [
    (name = "STATE", kvNamespace = (name = "kv", props = (json = "{{\"namespace\":\"state\"}}"))),
{bindings}  ],
  durableObjectNamespaces = [
{namespaces}  ],
  durableObjectStorage = (localDisk = "objects"),
);
const kv :Workerd.Worker = (
  modules = [ (name = "kv.js", bundled = "/workerd/kv.js") ],
  compatibilityDate = "{compatibility_date}",
  bindings = [ (name = "SHARD", durableObjectNamespace = "KVNamespace"), (name = "BLOBS", service = "blobs") ],
  durableObjectNamespaces = [ (className = "KVNamespace", uniqueKey = "kv", enableSql = true) ],
  durableObjectStorage = (localDisk = "objects"),
);
const driver :Workerd.Worker = (
  modules = [ (name = "driver.js", esModule = embed "worker/driver.js") ],
  compatibilityDate = "{compatibility_date}",
  compatibilityFlags = ["service_binding_extra_handlers"],
  bindings = [
    (name = "MAIN", service = "main"),
{driver_bindings}  ],
);
"#
    )
}

/// A Cap'n Proto text literal.
fn quote(text: &str) -> String {
    let mut literal = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => literal.extend(['\\', c]),
            '\n' => literal.push_str("\\n"),
            c if c.is_ascii_control() => {
                let _ = write!(literal, "\\x{:02x}", u32::from(c));
            }
            c => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vars_cannot_break_out_of_their_literal() {
        assert_eq!(quote("a\"b\\c\nd\u{1}é"), r#""a\"b\\c\nd\x01é""#);
    }

    #[test]
    fn public_addresses_are_allowed_only_when_asked_for() {
        let vars = BTreeMap::from([("API_KEY".to_owned(), "k".to_owned())]);
        let local = capnp("2026-01-01", &vars, Outbound::Local, Bundle::Deployed);
        assert!(local.contains(r#"(name = "API_KEY", text = "k")"#), "{local}");
        assert!(!local.contains("public"), "{local}");
        assert!(
            capnp("2026-01-01", &vars, Outbound::LocalAndPublic, Bundle::Deployed).contains(r#"["local", "public"]"#)
        );
    }
}
