//! Where a server is.

use prompt_engine_core::{Error, Result};
use reqwest::Url;

/// `url` as a base URL, without a slash at its end.
///
/// # Errors
/// `Invalid`, naming the URL, unless it is an `http` or `https` URL without user, query and fragment.
pub(crate) fn base_url(url: &str) -> Result<String> {
    let refuse = |why: &str| {
        let shown = shown(url);
        Err(Error::invalid(format!("{shown:?} is no base URL of a model server: {why}")))
    };
    let parsed = match Url::parse(url.trim()) {
        Ok(parsed) => parsed,
        Err(why) => return refuse(&why.to_string()),
    };
    if !matches!(parsed.scheme(), "http" | "https") {
        return refuse("it must begin with http:// or https://");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return refuse("it must hold no user and no password; a key is an argument of its own");
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return refuse("it must have no query and no fragment");
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

/// What may be shown of `url`: neither a user and a password, nor a query, which may hold a key.
pub(crate) fn shown(url: &str) -> String {
    let start = url.rfind('@').map_or(0, |at| at + 1);
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let before = if start > 0 { "…@" } else { "" };
    let behind = if end < url.len() { "…" } else { "" };
    format!("{before}{}{behind}", url.get(start..end).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_no_user_and_no_password_and_no_refusal_shows_one() {
        for url in [
            "https://me:h0n-t3r@host/v1",
            "https://h0n-t3r@host/v1",
            "https://:h0n-t3r@host/v1",
            "https://me:h0n@-t3r@host/v1",
            "ftp://me:h0n-t3r@host/v1",
            "https://me:h0n-t3r@host:port/v1",
            "me:h0n-t3r@host/v1",
            "https://host/v1?key=h0n-t3r",
            "https://host/v1?key=h0n@-t3r",
            "https://me:h0n?-t3r@host/v1",
            "https://host/v1#h0n-t3r",
        ] {
            let refusal = base_url(url).expect_err(url).to_string();
            assert!(!refusal.contains("h0n") && !refusal.contains("t3r"), "{refusal}");
        }
        let refusal = base_url("https://me:h0n-t3r@host/v1").expect_err("a refusal").to_string();
        assert_eq!(
            refusal,
            "\"…@host/v1\" is no base URL of a model server: \
             it must hold no user and no password; a key is an argument of its own"
        );
        let refusal = base_url("https://host/v1?key=1").expect_err("a refusal").to_string();
        assert!(refusal.starts_with("\"https://host/v1…\" is no base URL"), "{refusal}");
        assert_eq!(base_url(" https://host/@team/v1/ ").expect("a URL"), "https://host/@team/v1");
    }
}
