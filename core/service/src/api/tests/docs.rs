//! The reference documentation says what the code says. Tables between marker comments are written by these tests:
//! `UPDATE_DOCS=1 cargo test -p b2sync-service docs` rewrites them. Of other tables, the names are compared.

mod errors;
mod fields;
mod limits;
pub(super) mod page;

use super::*;
use crate::api::routes::ROUTES;

#[test]
fn the_routes() {
    let rows: Vec<String> = ROUTES
        .iter()
        .map(|route| {
            let (last, others) = route.methods.split_last().unwrap();
            let others: String = others.iter().map(|method| format!("`{method}` or ")).collect();
            format!("| {others}`{last} {}` | {} |\n", route.path, route.summary)
        })
        .collect();
    let table = format!("| method and path | what it does |\n|---|---|\n{}", rows.concat());
    page::check_block("http-api.md", "routes", |_| table);
}
