//! Who may call, and where.

use super::*;

#[test]
fn every_v1_path_wants_the_key() {
    let home = Home::new();
    let paths = [
        "/v1",
        "/v1/",
        "/v1/nothing",
        CONNECTIONS,
        "/v1/organizations/connections/x/test",
        SYNCS,
        OBJECTS,
        "/%761/organizations/connections",
    ];
    for path in paths {
        for authorization in [None, Some("Bearer wrong"), Some("Bearer "), Some(API_KEY)] {
            for method in ["GET", "POST", "PUT"] {
                let request = ApiRequest {
                    method: method.into(),
                    path: path.into(),
                    authorization: authorization.map(str::to_owned),
                    ..ApiRequest::default()
                };
                let response = home.request(request);
                let body: Value = serde_json::from_slice(&response.body).unwrap();
                if path.starts_with("/%") && method == "PUT" {
                    continue; // It is told that the method is wrong, which says nothing.
                }
                assert_eq!(response.status, 401, "{method} {path}");
                assert_eq!(body["error"]["type"], "UnauthorizedError");
                assert!(body["error"]["message"].as_str().unwrap().contains("Authorization: Bearer"));
                assert!(response.headers.contains(&("www-authenticate", "Bearer".to_owned())));
            }
        }
    }
}

#[test]
fn two_paths_are_public() {
    let home = Home::new();
    for path in ["/", "/healthz", "/healthz/"] {
        let response = home.request(ApiRequest { method: "GET".into(), path: path.into(), ..ApiRequest::default() });
        assert_eq!(response.status, 200);
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["version"], "0.1.0");
    }
    let request = ApiRequest { method: "GET".into(), path: "/favicon.ico".into(), ..ApiRequest::default() };
    assert_eq!(home.request(request).status, 404);
}

#[test]
fn a_wrong_method_says_which_are_right() {
    let home = Home::new();
    let response = home.request(ApiRequest {
        method: "PUT".into(),
        path: CONNECTIONS.into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        ..ApiRequest::default()
    });
    assert_eq!(response.status, 405);
    assert!(response.headers.contains(&("allow", "GET, HEAD, POST".to_owned())));
}
