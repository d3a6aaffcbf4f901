//! `kinglet healthcheck`: one readiness request, for images without a shell.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Failure;
use crate::config::Config;
use crate::frontend::Address;
use crate::frontend::tls::config::Secured;
use crate::frontend::tls::{self, TlsConfig};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address of any of the server's HTTP listeners, a port or unix:/path [default: KINGLET__ADMIN__LISTEN, or
    /// 127.0.0.1:8002]
    #[arg(long, value_name = "ADDR")]
    address: Option<Address>,
    /// Ask whether the process is alive instead of whether it is ready
    #[arg(long)]
    live: bool,
    /// Ask whether the first models have loaded; still true while the server ends
    #[arg(long, conflicts_with = "live")]
    startup: bool,
    /// Speak TLS to that address; whose certificate it shows is not asked [default: where no address is given, as the
    /// settings have it]
    #[arg(long, requires = "address")]
    tls: bool,
    /// How long to wait, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    timeout: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let path = match args {
        Args { live: true, .. } => "/v2/health/live",
        Args { startup: true, .. } => "/v2/health/startup",
        _ => "/v2/health/ready",
    };
    let timeout = Duration::from_millis(args.timeout.max(1));
    let settings = || Config::load(None, &[]).map_err(|error| Failure::Config(error.into()));
    let (address, tls) = match &args.address {
        Some(address) => (address.clone(), if args.tls { Some(settings()?.tls) } else { None }),
        None => {
            let Config { admin, tls, .. } = settings()?;
            (reachable(admin.listen), Some(tls).filter(|tls| tls.covers(Secured::Admin)))
        }
    };
    let answer = ask(&address, tls.as_ref(), path, timeout).with_context(|| format!("no answer from {address}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    Err(Failure::Run(anyhow::anyhow!("{path} answered {status}: {body}")))
}

/// A server that listens on all addresses is asked on this machine's own.
fn reachable(listen: Address) -> Address {
    let Some(address) = listen.tcp() else { return listen };
    let here: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Address::Tcp(SocketAddr::new(here, address.port()))
}

fn ask(address: &Address, tls: Option<&TlsConfig>, path: &str, timeout: Duration) -> std::io::Result<String> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            match tls {
                None => ask_over(stream, &address.to_string(), path),
                Some(tls) => ask_over(tls::connect(tls, stream)?, &address.to_string(), path),
            }
        }
        Address::Unix(file) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.connect_timeout(&SockAddr::unix(file)?, timeout)?;
            let stream = UnixStream::from(socket);
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            ask_over(stream, "localhost", path)
        }
    }
}

fn ask_over(mut stream: impl Read + Write, host: &str, path: &str) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Health answers are a line; anything longer comes from something else.
const ANSWER_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_here() {
        for (listen, wanted) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("10.0.0.1:3", "10.0.0.1:3"),
            ("[::1]:4", "[::1]:4"),
            ("unix:/a", "unix:/a"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), wanted.parse().unwrap(), "{listen}");
        }
    }
}
