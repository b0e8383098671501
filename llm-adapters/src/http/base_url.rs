//! Where a server is.

use prompt_engine_core::{Error, Result};
use reqwest::Url;

/// `url` as a base URL, without a slash at its end.
///
/// # Errors
/// `Invalid`, naming the URL, unless it is an `http` or `https` URL without query and fragment.
pub(crate) fn base_url(url: &str) -> Result<String> {
    let refuse =
        |why: &str| Err(Error::invalid(format!("{url:?} is no base URL of a model server: {why}")));
    let parsed = match Url::parse(url.trim()) {
        Ok(parsed) => parsed,
        Err(why) => return refuse(&why.to_string()),
    };
    if !matches!(parsed.scheme(), "http" | "https") {
        return refuse("it must begin with http:// or https://");
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return refuse("it must have no query and no fragment");
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

/// Whether requests to `base_url` stay on this machine.
pub(crate) fn is_loopback(base_url: &str) -> bool {
    let Ok(url) = Url::parse(base_url) else { return false };
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}
