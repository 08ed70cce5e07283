//! Import circles: modules of one crate each of which needs the next, and the last of which needs the first. None of
//! them can be read, tested or moved alone.
//!
//! Modules are compared with their siblings, each together with all that is below it: a folder is one module to those
//! beside it. What a parent and its children need of each other is no circle: they are one module to all others. A
//! path leads to the file that says what its name is; a module that only passes the name on is not needed.

use super::code::{RustFile, tokens};
use super::paths::{Kind, Name, Path, paths};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many modules may pass a name on, one to the next.
const HOPS_MAX: u8 = 8;

/// A circle: the folder of its crate, its modules in order of their names, and a shortest way round.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circle {
    pub(super) krate: String,
    pub(super) modules: Vec<String>,
    pub(super) way: String,
}

/// Which siblings a module needs, and where first.
type Needs<'a> = BTreeMap<Name<'a>, BTreeMap<Name<'a>, String>>;

/// All circles of all crates.
pub(super) fn circles(files: &[RustFile]) -> Vec<Circle> {
    let mut crates: BTreeMap<&str, Crate<'_>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        let Some((krate, name)) = module_name(&file.path) else { continue };
        let paths = paths(&tokens(&file.code), &name);
        crates.entry(krate).or_default().add(name, paths);
    }
    crates.iter().flat_map(|(folder, krate)| circles_of(folder, &krate.needs())).collect()
}

/// The folder of the crate and the name of the module. A program of its own (`src/bin/`) has one file, hence no circle.
fn module_name(path: &str) -> Option<(&str, Name<'_>)> {
    let (krate, inside) = path.split_once("/src/")?;
    let mut name: Name<'_> = inside.strip_suffix(".rs")?.split('/').collect();
    let last = *name.last()?;
    if last == "mod" || name.len() == 1 && matches!(last, "lib" | "main") {
        name.pop();
    }
    (name.first() != Some(&"bin")).then_some((krate, name))
}

/// The files of a crate.
#[derive(Default)]
struct Crate<'a> {
    modules: BTreeMap<Name<'a>, Vec<Path<'a>>>,
    /// What `use` gives a name to, under that name in its scope.
    imports: BTreeMap<Name<'a>, Path<'a>>,
}

/// Where a path leads.
struct Place<'a> {
    module: Name<'a>,
    /// Whether it names the module itself, not something in it.
    is_module: bool,
}

impl<'a> Crate<'a> {
    fn add(&mut self, module: Name<'a>, paths: Vec<Path<'a>>) {
        for path in &paths {
            if let Kind::Import { name } = path.kind {
                self.imports.insert(below(&path.scope, name), path.clone());
            }
        }
        self.modules.insert(module, paths);
    }

