//! Recorded answers of real servers: read from the folder of test data, served byte for byte.

use std::collections::BTreeMap;
use std::path::Path;

use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;

/// The recordings by id, those of which `wanted` holds; `None` without a folder of them, which fails in CI.
pub(crate) fn load(wanted: impl Fn(&Value) -> bool) -> Option<BTreeMap<String, Value>> {
    let Some(folder) = std::env::var_os("PROMPT_ENGINE_TEST_DATA") else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "PROMPT_ENGINE_TEST_DATA must name the folder of recordings"
        );
        eprintln!("skipped: PROMPT_ENGINE_TEST_DATA does not name a folder of recordings");
        return None;
    };
    let mut cassettes = BTreeMap::new();
    for part in ["open", "quoted_errors"] {
        let folder = Path::new(&folder).join("cassettes").join(part);
        for entry in std::fs::read_dir(&folder).expect("a folder of recordings") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a recording");
            let cassette: Value = serde_json::from_str(&text).expect("a recording is JSON");
            let id = cassette["id"].as_str().expect("an id").to_owned();
            if wanted(&cassette) {
                cassettes.insert(id, cassette);
            }
        }
    }
    Some(cassettes)
}

/// The recording named by the path, its body in pieces of seven bytes.
pub(crate) fn answer(cassettes: &BTreeMap<String, Value>, uri: &Uri) -> Response {
    let id = uri.path().split('/').nth(1).unwrap_or_default();
    let recorded = &cassettes[id]["response"];
    let status = recorded["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = StatusCode::from_u16(status.expect("a status")).expect("a status");
    let mut response = Response::builder().status(status);
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str().expect("a header"));
    }
    let body = recorded["body"].as_str().unwrap_or_default().as_bytes().to_vec();
    let pieces: Vec<_> =
        body.chunks(7).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    response.body(Body::from_stream(futures::stream::iter(pieces))).expect("a response")
}

/// Whether the recording is a stream.
pub(crate) fn is_streamed(cassette: &Value) -> bool {
    cassette["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "stream"))
}
