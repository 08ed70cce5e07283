//! The paths that stand in a Rust file, read as text: those of `use`, and those in the code.

use super::code::Token;

/// A module's names from the crate's root, which has none.
pub(super) type Name<'a> = Vec<&'a str>;

/// A path as it is written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    /// The module it is written in, inline ones included.
    pub(super) scope: Name<'a>,
    pub(super) segments: Vec<&'a str>,
    pub(super) line: usize,
    pub(super) kind: Kind<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// `use`, under this name.
    Import { name: &'a str },
    /// `use a::*`
    Glob,
    /// In the code.
    Used,
}

/// All paths of the file that is the module `name`.
pub(super) fn paths<'a>(tokens: &[Token<'a>], name: &[&'a str]) -> Vec<Path<'a>> {
    let mut reader = Reader { tokens, at: 0, scope: name.to_vec(), paths: Vec::new() };
    // The depths at which inline modules end.
    let (mut depth, mut ends) = (0_usize, Vec::new());
    while let Some(token) = tokens.get(reader.at) {
        match token.text {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if ends.last() == Some(&depth) {
                    ends.pop();
                    reader.scope.pop();
                }
            }
            "mod" if reader.text(2) == "{" => {
                ends.push(depth);
                reader.scope.push(reader.text(1));
                // The brace is read in the next turn.
                reader.at += 1;
            }
            // Not `use<'a>`, which is part of a type.
            "use" if reader.text(1) != "<" => {
                reader.at += 1;
                reader.tree(&[]);
            }
            _ if token.is_name() && reader.text(1) == "::" => reader.used(),
            _ => {}
        }
        reader.at += 1;
    }
    reader.paths
}

struct Reader<'a, 't> {
    tokens: &'t [Token<'a>],
    at: usize,
    scope: Name<'a>,
    paths: Vec<Path<'a>>,
}

impl<'a> Reader<'a, '_> {
    /// The token `ahead` places behind the current one; nothing behind the last.
    fn text(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn before(&self, back: usize) -> &'a str {
        self.at.checked_sub(back).map_or("", |before| self.tokens[before].text)
    }

    fn add(&mut self, segments: Vec<&'a str>, kind: Kind<'a>) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        self.paths.push(Path { scope: self.scope.clone(), segments, line, kind });
    }

    /// One tree of a `use`, up to the token behind it.
    fn tree(&mut self, parent: &[&'a str]) {
        let mut segments = parent.to_vec();
        loop {
            match self.text(0) {
                "" | ";" | "," | "}" => return,
                // `::a` is no module of this crate: nothing has an empty name.
                "::" if segments.is_empty() => segments.push(""),
                "::" => {}
                "*" => self.add(segments.clone(), Kind::Glob),
                "{" => {
                    while !matches!(self.text(0), "" | ";" | "}") {
                        self.at += 1;
                        self.tree(&segments);
                    }
                }
                name => {
                    // `a::{self}` is `a`.
                    if name != "self" || segments.is_empty() {
                        segments.push(name);
                    }
                    let renamed = self.text(1) == "as";
                    if renamed || self.text(1) != "::" {
                        let name = if renamed { self.text(2) } else { segments.last().copied().unwrap_or_default() };
                        self.add(segments.clone(), Kind::Import { name });
                        self.at += if renamed { 2 } else { 0 };
                    }
                }
            }
            self.at += 1;
        }
    }

    /// A path in the code, up to its last name.
    fn used(&mut self) {
        // Part of an expression (`a.b::<T>()`), of a longer path (`<T as U>::V::W`), or of `pub(in …)`.
        let is_whole = !matches!(self.before(1), "." | "::") && (self.before(2), self.before(1)) != ("(", "in");
        let mut segments = vec![self.text(0)];
        while self.text(1) == "::" && self.tokens.get(self.at + 2).is_some_and(Token::is_name) {
            segments.push(self.text(2));
            self.at += 2;
        }
        if is_whole {
            self.add(segments, Kind::Used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::code::tokens;
    use super::*;

    fn read(code: &str) -> Vec<String> {
        let shown = |path: Path<'_>| {
            let mut text = format!("{} {}: {}", path.line, path.scope.join("::"), path.segments.join("::"));
            match path.kind {
                Kind::Import { name } => text += &format!(" as {name}"),
                Kind::Glob => text += "::*",
                Kind::Used => {}
            }
            text
        };
        paths(&tokens(code), &["a", "b"]).into_iter().map(shown).collect()
    }

    #[test]
    fn trees_of_imports_are_taken_apart() {
        let code = "use crate::c;\npub use self::{d, e::{self, F as G, h::*},\n    i};\npub(crate) use super::j as _;\n\
                    use ::std::{fmt};\n";
        let expected = [
            "1 a::b: crate::c as c",
            "2 a::b: self::d as d",
            "2 a::b: self::e as e",
            "2 a::b: self::e::F as G",
            "2 a::b: self::e::h::*",
            "3 a::b: self::i as i",
            "4 a::b: super::j as _",
            "5 a::b: ::std::fmt as fmt",
        ];
        assert_eq!(read(code), expected);
    }

    #[test]
    fn paths_in_the_code_are_read_where_they_begin() {
        let code = "pub(in crate::a) fn f() -> impl T + use<'_> { super::c::<u8>(x.d::<E>(), <G as h::I>::J::K) }\n\
                    fn l() { for m in n::o() { ::p::q(); } }\n";
        assert_eq!(read(code), ["1 a::b: super::c", "1 a::b: h::I", "2 a::b: n::o"]);
    }

    #[test]
    fn inline_modules_are_scopes() {
        let code = "mod c {\n    fn f() { super::d(); }\n}\nfn g() { c::f(); }\nmod h;\n";
        assert_eq!(read(code), ["2 a::b::c: super::d", "4 a::b: c::f"]);
    }
}
