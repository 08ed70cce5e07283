//! Where things are.

use crate::Result;
use std::env::{self, consts};
use std::path::{Path, PathBuf};

/// The paths that the tasks work with; all absolute.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace from the folder that cargo or the shell is in.
    pub(crate) fn find() -> Result<Self> {
        let here = env::current_dir().map_err(|error| format!("The current folder is not readable: {error}."))?;
        let start = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| here.clone(), PathBuf::from);
        let root = start
            .ancestors()
            .find(|folder| folder.join("xtask/Cargo.toml").exists())
            .ok_or_else(|| format!("{} is not inside the workspace of b2sync.", start.display()))?
            .to_path_buf();
        // Cargo, too, takes a relative CARGO_TARGET_DIR from the current folder.
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) if !dir.is_empty() => here.join(dir),
            _ => root.join("target"),
        };
        Ok(Self { root, target })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where `cargo install` puts the pinned tools.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.tools().join("bin").join(format!("{name}{}", consts::EXE_SUFFIX))
    }

    /// A path inside node_modules.
    pub(crate) fn node_module(&self, path: &str) -> PathBuf {
        self.root.join("node_modules").join(path)
    }

    /// esbuild's own executable, not the script that starts it.
    pub(crate) fn esbuild(&self) -> PathBuf {
        self.node_module(&format!("@esbuild/{}-{}/bin/esbuild", node_os(), node_arch()))
    }

    /// The newer Node that wrangler needs, where npm has one for this machine.
    pub(crate) fn newer_node(&self) -> Option<PathBuf> {
        let (os, arch) = (node_os(), node_arch());
        [format!("node-{os}-{arch}"), format!("node-bin-{os}-{arch}")]
            .iter()
            .map(|package| self.node_module(&format!("{package}/bin/node")))
            .find(|node| node.exists())
    }
}

fn node_os() -> &'static str {
    if consts::OS == "macos" { "darwin" } else { consts::OS }
}

fn node_arch() -> &'static str {
    match consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}