    /// Files count for the modules that they are in, up to the children of what both sides are in.
    fn needs(&self) -> Needs<'a> {
        let mut needs = Needs::new();
        for (from, paths) in &self.modules {
            for path in paths {
                let Some(to) = self.place(&path.scope, &path.segments, HOPS_MAX) else { continue };
                // Of a module that is imported, what is needed is where its name is used.
                let is_only_named = to.is_module && path.kind != Kind::Glob;
                let shared = from.iter().zip(&to.module).take_while(|(a, b)| a == b).count();
                if shared == from.len() || shared == to.module.len() || is_only_named {
                    continue;
                }
                let of_this = needs.entry(from[..=shared].to_vec()).or_default();
                of_this
                    .entry(to.module[..=shared].to_vec())
                    .or_insert_with(|| format!("{}:{}", shown(from), path.line));
            }
        }
        needs
    }

    /// Where `segments` lead that are written in `scope`; `None` if out of the crate.
    fn place(&self, scope: &[&'a str], segments: &[&'a str], hops: u8) -> Option<Place<'a>> {
        let hops = hops.checked_sub(1)?;
        let (first, behind) = segments.split_first()?;
        match *first {
            "crate" => self.walk(&[], behind, hops),
            "self" => self.walk(scope, behind, hops),
            "super" => {
                let parents = segments.iter().take_while(|segment| **segment == "super").count();
                self.walk(&scope[..scope.len().checked_sub(parents)?], &segments[parents..], hops)
            }
            name => {
                let here = below(scope, name);
                let is_known = self.modules.contains_key(&here) || self.imports.contains_key(&here);
                if is_known { self.walk(scope, segments, hops) } else { None }
            }
        }
    }

    /// Where `segments` lead from a module.
    fn walk(&self, from: &[&'a str], segments: &[&'a str], hops: u8) -> Option<Place<'a>> {
        let mut at = from.to_vec();
        for (index, name) in segments.iter().enumerate() {
            let next = below(&at, name);
            if let Some(import) = self.imports.get(&next).filter(|_| !self.modules.contains_key(&next)) {
                let whole = [&import.segments, &segments[index + 1..]].concat();
                return self.place(&import.scope, &whole, hops);
            }
            if !self.modules.contains_key(&next) {
                return Some(Place { module: self.file_of(at), is_module: false });
            }
            at = next;
        }
        Some(Place { module: self.file_of(at), is_module: true })
    }

    /// The module, or the one that has it inline.
    fn file_of(&self, mut module: Name<'a>) -> Name<'a> {
        while !module.is_empty() && !self.modules.contains_key(&module) {
            module.pop();
        }
        module
    }
}

fn below<'a>(module: &[&'a str], name: &'a str) -> Name<'a> {
    module.iter().copied().chain([name]).collect()
}

/// Modules each of which needs all others, by way of others perhaps.
fn circles_of(krate: &str, needs: &Needs<'_>) -> Vec<Circle> {
    let reached: BTreeMap<_, BTreeSet<_>> = needs.keys().map(|from| (from, reached(needs, from))).collect();
    let mut circles: Vec<Circle> = Vec::new();
    for from in needs.keys() {
        let is_around = |to: &&Name<'_>| reached.get(to).is_some_and(|reached| reached.contains(from));
        let modules: Vec<String> = reached[from].iter().copied().filter(is_around).map(shown).collect();
        if !modules.is_empty() && circles.iter().all(|circle| circle.modules != modules) {
            circles.push(Circle { krate: krate.to_owned(), modules, way: way_round(needs, from) });
        }
    }
    circles
}

/// What is needed by what `from` needs, and so on; `from` itself only if it is.
fn reached<'n, 'a>(needs: &'n Needs<'a>, from: &'n Name<'a>) -> BTreeSet<&'n Name<'a>> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        let of_this = needs.get(module).into_iter().flat_map(BTreeMap::keys);
        next.extend(of_this.filter(|to| reached.insert(*to)));
    }
    reached
}

/// A shortest way from `start` to itself: where each module needs the next.
fn way_round<'a>(needs: &Needs<'a>, start: &Name<'a>) -> String {
    let mut ways = VecDeque::from([(start, String::new())]);
    let mut seen = BTreeSet::new();
    while let Some((from, way)) = ways.pop_front() {
        for (to, place) in needs.get(from).into_iter().flatten() {
            let way = format!("{way}{place} → ");
            if to == start {
                return way + &shown(start);
            }
            if seen.insert(to) {
                ways.push_back((to, way));
            }
        }
    }
    String::new()
}

