//! Where the server is and how it is used. Nothing is checked here that only opening can tell.
//! Invariant: the URL, which may hold a password, is in no text that is printed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use prompt_engine_core::{Error, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use url::Url;

/// What of a URL this store understands.
const OF_THE_STORE: [&str; 3] = ["schema", "max_connections", "acquire_timeout_ms"];

/// What of a URL the driver understands; it would pass over anything else with a warning.
const OF_THE_DRIVER: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// How to open a [`PostgresStore`](crate::PostgresStore).
///
/// # Example: from a URL
/// ```
/// use prompt_engine_store_postgres::PostgresConfig;
/// let config = PostgresConfig::from_url("postgres://app:secret@db/prompts?schema=llm&sslmode=require")?;
/// assert_eq!(config.schema.as_deref(), Some("llm"));
/// assert!(!format!("{config:?}").contains("secret"));
/// assert!(PostgresConfig::from_url("postgres://db/prompts?pool=9").is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?parameters`, the parameters those of the
    /// driver. What it leaves open comes from `PGHOST`, `PGUSER`, `PGPASSWORD`, … and `~/.pgpass`.
    pub url: String,
    /// The schema that holds the tables, made if it is missing; `None` for the one where the
    /// connection's search path puts new tables.
    pub schema: Option<String>,
    /// How many connections may be open at once.
    pub max_connections: u32,
    /// How long to wait for a free connection, or for one to be made.
    pub acquire_timeout: Duration,
}

impl PostgresConfig {
    /// The database at `url`, the schema of its search path, 10 connections, a timeout of 5 s.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: None,
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
        }
    }

    /// Keeps the tables in `schema`.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Opens up to `connections` connections at once (at least one).
    #[must_use]
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Waits up to `timeout` for a connection.
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// The configuration of `postgres://user:password@host:port/database?<parameters>`. Parameters
    /// of this store: `schema`, `max_connections` and `acquire_timeout_ms`; all others are the
    /// driver's: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `host` (a folder for a Unix
    /// socket), `port`, `dbname`, `user`, `password`, `application_name`, `options`,
    /// `statement-cache-capacity`.
    ///
    /// # Errors
    /// `Invalid`, naming the parameter, if it is not known or has no such value. No error shows
    /// the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut parsed = parse(url)?;
        let mut config = Self::new("");
        let mut rest = Vec::new();
        for (name, value) in parsed.query_pairs() {
            let wrong = |takes: &str| {
                Error::invalid(format!("the PostgreSQL URL: {name} takes {takes}, not {value:?}"))
            };
            match &*name {
                "schema" => config.schema = Some(checked_schema(&value)?.to_owned()),
                "max_connections" => {
                    config.max_connections = match value.parse() {
                        Ok(connections @ 1..=1000) => connections,
                        _ => return Err(wrong("a number from 1 to 1000")),
                    };
                }
                "acquire_timeout_ms" => {
                    let ms: u32 = match value.parse() {
                        Ok(ms @ 1..) => ms,
                        _ => return Err(wrong("milliseconds")),
                    };
                    config.acquire_timeout = Duration::from_millis(ms.into());
                }
                _ => {
                    check_of_the_driver(&name)?;
                    rest.push((name.into_owned(), value.into_owned()));
                }
            }
        }
        if rest.is_empty() {
            parsed.set_query(None);
        } else {
            parsed.query_pairs_mut().clear().extend_pairs(rest);
        }
        driver_options(&parsed)?;
        config.url = parsed.into();
        Ok(config)
    }

    /// What the driver needs to connect.
    pub(crate) fn options(&self) -> Result<PgConnectOptions> {
        let parsed = parse(&self.url)?;
        for (name, _) in parsed.query_pairs() {
            if OF_THE_STORE.contains(&&*name) {
                return Err(Error::invalid(format!(
                    "the PostgreSQL URL: {name} is read by PostgresConfig::from_url alone; beside \
                     PostgresConfig::new stands with_{}",
                    name.trim_end_matches("_ms")
                )));
            }
            check_of_the_driver(&name)?;
        }
        let mut options = driver_options(&parsed)?.disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("prompt_engine");
        }
        if let Some(schema) = &self.schema {
            let schema = checked_schema(schema)?;
            options = options.options([("search_path", format!("\"{schema}\""))]);
        }
        Ok(options)
    }

    /// Where the store is.
    pub(crate) fn place(&self, options: &PgConnectOptions) -> Place {
        let server = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => match (options.get_host(), options.get_port()) {
                (address, port) if address.contains(':') => format!("[{address}]:{port}"),
                (host, port) => format!("{host}:{port}"),
            },
        };
        let user = options.get_username().to_owned();
        Place {
            database: options.get_database().unwrap_or(&user).to_owned(),
            server,
            user,
            schema: self.schema.clone(),
        }
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, schema, max_connections, acquire_timeout } = self;
        let mut shown = f.debug_struct("PostgresConfig");
        if let Ok(place) = self.options().map(|options| self.place(&options)) {
            shown.field("server", &place.server).field("database", &place.database);
        }
        shown
            .field("schema", schema)
            .field("max_connections", max_connections)
            .field("acquire_timeout", acquire_timeout)
            .finish_non_exhaustive()
    }
}

