//! The description of the API as a page for people: no script, and nothing from another host.

use std::fmt::Write;

use serde_json::{Map, Value};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8881}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}\
h1,h2{line-height:1.2}code,pre{font:14px/1.45 ui-monospace,monospace}\
pre{background:var(--soft);padding:.75rem;overflow:auto;max-height:24rem}\
table{border-collapse:collapse;width:100%;display:block;overflow:auto}\
td,th{border-top:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top}\
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .75rem}\
summary{cursor:pointer}summary b{display:inline-block;min-width:4.5rem}summary span{opacity:.75}\
nav a{margin-right:1rem}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Words of the reference: what stands between backticks is code, and a link is its text.
fn words(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (before, link) = before.rsplit_once('[').unwrap_or((before, ""));
        plain += before;
        plain += link;
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain += rest;
    let parts = plain.split('`').enumerate();
    parts
        .map(|(at, part)| if at % 2 == 1 { format!("<code>{}</code>", escaped(part)) } else { escaped(part) })
        .collect()
}

/// What a schema says of the values that it takes.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or_default().to_owned();
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).filter(|it| *it != "null").collect(),
        _ => Vec::new(),
    };
    let mut kind = types.join(" or ");
    if !schema["items"].is_null() {
        kind = format!("{kind} of {}", self::kind(&schema["items"]));
    }
    if let Some(choices) = schema["enum"].as_array() {
        kind = choices.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    for (name, sign) in [("minimum", "≥"), ("maximum", "≤"), ("minLength", "length ≥"), ("maxLength", "length ≤")]
    {
        if let Some(bound) = schema.get(name) {
            kind += &format!(" {sign} {bound}");
        }
    }
    kind
}

/// The fields of an object, those of objects in it too.
fn rows(schema: &Value, before: &str, table: &mut String) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        row(&format!("{before}{name}"), field, required.contains(&name.as_str()), table);
        rows(field, &format!("{before}{name}."), table);
        rows(&field["items"], &format!("{before}{name}[]."), table);
    }
}

fn row(name: &str, schema: &Value, is_required: bool, table: &mut String) {
    let text = schema["description"].as_str().map(words).unwrap_or_default();
    let needed = if is_required { " *" } else { "" };
    let _ = writeln!(table, "<tr><td><code>{}</code>{needed}<td>{}<td>{text}", escaped(name), escaped(&kind(schema)));
}

fn table(title: &str, rows: &str) -> String {
    if rows.is_empty() { String::new() } else { format!("<h4>{title}</h4>\n<table>\n{rows}</table>\n") }
}

fn example(title: &str, value: &Value) -> String {
    if value.is_null() {
        return String::new();
    }
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    format!("<h4>{title}</h4>\n<pre>{}</pre>\n", escaped(&text))
}

fn operation(method: &str, path: &str, operation: &Value) -> String {
    let summary = operation["summary"].as_str().map(words).unwrap_or_default();
    let id = operation["operationId"].as_str().unwrap_or_default();
    let mut page = format!(
        "<details id=\"{id}\"><summary><b>{}</b> <code>{}</code> <span>{summary}</span></summary>\n",
        method.to_uppercase(),
        escaped(path)
    );
    let mut parameters = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let mut schema = parameter["schema"].clone();
        schema["description"] = parameter["description"].clone();
        let name =
            format!("{} ({})", parameter["name"].as_str().unwrap_or_default(), parameter["in"].as_str().unwrap());
        row(&name, &schema, parameter["required"] == true, &mut parameters);
    }
    page += &table("Parameters", &parameters);
    let json = "/content/application~1json";
    if let Some(body) = operation["requestBody"].pointer(json) {
        let mut fields = String::new();
        rows(&body["schema"], "", &mut fields);
        page += &table("Body", &fields);
        page += &example("Example of a body", &body["example"]);
    }
    if let Some(answer) = operation.pointer(&format!("/responses/200{json}")) {
        let mut fields = String::new();
        rows(&answer["schema"], "", &mut fields);
        if let Some(name) = answer["schema"]["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
            let _ = writeln!(page, "<p>Answers a <a href=\"#{name}\">{name}</a>.</p>");
        }
        page += &table("Answer", &fields);
        page += &example("Example of an answer", &answer["example"]);
    }
    page + "</details>\n"
}

/// The page.
pub(super) fn page(description: &Value) -> String {
    let info = &description["info"];
    let paths = description["paths"].as_object().cloned().unwrap_or_else(Map::new);
    let mut tags: Vec<&str> = Vec::new();
    let operations: Vec<(&str, &str, &str, &Value)> = paths
        .iter()
        .flat_map(|(path, operations)| operations.as_object().into_iter().flatten().map(move |it| (path, it)))
        .map(|(path, (method, it))| (it["tags"][0].as_str().unwrap_or_default(), method.as_str(), path.as_str(), it))
        .collect();
    for (tag, ..) in &operations {
        if !tags.contains(tag) {
            tags.push(tag);
        }
    }
    let link = |tag: &str| format!("<a href=\"#{}\">{tag}</a>\n", tag.replace(' ', "-"));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>b2sync API</title>\n<style>{STYLE}</style>\n<h1>b2sync API {}</h1>\n\
         <p>{}</p>\n<p>The same as <a href=\"openapi.json\">OpenAPI 3.1</a>. Calls under <code>/v1</code> need \
         <code>Authorization: Bearer &lt;your API key&gt;</code>. A star marks what is required, or always there.</p>\n\
         <nav>{}{}</nav>\n",
        words(info["version"].as_str().unwrap_or_default()),
        words(info["description"].as_str().unwrap_or_default()),
        tags.iter().map(|tag| link(tag)).collect::<String>(),
        link("schemas"),
    );
    for tag in tags {
        let _ = writeln!(page, "<h2 id=\"{}\">{tag}</h2>", tag.replace(' ', "-"));
        for (_, method, path, it) in operations.iter().filter(|(of, ..)| *of == tag) {
            page += &operation(method, path, it);
        }
    }
    page += "<h2 id=\"schemas\">schemas</h2>\n";
    for (name, schema) in description["components"]["schemas"].as_object().into_iter().flatten() {
        let mut fields = String::new();
        rows(schema, "", &mut fields);
        let _ = writeln!(page, "<details id=\"{name}\"><summary><b>{name}</b></summary>");
        page += &table("Fields", &fields);
        page += &example("Example", &schema["examples"][0]);
        page += "</details>\n";
    }
    page
}
