use super::*;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

fn socket(name: &str) -> Socket {
    Socket { asked: name.to_owned(), bound: name.to_owned() }
}

fn ready() -> Ready {
    Ready { internal: "127.0.0.1:7080".to_owned(), token: "t".to_owned(), upgrade: true }
}

#[test]
fn sockets_and_history_change_hands() {
    let (old, new) = UnixStream::pair().unwrap();
    let new_process = thread::spawn(move || {
        let (new_process, mut sockets) = NewProcess::begin(new).unwrap();
        let mut history = Vec::new();
        new_process.ready(ready()).unwrap().take(7).read_to_end(&mut history).unwrap();
        new_process.loaded().unwrap();
        let (described, fd) = sockets.remove(0);
        // The received descriptor is alive: it is the other end of a pipe.
        UnixStream::from(fd).write_all(b"alive").unwrap();
        (described, history)
    });
    let (near, far) = UnixStream::pair().unwrap();
    let old = OldProcess::begin(old).unwrap();
    old.sockets(&[(socket("a"), far.as_fd())]).unwrap();
    let update = old.ready().unwrap();
    assert_eq!(update.address(), "127.0.0.1:7080".parse().ok());
    old.history(|mut to| to.write_all(b"history")).unwrap();
    old.go().unwrap();
    drop(far);
    assert_eq!(new_process.join().unwrap(), (socket("a"), b"history".to_vec()));
    let mut said = String::new();
    { &near }.read_to_string(&mut said).unwrap();
    assert_eq!(said, "alive");
}

#[test]
fn a_new_process_that_dies_is_noticed_at_every_step() {
    for steps in 0..3 {
        let (old, new) = UnixStream::pair().unwrap();
        let new_process = thread::spawn(move || {
            if steps == 0 {
                return;
            }
            let (new_process, _) = NewProcess::begin(new).unwrap();
            if steps == 2 {
                let mut word = [0; 4];
                new_process.ready(ready()).unwrap().read_exact(&mut word).unwrap();
            }
        });
        let gone = OldProcess::begin(old).and_then(|old| {
            old.sockets(&[])?;
            old.ready()?;
            old.history(|mut to| to.write_all(b"1234").and_then(|()| to.flush()))?;
            old.go()
        });
        assert!(matches!(gone, Err(HandoverError::Broken(_))), "{steps}: {gone:?}");
        new_process.join().unwrap();
    }
}

#[test]
fn another_protocol_is_refused_with_words() {
    let (old, new) = UnixStream::pair().unwrap();
    wire::send(&new, &WireMessage::Hello { protocol: 99, version: "9.9".to_owned() }).unwrap();
    assert!(matches!(OldProcess::begin(old), Err(HandoverError::Version(v)) if v == "9.9"));
    assert!(matches!(wire::receive(&new).unwrap(), WireMessage::Refused { .. }));
}

#[test]
fn what_is_no_word_is_an_error() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x04\0\0\0nope", b"\x01", b""] {
        let (old, new) = UnixStream::pair().unwrap();
        { &new }.write_all(bytes).unwrap();
        drop(new);
        assert!(OldProcess::begin(old).is_err(), "{bytes:?}");
    }
}

#[test]
fn the_socket_is_private_and_its_folder_has_to_be() {
    let folder = std::env::temp_dir().join(format!("pollgate-place-{}", std::process::id()));
    let path = folder.join("a.upgrade");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let listener = bind(&path, true).unwrap();
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    assert!(join(&path).is_ok());
    assert!(matches!(bind(&path, true), Err(SocketError::Bind(..))));
    drop(listener);
    assert!(matches!(join(&path), Err(SocketError::Nobody(..))));
    drop(bind(&path, true).unwrap());
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(bind(&path, true), Err(SocketError::Open(_))));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_path_follows_from_the_first_internal_address() {
    let path = |text: &str| default_path(&text.parse().unwrap());
    assert_eq!(path("127.0.0.1:0"), None);
    let name = |text| path(text).unwrap().file_name().unwrap().to_owned();
    assert_eq!(name("127.0.0.1:7080"), "127.0.0.1-7080.upgrade");
    assert_eq!(name("unix:/run/a/b.sock"), "-run-a-b.sock.upgrade");
    assert_ne!(path("127.0.0.1:7080"), path("[::1]:7080"));
}
