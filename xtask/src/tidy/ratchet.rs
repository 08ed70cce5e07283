//! Rules that today's code breaks in places: what is not on the list of its rule is a finding, what is worse than the
//! list says is one, and so is an entry that no longer breaks the rule.

use super::finding::Finding;
use super::imports::Circle;

/// Where the lists are, for findings about their entries.
const LISTS: &str = "xtask/src/tidy/known.rs";

/// Something that breaks a rule on sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) path: String,
    /// The function; empty when it is the file.
    pub(super) name: String,
    pub(super) size: usize,
    pub(super) line: usize,
    pub(super) message: String,
}

/// What breaks one rule: file, function (empty when it is the file) and size.
pub(super) struct List {
    pub(super) name: &'static str,
    pub(super) entries: &'static [(&'static str, &'static str, usize)],
}

impl Breach {
    pub(super) fn new(path: &str, name: &str, size: usize, line: usize, message: String) -> Self {
        Self { path: path.to_owned(), name: name.to_owned(), size, line, message }
    }
}

impl List {
    /// The breaches that the list does not allow, and the entries that nothing needs any more.
    pub(super) fn check(&self, breaches: &[Breach]) -> Vec<(String, Finding)> {
        let mut findings = Vec::new();
        for breach in breaches {
            let known = self.entries.iter().find(|(path, name, _)| *path == breach.path && *name == breach.name);
            let message = match known {
                None => breach.message.clone(),
                Some((_, _, most)) if breach.size > *most => {
                    format!("{} {LISTS} allows {most} here, and now it is {}.", breach.message, breach.size)
                }
                Some(_) => continue,
            };
            findings.push((breach.path.clone(), Finding::at(breach.line, message)));
        }
        for (path, name, _) in self.entries {
            if !breaches.iter().any(|breach| *path == breach.path && *name == breach.name) {
                let what = if name.is_empty() { (*path).to_owned() } else { format!("`{name}` of {path}") };
                findings.push((LISTS.to_owned(), off_the_list(self.name, &what)));
            }
        }
        findings
    }
}

/// As [`List::check`]: a known circle allows what is left of it.
pub(super) fn check_circles(known: &[(&str, &[&str])], circles: &[Circle]) -> Vec<(String, Finding)> {
    let is_in = |circle: &Circle, (krate, modules): &(&str, &[&str])| {
        circle.krate == *krate && circle.modules.iter().all(|module| modules.contains(&module.as_str()))
    };
    let mut findings = Vec::new();
    for circle in circles.iter().filter(|circle| !known.iter().any(|known| is_in(circle, known))) {
        let message = format!(
            "these modules import each other in a circle: {}. A way round: {}. Give what they share a file that \
             imports none of them.",
            circle.modules.join(", "),
            circle.way
        );
        findings.push((format!("{}/src", circle.krate), Finding::file(message)));
    }
    for (krate, modules) in known {
        let is_left = |circle: &Circle| circle.modules.iter().any(|module| modules.contains(&module.as_str()));
        if !circles.iter().any(|circle| circle.krate == *krate && is_left(circle)) {
            findings.push((LISTS.to_owned(), off_the_list("CIRCLES", &format!("the circle {}", modules.join(", ")))));
        }
    }
    findings
}

fn off_the_list(list: &str, what: &str) -> Finding {
    Finding::file(format!("{what} no longer breaks the rule: take it off the list {list}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: List = List { name: "LIST", entries: &[("a.rs", "", 3), ("a.rs", "f", 80), ("b.rs", "f", 80)] };

    fn breach(path: &str, name: &str, size: usize) -> Breach {
        Breach::new(path, name, size, 7, format!("too long: {size}."))
    }

    fn shown(findings: Vec<(String, Finding)>) -> Vec<String> {
        let line = |line: Option<usize>| line.map_or_else(String::new, |line| format!(":{line}"));
        findings.into_iter().map(|(path, found)| format!("{path}{}: {}", line(found.line), found.message)).collect()
    }

    #[test]
    fn what_a_list_allows_is_no_finding() {
        let known = [breach("a.rs", "", 3), breach("a.rs", "f", 71), breach("a.rs", "f", 72), breach("b.rs", "f", 80)];
        assert_eq!(LIST.check(&known), []);
    }

    #[test]
    fn what_is_not_on_a_list_is_a_finding_and_so_is_what_grew() {
        let breaches =
            [breach("a.rs", "", 4), breach("a.rs", "f", 80), breach("a.rs", "g", 71), breach("b.rs", "f", 80)];
        let grew = format!("a.rs:7: too long: 4. {LISTS} allows 3 here, and now it is 4.");
        assert_eq!(shown(LIST.check(&breaches)), [grew, "a.rs:7: too long: 71.".to_owned()]);
    }

    #[test]
    fn what_was_mended_goes_off_the_list() {
        let expected = [
            format!("{LISTS}: a.rs no longer breaks the rule: take it off the list LIST."),
            format!("{LISTS}: `f` of b.rs no longer breaks the rule: take it off the list LIST."),
        ];
        assert_eq!(shown(LIST.check(&[breach("a.rs", "f", 80)])), expected);
    }

    #[test]
    fn a_known_circle_may_only_get_smaller() {
        let circle = |krate: &str, modules: &[&str]| Circle {
            krate: krate.to_owned(),
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
            way: "a:1 → b:2 → a".to_owned(),
        };
        let check = |found: Circle| shown(check_circles(&[("core", &["a", "b", "c"])], &[found]));
        assert_eq!(check(circle("core", &["a", "b", "c"])), [""; 0]);
        assert_eq!(check(circle("core", &["a", "c"])), [""; 0]);
        let new = "core/src: these modules import each other in a circle: a, b, d. A way round: a:1 → b:2 → a. Give \
                   what they share a file that imports none of them.";
        assert_eq!(check(circle("core", &["a", "b", "d"])), [new]);
        let mended = format!("{LISTS}: the circle a, b, c no longer breaks the rule: take it off the list CIRCLES.");
        assert_eq!(check(circle("worker", &["a", "b"]))[1], mended);
    }
}
