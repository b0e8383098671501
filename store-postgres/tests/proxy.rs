//! A wire to the server that can be cut, at a COMMIT too.
#![allow(dead_code, reason = "no test uses all of it")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use url::Url;

/// What happens to the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It never arrives.
    Before,
    /// It is done, and nobody is told.
    After,
}

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    next: Arc<Mutex<Option<Cut>>>,
}

trait Wire: Read + Write + Send {
    fn another(&self) -> Box<dyn Wire>;
    fn cut(&self);
}

impl Wire for TcpStream {
    fn another(&self) -> Box<dyn Wire> {
        Box::new(self.try_clone().unwrap())
    }

    fn cut(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Wire for UnixStream {
    fn another(&self) -> Box<dyn Wire> {
        Box::new(self.try_clone().unwrap())
    }

    fn cut(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

fn connect(server: &Url) -> Box<dyn Wire> {
    let options = PgConnectOptions::from_url(server).unwrap();
    let port = options.get_port();
    match options.get_socket() {
        Some(folder) => {
            let socket = folder.join(format!(".s.PGSQL.{port}"));
            Box::new(UnixStream::connect(socket).unwrap())
        }
        None => Box::new(TcpStream::connect((options.get_host(), port)).unwrap()),
    }
}

impl Proxy {
    pub(crate) fn start(server: &Url) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(Mutex::new(None));
        let (server, shared) = (server.clone(), Arc::clone(&next));
        thread::spawn(move || {
            for client in listener.incoming() {
                carry(client.unwrap(), connect(&server), Arc::clone(&shared));
            }
        });
        Self { port, next }
    }

    /// `url`, by way of the proxy.
    pub(crate) fn through(&self, url: &Url) -> Url {
        let mut through = url.clone();
        // What comes last counts.
        through
            .query_pairs_mut()
            .append_pair("sslmode", "disable")
            .append_pair("host", "127.0.0.1")
            .append_pair("port", &self.port.to_string());
        // A folder of a Unix socket, though, counts wherever it stands.
        let rest: Vec<(String, String)> = through
            .query_pairs()
            .filter(|(name, value)| !(name == "host" && value.starts_with('/')))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        through.query_pairs_mut().clear().extend_pairs(rest);
        through
    }

    /// Cuts the wire at the next COMMIT.
    pub(crate) fn cut_at_commit(&self, cut: Cut) {
        *self.next.lock().unwrap() = Some(cut);
    }

    /// Whether the wire was cut since it was last asked to be.
    pub(crate) fn was_cut(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }
}

/// Carries what both ends say, until one of them goes or the wire is cut.
fn carry(client: TcpStream, server: Box<dyn Wire>, next: Arc<Mutex<Option<Cut>>>) {
    // Whether the answer of the server is to be swallowed, and the wire cut.
    let swallow = Arc::new(Mutex::new(false));
    let (mut from_client, mut to_client) = (client.another(), client.another());
    let (mut from_server, mut to_server) = (server.another(), server.another());
    let swallowed = Arc::clone(&swallow);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_client.read(&mut buffer) {
            if buffer[..read].ends_with(b"COMMIT\0") {
                match next.lock().unwrap().take() {
                    Some(Cut::Before) => break,
                    Some(Cut::After) => *swallowed.lock().unwrap() = true,
                    None => {}
                }
            }
            if to_server.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        from_client.cut();
        to_server.cut();
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut buffer) {
            if *swallow.lock().unwrap() || to_client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        from_server.cut();
        to_client.cut();
    });
}
