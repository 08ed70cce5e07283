//! Whatever comes in.

use proptest::prelude::*;

use super::*;

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
            prop_assert!([400, 401, 404, 405, 409, 422].contains(&response.status), "{}: {}", response.status, body);
            prop_assert_eq!(&body["success"], false);
            prop_assert_eq!(&body["status"], response.status);
            prop_assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
            prop_assert!(body["error"]["type"].is_string());
        }
    }
}