fn shown(module: &Name<'_>) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a crate with these files.
    fn of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        ways(files).into_iter().map(|circle| circle.modules).collect()
    }

    fn ways(files: &[(&str, &str)]) -> Vec<Circle> {
        let file = |(path, text): &(&str, &str)| RustFile::new(&format!("core/src/{path}"), (*text).to_owned());
        circles(&files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn a_circle_has_a_name_and_a_way_round() {
        let files = [
            ("lib.rs", "pub mod a;\nmod b;\nmod c;\nmod d;\n"),
            ("a.rs", "use crate::b::B;\nuse std::fmt;\n"),
            ("b.rs", "\n// No circle by way of super::d::D.\nfn f() -> super::c::C { \"crate::d::D\" }\n"),
            ("c/mod.rs", "use crate::{a::{self, A}, d};\n"),
            ("d.rs", "use crate::a::A;\n"),
        ];
        let circles = ways(&files);
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].krate, "core");
        assert_eq!(circles[0].modules, ["a", "b", "c"]);
        assert_eq!(circles[0].way, "a:1 → b:3 → c:1 → a");
        // Now the imported module is used, too.
        let used = [&files[..3], &[("c/mod.rs", "use crate::{a, d};\nfn f() { d::f(a::A); }\n")], &files[4..]].concat();
        assert_eq!(of(&used), [["a", "b", "c", "d"]]);
        assert_eq!(of(&files[..3]), [[""; 0]; 0]);
    }

    #[test]
    fn tests_may_import_anything() {
        let of_b = |b| of(&[("a.rs", "use crate::b::B;\n"), ("b.rs", b), ("b/tests.rs", "use crate::a::A;\n")]);
        assert_eq!(
            of_b("#[cfg(test)]\nmod tests {\n    use crate::a::{A};\n}\n#[cfg(test)]\nuse crate::a::A;\n").len(),
            0
        );
        assert_eq!(of_b("#[cfg(test)]\nmod tests;\nuse crate::a::A;\n").len(), 1);
    }

    #[test]
    fn parents_and_their_children_are_one_module() {
        let parent = "mod a;\nmod b;\npub use a::A;\nuse self::b::B;\npub struct P;\nfn f() { a::f(); }\n";
        assert_eq!(
            of(&[("p.rs", parent), ("p/a.rs", "use super::{P, b};\n"), ("p/b.rs", "use crate::p::P;\n")]).len(),
            0
        );
    }

    #[test]
    fn a_name_leads_to_where_it_comes_from() {
        let parent = "mod a;\nmod b;\npub use self::a::A as Passed;\nuse b::B;\n";
        let through = [("p/mod.rs", parent), ("p/a.rs", "use super::B;\n"), ("p/b.rs", "use super::Passed;\n")];
        assert_eq!(of(&through), [["p::a", "p::b"]]);
        // Through the crate's root, and with a name that leads to itself.
        let root = [
            ("lib.rs", "pub use a::A;\nuse x::x;\n"),
            ("a.rs", "use crate::b::*;\n"),
            ("b.rs", "use crate::{A, x};\n"),
        ];
        assert_eq!(of(&root), [["a", "b"]]);
    }

    #[test]
    fn a_folder_is_one_module_to_those_beside_it() {
        let files =
            [("a.rs", "use crate::f::F;\n"), ("f/mod.rs", "pub struct F;\n"), ("f/x.rs", "fn f(a: crate::a::A) {}\n")];
        assert_eq!(of(&files), [["a", "f"]]);
    }

    #[test]
    fn each_crate_and_each_program_is_read_alone() {
        let file = |path: &str, text: &str| RustFile::new(path, text.to_owned());
        let files = [
            file("core/src/a.rs", "use crate::b::B;\n"),
            file("core/src/b.rs", ""),
            file("worker/src/b.rs", "use crate::a::A;\n"),
            file("core/src/bin/b.rs", "use crate::a::A;\n"),
            file("core/build.rs", "mod a;\n"),
        ];
        assert_eq!(circles(&files), []);
    }

    #[test]
    fn inline_modules_are_part_of_their_file() {
        let a = "pub mod inner {\n    use super::super::b::B;\n    fn f() { super::g(); }\n}\n";
        assert_eq!(of(&[("a.rs", a), ("b.rs", "use crate::a::inner::f;\n")]), [["a", "b"]]);
    }
}
