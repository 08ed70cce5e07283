//! All sentences that the shipped code can say, in one file: `tests/messages.txt`, to be read in one sitting.
//!
//! A sentence is a string of three words or more that ends like one. A change of the code that changes a sentence
//! changes the file: `UPDATE_MESSAGES=1 cargo test -p b2sync-tests --test messages` writes it again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Attribute, File, ItemFn, ItemMod, LitStr, Macro};

/// Where shipped code is.
const SOURCES: [&str; 4] = ["core/src", "core/service/src", "core/component/src", "worker/src"];
/// What stands in for the world in tests, and suites that tests run.
const FOR_TESTS: [&str; 3] = ["testing", "conformance", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if FOR_TESTS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| it.path().is_ident("cfg") && it.to_token_stream().to_string().contains("test"))
}

/// The sentences of one file, in order.
#[derive(Default)]
struct Sentences(Vec<String>);

impl Sentences {
    fn take(&mut self, text: &str) {
        let is_sentence = text.ends_with(['.', '!', '?', ':']) || text.contains(". ");
        if is_sentence && text.split_whitespace().count() >= 3 {
            self.0.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }

    fn take_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.take_tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.take(&text.value());
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Sentences {
    // Documentation is made of attributes.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.take(&text.value());
    }

    fn visit_macro(&mut self, it: &'ast Macro) {
        self.take_tokens(it.tokens.clone());
    }
}

fn messages() -> Result<String, Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for folder in SOURCES {
        rust_files(&root().join(folder), &mut files)?;
    }
    files.sort();
    let mut all = String::new();
    for file in files {
        let mut sentences = Sentences::default();
        let parsed: File = syn::parse_file(&fs::read_to_string(&file)?)?;
        sentences.visit_file(&parsed);
        if !sentences.0.is_empty() {
            writeln!(all, "{}", file.strip_prefix(root())?.display())?;
            sentences.0.iter().try_for_each(|it| writeln!(all, "  {it}"))?;
        }
    }
    Ok(all)
}

#[test]
fn the_sentences_are_those_that_were_read() -> Result<(), Box<dyn std::error::Error>> {
    let (golden, now) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("messages.txt"), messages()?);
    if env::var_os("UPDATE_MESSAGES").is_some() {
        fs::write(&golden, &now)?;
    }
    let before = fs::read_to_string(&golden)?;
    let (before, now): (Vec<&str>, Vec<&str>) = (before.lines().collect(), now.lines().collect());
    let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        before == now,
        "what the code says is not what tests/messages.txt has. Read the new sentences, then run \
         `UPDATE_MESSAGES=1 cargo test -p b2sync-tests --test messages`.\nGone: {gone:#?}\nNew: {new:#?}"
    );
    assert!(now.len() > 200, "only {} sentences were found", now.len());
    Ok(())
}
