//! Whatever comes in.

use proptest::prelude::*;

use super::*;
use crate::api::routes::ROUTES;

/// A path of a route at which there is something.
fn real(home: &Home, path: &str, sync: &str) -> String {
    let id = sync.rsplit('/').next().unwrap();
    let object = b2sync_core::ids::object_id(id, "notes.unknown");
    let connection = home.record(sync).connection_id;
    [("{connection_id}", connection.as_str()), ("{bucket_id}", "bkt_1"), ("{sync_config_id}", id)]
        .into_iter()
        .chain([("{sync_job_id}", "job_1"), ("{object_id}", object.as_str())])
        .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[test]
fn nothing_that_is_asked_for_is_passed_over() {
    let home = Home::new();
    *home.jobs.borrow_mut() = vec![job("job_1", NOW, JobStatus::Completed)];
    let sync = home.sync();
    fill(&home, sync.rsplit('/').next().unwrap());
    for route in ROUTES.iter().filter(|route| !route.is_public) {
        for method in route.methods {
            let target = real(&home, route.path, &sync);
            let wrong = home.wrong(method, &format!("{target}?bogus=1"), Value::Null);
            assert!(wrong.contains(&"query.bogus".to_owned()), "{method} {target}: {wrong:?}");
            if *method != "GET" {
                let wrong = home.wrong(method, &target, json!({"bogus": 1}));
                let found = wrong.iter().any(|it| it == "body.bogus" || it == "query.sync_id");
                assert!(found, "{method} {target}: {wrong:?}");
            }
        }
    }
    assert_eq!(home.call("GET", &sync, json!({"bogus": 1})).0, 200, "the body of a GET means nothing");
    for path in ["/", "/healthz"] {
        assert_eq!(home.call("GET", &format!("{path}?at=1"), Value::Null).0, 200, "{path}");
    }
    // A wrong spelling deletes nothing, and is told what is right.
    let (_, _, message) = home.refused("DELETE", &format!("{sync}?delete_object=true"), Value::Null);
    assert_eq!(message, "Unknown parameter \"delete_object\". Allowed: delete_objects.");
    let (_, _, message) = home.refused("GET", &format!("{SYNCS}?state=ACTIVE"), Value::Null);
    assert!(message.ends_with("is_active, limit, next_cursor, offset, page, page_size, status."), "{message}");
    let (_, _, message) = home.refused("GET", &format!("{sync}/metrics?days=1"), Value::Null);
    assert!(message.ends_with("Allowed: none."), "{message}");
    assert_eq!(home.wrong("GET", &format!("{OBJECTS}?limit=1&limit=2"), Value::Null), ["query.limit"]);
    assert_eq!(home.wrong("GET", &format!("{OBJECTS}?{}", "limit=&".repeat(65)), Value::Null)[0], "query");
}

/// What a home sends on, as the Worker will: any bytes.
fn any_request() -> impl Strategy<Value = ApiRequest> {
    let method =
        prop_oneof![Just("GET"), Just("POST"), Just("PATCH"), Just("DELETE"), Just("PUT"), Just(""), Just("ÄÖ")];
    let segment = prop_oneof![
        Just("v1".to_owned()),
        Just("organizations".to_owned()),
        Just("connections".to_owned()),
        Just("buckets".to_owned()),
        Just("syncs".to_owned()),
        Just("objects".to_owned()),
        Just("jobs".to_owned()),
        Just("dlq".to_owned()),
        Just("changes".to_owned()),
        Just("list".to_owned()),
        Just("A".to_owned()),
        Just("%F0%9F".to_owned()),
        any::<String>(),
    ];
    let path = prop_oneof![
        proptest::collection::vec(segment, 0..7).prop_map(|parts| format!("/{}", parts.join("/"))),
        Just(CONNECTIONS.to_owned()),
        Just(format!("{CONNECTIONS}/list")),
        Just(format!("{CONNECTIONS}/A")),
        Just(SYNCS.to_owned()),
        Just(format!("{SYNCS}/list")),
        Just(OBJECTS.to_owned()),
        Just(format!("{OBJECTS}/list")),
    ];
    let query = prop_oneof![
        any::<String>(),
        concat!(
            "(limit|page_size|offset|page|cursor|after|include_total|prefix|wait)",
            "=[0-9a-zA-Z%&=_-]{0,30}(&page=[0-9]{0,9})?"
        ),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("my-videos")),
        Just(json!("A")),
    ];
    let key = prop_oneof![
        Just("name"),
        Just("connection_id"),
        Just("source_path"),
        Just("file_filters"),
        Just("include_patterns"),
        Just("modified_since"),
        Just("provider_type"),
        Just("provider_config"),
        Just("credentials"),
        Just("key_id"),
        Just("application_key"),
        Just("metadata"),
        Just("reconcile"),
        Just("polling_interval_seconds"),
        Just("status"),
        Just("max_size_bytes"),
        Just("max_class_c_per_day"),
        Just("deletion_limit"),
        Just("sync_from"),
        Just("sinks"),
        Just("feed_retention_hours"),
        Just("other"),
    ];
    let json = leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    });
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        json.prop_map(|value| value.to_string().into_bytes()),
    ];
    let namespace = proptest::option::of(any::<String>());
    (method, path, query, namespace, body, any::<bool>()).prop_map(|(method, path, query, namespace, body, known)| {
        ApiRequest {
            method: method.to_owned(),
            path,
            query,
            authorization: known.then(|| format!("Bearer {API_KEY}")),
            idempotency_key: namespace.clone(),
            if_match: namespace.clone().filter(|text| text.len() % 2 == 0),
            accept: namespace.clone(),
            origin: namespace.clone(),
            last_event_id: namespace.clone(),
            namespace,
            body,
        }
    })
}

proptest! {
    #[test]
    fn whatever_comes_in_a_well_formed_answer_goes_out(request in any_request()) {
        let home = Home::new();
        home.connection("A");
        let response = home.request(request);
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        prop_assert!(response.headers.contains(&("content-type", "application/json".to_owned())));
        if response.status == 200 {
            prop_assert!(body.is_object());
        } else {
            let refusals = [400, 401, 404, 405, 409, 412, 422];
            prop_assert!(refusals.contains(&response.status), "{}: {}", response.status, body);
            prop_assert_eq!(&body["success"], false);
            prop_assert_eq!(&body["status"], response.status);
            prop_assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
            prop_assert!(body["error"]["type"].is_string());
        }
    }
}
