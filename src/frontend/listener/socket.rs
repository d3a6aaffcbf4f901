//! What connections are accepted from: a port, or a file.
//!
//! A file that an ended process has left is replaced; one on which somebody listens, or that is no socket, is not. At the
//! end it is removed, unless another process has put its own there meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, chmod, fchmod};
use socket2::{Domain, Protocol, SockAddr, Socket as AnySocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::frontend::address::{Address, Mode};

/// Bound, and listening.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// One accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket's file, which is removed with this.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number, by which the file is known to be ours still.
    identity: (u64, u64),
}

impl Socket {
    pub(super) fn bind(address: &Address, mode: Mode, backlog: i32) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = AnySocket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.bind(&(*address).into())?;
                listen(&socket, backlog)?;
                Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
            }
            Address::Unix(path) => {
                let socket = AnySocket::new(Domain::UNIX, Type::STREAM, None)?;
                let file = SocketFile::bind(&socket, path, mode)?;
                listen(&socket, backlog)?;
                Ok(Self::Unix(UnixListener::from_std(socket.into())?, file))
            }
        }
    }

    /// With the port that was found for port 0.
    pub(super) fn local_address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(socket) => Address::Tcp(socket.local_addr()?),
            Self::Unix(_, file) => Address::Unix(file.path.clone()),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(socket) => Stream::Tcp(socket.accept().await?.0),
            Self::Unix(socket, _) => Stream::Unix(socket.accept().await?.0),
        })
    }

    /// For the connections that the kernel has made already. The socket itself is asked, since the runtime says "later" also
    /// to a task that has had its turn.
    pub(super) fn closing(self) -> io::Result<Closing> {
        Ok(match self {
            Self::Tcp(socket) => Closing::Tcp(socket.into_std()?),
            Self::Unix(socket, file) => Closing::Unix(socket.into_std()?, file),
        })
    }
}

/// A socket at its end, which is asked without waiting.
#[derive(Debug)]
pub(super) enum Closing {
    Tcp(std::net::TcpListener),
    Unix(net::UnixListener, #[expect(dead_code, reason = "held, so that the file outlives the socket")] SocketFile),
}

impl Closing {
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream).map(Stream::Tcp)
            }
            Self::Unix(socket, _) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Stream::Unix)
            }
        }
    }
}

fn listen(socket: &AnySocket, backlog: i32) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(backlog)
}

impl SocketFile {
    fn bind(socket: &AnySocket, path: &Path, mode: Mode) -> io::Result<Self> {
        let address = SockAddr::unix(path)?;
        let mode = FileMode::from_raw_mode(mode.0);
        // The file begins with the socket's permissions, less what the process masks: nobody else gets in before the next
        // line but one gives it exactly these.
        fchmod(socket, mode)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(path) => {
                fs::remove_file(path)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let file = Self { path: path.to_owned(), identity: identity(path)? };
        chmod(path, mode)?;
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // What cannot be removed is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a socket's file has nobody behind it.
fn is_left(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && net::UnixStream::connect(path).is_err_and(refused)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MODE: Mode = Mode(0o600);

    fn at(path: &Path) -> io::Result<Socket> {
        Socket::bind(&Address::Unix(path.to_owned()), MODE, 16)
    }

    #[tokio::test]
    async fn a_file_is_there_for_as_long_as_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.socket");
        let socket = at(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(socket.local_address().unwrap(), Address::Unix(path.clone()));
        let client = UnixStream::connect(&path).await.unwrap();
        assert!(matches!(socket.accept().await.unwrap(), Stream::Unix(_)));
        drop((client, socket));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_what_nobody_needs_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.socket");
        // Its file stays when the socket is gone.
        drop(net::UnixListener::bind(&path).unwrap());
        let first = at(&path).unwrap();
        assert_eq!(at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "somebody listens");
        fs::remove_file(&path).unwrap();
        let second = at(&path).unwrap();
        drop(first);
        assert!(path.exists(), "the file is the second's");
        drop(second);
        fs::write(&path, "a person's").unwrap();
        assert_eq!(at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "no socket");
        assert_eq!(fs::read(&path).unwrap(), b"a person's");
    }

    #[tokio::test]
    async fn connections_that_wait_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.socket");
        let socket = at(&path).unwrap();
        let _client = UnixStream::connect(&path).await.unwrap();
        let closing = socket.closing().unwrap();
        assert!(matches!(closing.accept().unwrap(), Stream::Unix(_)));
        assert_eq!(closing.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