/// Where a store is, in words that hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) server: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) schema: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the PostgreSQL database {} at {}", self.database, self.server)?;
        match &self.schema {
            Some(schema) => write!(f, " (schema {schema})"),
            None => Ok(()),
        }
    }
}

fn parse(url: &str) -> Result<Url> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(Error::invalid("a PostgreSQL URL starts with postgres://"));
    }
    Url::parse(url).map_err(|error| {
        Error::invalid(
            "the PostgreSQL URL cannot be read; in a user name or a password, / ? # @ : and % must \
             be written as %2F %3F %23 %40 %3A and %25",
        )
        .with_source(error)
    })
}

fn driver_options(url: &Url) -> Result<PgConnectOptions> {
    // The driver's words may quote the value of a parameter, and so a password that was put into
    // another one by mistake.
    let options = PgConnectOptions::from_url(url).map_err(|_| {
        let of = "sslmode, port, hostaddr or statement-cache-capacity";
        Error::invalid(format!("the PostgreSQL URL: a value of {of} cannot be read"))
    })?;
    // The driver looks for a host of the name `[::1]`, brackets and all.
    let host = options.get_host();
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::to_owned);
    Ok(match address {
        Some(address) => options.host(&address),
        None => options,
    })
}

fn check_of_the_driver(name: &str) -> Result<()> {
    let option = name.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']'));
    if OF_THE_DRIVER.contains(&name) || option.is_some_and(|option| !option.is_empty()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the PostgreSQL URL: {name:?} is not a parameter; there are {}, and of the driver {}",
        OF_THE_STORE.join(", "),
        OF_THE_DRIVER.join(", ")
    )))
}

/// `name`, if it can stand in SQL as it is: it is quoted there, but never escaped.
fn checked_schema(name: &str) -> Result<&str> {
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|c| matches!(c, 'a'..='z' | '_'));
    let letters = chars.all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_')) && name.len() <= 63;
    // The server lets a superuser into this one, and no one but it should be there.
    if starts && letters && name != "information_schema" {
        return Ok(name);
    }
    Err(Error::invalid(format!(
        "{name:?} cannot be a schema; its name has a to z, 0 to 9 and _, starts with no digit and \
         has at most 63 characters"
    )))
}

impl FromStr for PostgresConfig {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_be_an_address_of_ipv6() {
        let config = PostgresConfig::from_url("postgres://db@[::1]:5433/p").unwrap();
        let options = config.options().unwrap();
        assert_eq!(options.get_host(), "::1");
        let place = config.place(&options);
        assert_eq!(place.to_string(), "the PostgreSQL database p at [::1]:5433");
    }

    #[test]
    fn a_schema_may_be_named_by_a_word_of_sql() {
        let config = PostgresConfig::from_url("postgres://db/p?schema=select").unwrap();
        let options = config.options().unwrap();
        assert!(options.get_options().unwrap().ends_with("-c search_path=\"select\""));
        assert_eq!(options.get_application_name(), Some("prompt_engine"));
        let config = PostgresConfig::from_url("postgres://db/p?application_name=mine").unwrap();
        assert_eq!(config.options().unwrap().get_application_name(), Some("mine"));
    }
}
