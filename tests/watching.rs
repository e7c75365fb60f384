//! FilePattern that a site writes are messages: one for each write, never a torn one, and always the
//! last state.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use support::{BOUND, Gate, TempDir, eventually, eventually_some};

/// Watches `*.txt` for its content and `*.comet` for being touched.
fn rules(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
        [[watch]]
        path    = "{folder}/*.txt"
        channel = "{{1}}"
        content = true
        [[watch]]
        path    = "{folder}/*.comet"
        channel = "{{1}}"
        "#
    )
}

/// Room for all that the tests write.
const HISTORY: &str = r#"
    [history]
    messages = 10000
    bytes    = "64MiB"
    max_message = "2MiB"
"#;

async fn start(folder: &Path) -> Gate {
    Gate::start_alone(&format!("{}{HISTORY}", rules(folder))).await
}

/// The messages of the channel, oldest first.
async fn said(gate: &Gate, channel: &str) -> Vec<Value> {
    let answer = gate.hook("GET", &format!("/channels/{channel}/messages"), &[], "").await;
    if answer.status == 404 {
        return Vec::new();
    }
    let answer = answer.json();
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["data"].clone()).collect()
}

/// The newest message alone, where all of them are long.
async fn newest(gate: &Gate, channel: &str) -> Value {
    let info = gate.hook("GET", &format!("/channels/{channel}"), &[], "").await.json();
    let Some(id) = info["newest"]["id"].as_str() else { return Value::Null };
    let (epoch, seq) = id.split_once('-').unwrap();
    let before = seq.parse::<u64>().unwrap() - 1;
    let path = format!("/channels/{channel}/messages?cursor={epoch}-{before}");
    let answer = gate.hook("GET", &path, &[], "").await.json();
    answer["messages"].as_array().unwrap().last().map_or(Value::Null, |last| last["data"].clone())
}

/// Waits until all earlier changes in the folder have been published.
async fn fence(gate: &Gate, folder: &Path) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("fence-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    // A file linked into place has the longest wait: it might still be written.
    let beside = folder.join(format!("{name}.tmp"));
    fs::write(&beside, "fence").unwrap();
    fs::hard_link(&beside, folder.join(format!("{name}.comet"))).unwrap();
    fs::remove_file(&beside).unwrap();
    gate.wait_for_kept(&name, 1).await;
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let noise = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && noise.is_empty(), "{command:?}: {noise}");
}

/// Runs PHP with the file as `$f`, another beside it as `$g`.
fn php(code: &str, folder: &Path, file: &str) {
    let code = format!("$f = $argv[1]; $g = $argv[2]; {code}");
    run(Command::new("php")
        .args(["-r", &code, "--"])
        .arg(folder.join(file))
        .arg(folder.join("x.tmp")));
}

/// Runs the shell with the file as `$1`, another beside it as `$2`.
fn shell(code: &str, folder: &Path, file: &str) {
    run(Command::new("sh")
        .args(["-ec", code, "sh"])
        .arg(folder.join(file))
        .arg(folder.join("x.tmp")));
}

#[tokio::test]
async fn one_write_is_one_message_however_php_or_the_shell_makes_it() {
    let folder = TempDir::new("watch");
    let folder = folder.path();
    let gate = start(folder).await;
    let new = [
        ("file_put_contents", "file_put_contents($f, 'new');"),
        ("with LOCK_EX", "file_put_contents($f, 'new', LOCK_EX);"),
        ("with FILE_APPEND", "file_put_contents($f, 'new', FILE_APPEND | LOCK_EX);"),
        ("fopen and fwrite", "$h = fopen($f, 'w'); fwrite($h, 'n'); fflush($h); fwrite($h, 'ew');"),
        ("rename", "file_put_contents($g, 'new'); rename($g, $f);"),
        ("copy", "file_put_contents($g, 'new'); copy($g, $f); unlink($g);"),
        ("chmod after it", "file_put_contents($f, 'new'); chmod($f, 0640);"),
        ("delete first", "@unlink($f); file_put_contents($f, 'new');"),
        ("hard link", "file_put_contents($g, 'new'); @unlink($f); link($g, $f); unlink($g);"),
    ];
    let shells = [
        ("echo", "printf new > \"$1\""),
        ("mv", "printf new > \"$2\"; mv \"$2\" \"$1\""),
        ("ln", "printf new > \"$2\"; ln -f \"$2\" \"$1\"; rm \"$2\""),
        ("cp", "printf new > \"$2\"; cp -p \"$2\" \"$1\"; rm \"$2\""),
        ("dd", "printf new | dd of=\"$1\" bs=1 status=none"),
    ];
    let all = new.iter().map(|(what, code)| (what, code, true));
    let all = all.chain(shells.iter().map(|(what, code)| (what, code, false)));
    for (number, (what, code, by_php)) in all.enumerate() {
        let name = format!("w{number}");
        let file = format!("w{number}.txt");
        let write =
            |code: &str| if by_php { php(code, folder, &file) } else { shell(code, folder, &file) };
        write(code);
        fence(&gate, folder).await;
        assert_eq!(said(&gate, &name).await, [json!("new")], "a new file by {what}");
        write(code);
        fence(&gate, folder).await;
        let last = fs::read_to_string(folder.join(&file)).unwrap();
        assert_eq!(said(&gate, &name).await, [json!("new"), json!(last)], "again by {what}");
    }
    assert_eq!(gate.log().matches("not published").count(), 0, "{}", gate.log());
}

#[tokio::test]
async fn one_touch_is_one_empty_message() {
    let folder = TempDir::new("watch");
    let folder = folder.path();
    let gate = start(folder).await;
    type Touch<'a> = &'a dyn Fn(&str);
    let touches: [(&str, Touch<'_>); 3] = [
        ("PHP", &|file| php("touch($f);", folder, file)),
        ("PHP with a time", &|file| {
            php("touch($f, 1700000000 + random_int(1, 1 << 20));", folder, file)
        }),
        ("the shell", &|file| shell("touch \"$1\"", folder, file)),
    ];
    for (number, (who, touch)) in touches.iter().enumerate() {
        let name = format!("t{number}");
        let file = format!("t{number}.comet");
        for count in 1..=3 {
            touch(&file);
            fence(&gate, folder).await;
            assert_eq!(said(&gate, &name).await, vec![json!(""); count], "touch by {who}");
        }
    }
    // Two within a second are two, which PHP's own poll cannot distinguish.
    php("touch($f); usleep(50000); touch($f);", folder, "twice.comet");
    gate.wait_for_kept("twice", 2).await;
}

#[tokio::test]
async fn what_is_no_write_is_no_message() {
    let folder = TempDir::new("watch");
    let folder = folder.path();
    let gate = start(folder).await;
    php("file_put_contents($f, 'a');", folder, "a.txt");
    gate.wait_for_kept("a", 1).await;
    // The clock's tick is over: from here on an equal time is no second write.
    fence(&gate, folder).await;
    fence(&gate, folder).await;
    php("chmod($f, 0600); fclose(fopen($f, 'r+')); file_get_contents($f);", folder, "a.txt");
    php("unlink($f);", folder, "a.txt");
    fs::write(folder.join("a.txt.tmp"), "x").unwrap();
    fs::write(folder.join(".hidden.txt"), "x").unwrap();
    fence(&gate, folder).await;
    assert_eq!(said(&gate, "a").await, [json!("a")]);
    assert_eq!(gate.hook("GET", "/channels/.hidden", &[], "").await.status, 404);
}

#[tokio::test]
async fn what_is_there_at_the_start_is_the_first_message_at_its_own_time() {
    let folder = TempDir::new("watch");
    let folder = folder.path();
    php("file_put_contents($f, 'before'); touch($f, 1700000000);", folder, "data.txt");
    php("touch($f, 1700000000);", folder, "news.comet");
    let polls = r#"
        [[poll]]
        path    = "/backend.php"
        dialect = "timestamp"
        channel = "data"
        [[poll]]
        path    = "/comet.php"
        dialect = "novcomet"
        [history]
        age = "1s"
    "#;
    let gate = Gate::start_alone(&(rules(folder) + polls)).await;
    // It stays although it is older than `history.age`: the file still contains it.
    eventually("the age is over", async || said(&gate, "news").await.is_empty()).await;
    let first = gate.get("/backend.php").await.json();
    assert_eq!(first, json!({"msg": "before", "timestamp": 1_700_000_000.0}));

    let changed = gate.get("/comet.php?subscribed[news]=1699999999").await.json();
    assert_eq!(changed, json!({"s": 1, "k": {"news": 1_700_000_000.0}}));
    let mut client = gate.connect().await;
    client.send_get("/comet.php?subscribed[news]=1700000000").await;
    gate.wait_for_held(1).await;
    php("touch($f);", folder, "news.comet");
    assert_eq!(client.read_response().await.json()["s"], 1);
}

#[tokio::test]
async fn a_directory_may_come_later_go_and_be_replaced() {
    let root = TempDir::new("watch");
    let folder = root.path().join("site/shm");
    let gate = start(&folder).await;
    gate.wait_for_log("waiting for it").await;
    fs::create_dir(root.path().join("site")).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.txt"), "first").unwrap();
    gate.wait_for_kept("a", 1).await;

    // Deleted with all that is in it, and made again.
    fs::remove_dir_all(root.path().join("site")).unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.txt"), "second").unwrap();
    gate.wait_for_kept("a", 2).await;

    // Another takes its place at once.
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a.txt"), "third").unwrap();
    fs::rename(&folder, root.path().join("old")).unwrap();
    fs::rename(&other, &folder).unwrap();
    gate.wait_for_kept("a", 3).await;
    fs::write(root.path().join("old/a.txt"), "from afar").unwrap();
    fs::write(folder.join("a.txt"), "fourth").unwrap();
    gate.wait_for_kept("a", 4).await;
    assert_eq!(said(&gate, "a").await, ["first", "second", "third", "fourth"].map(Value::from));
}

#[tokio::test]
async fn directories_that_a_star_matches_are_watched_also_those_that_come_later() {
    let root = TempDir::new("watch");
    let rooms = root.path().join("rooms");
    let write = |room: &str, text: &str| {
        fs::create_dir_all(rooms.join(room)).unwrap();
        fs::write(rooms.join(room).join("log.txt"), text).unwrap();
    };
    write("attic", "old");
    let folder = root.path().display();
    let rules = format!(
        r#"
        [[watch]]
        path    = "{folder}/rooms/*/*.txt"
        channel = "{{2}} of {{1}}"
        content = true
        "#
    );
    let gate = Gate::start_alone(&format!("{rules}{HISTORY}")).await;
    gate.wait_for_kept("log of attic", 1).await;
    write("attic", "new");
    gate.wait_for_kept("log of attic", 2).await;
    // A directory with a file in it, before the gate can see either.
    write("cellar", "first");
    gate.wait_for_kept("log of cellar", 1).await;
    write("cellar", "second");
    gate.wait_for_kept("log of cellar", 2).await;
    fs::remove_dir_all(rooms.join("cellar")).unwrap();
    write("cellar", "third");
    gate.wait_for_kept("log of cellar", 3).await;
    // Neither a hidden directory nor a file is one that the star matches.
    write(".git", "hidden");
    fs::write(rooms.join("file"), "").unwrap();
    fs::rename(rooms.join("attic"), rooms.join("loft")).unwrap();
    gate.wait_for_kept("log of loft", 1).await;
    assert_eq!(said(&gate, "log%20of%20cellar").await, ["first", "second", "third"]);
    assert_eq!(said(&gate, "log%20of%20attic").await, ["old", "new"]);
    assert_eq!(said(&gate, "log%20of%20.git").await, [""; 0]);
}

#[tokio::test]
async fn a_path_through_a_link_follows_when_the_link_is_switched() {
    let root = TempDir::new("watch");
    let current = root.path().join("current");
    for release in ["one", "two"] {
        fs::create_dir(root.path().join(release)).unwrap();
    }
    std::os::unix::fs::symlink("one", &current).unwrap();
    let gate = start(&current).await;
    fs::write(current.join("a.txt"), "in one").unwrap();
    gate.wait_for_kept("a", 1).await;
    let next = root.path().join("next");
    std::os::unix::fs::symlink("two", &next).unwrap();
    fs::rename(&next, &current).unwrap();
    fs::write(current.join("a.txt"), "in two").unwrap();
    gate.wait_for_kept("a", 2).await;
    assert_eq!(said(&gate, "a").await, [json!("in one"), json!("in two")]);
}

#[tokio::test]
async fn what_cannot_be_published_is_told_once_and_harms_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let folder = TempDir::new("watch");
    let folder = folder.path();
    let gate = start(folder).await;
    let secret = folder.join("secret");
    fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, folder.join("link.txt")).unwrap();
    fs::create_dir(folder.join("folder.txt")).unwrap();
    run(Command::new("mkfifo").arg(folder.join("pipe.txt")));
    for _ in 0..3 {
        fs::write(folder.join("large.txt"), vec![b'x'; (2 << 20) + 1]).unwrap();
    }
    let odd = [b"bad\xff.txt".as_slice(), b"new\nline.txt", &[b'x'; 250]];
    for name in odd {
        fs::write(folder.join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    for (file, why) in [
        ("link.txt", "symbolic link"),
        ("folder.txt", "is a directory"),
        ("pipe.txt", "no regular file"),
        ("large.txt", "history.max_message"),
        ("bad\\xFF.txt", "not UTF-8"),
        ("new\\nline.txt", "control character"),
    ] {
        let line = |log: &str| {
            let fits = |line: &&str| line.contains(file) && line.contains(why);
            log.lines().filter(fits).count()
        };
        eventually(&format!("{file}: {why}"), async || line(&gate.log()) > 0).await;
        fence(&gate, folder).await;
        assert_eq!(line(&gate.log()), 1, "{file}: {}", gate.log());
    }
    assert!(!gate.log().contains("secret"), "{}", gate.log());
    // Once it fits, it is published.
    fs::write(folder.join("large.txt"), "small").unwrap();
    gate.wait_for_kept("large", 1).await;
}

/// One megabyte that names its version in each of its pieces.
fn version(number: usize) -> Vec<u8> {
    format!("{number:015}\n").repeat(1 << 16).into_bytes()
}

#[tokio::test]
async fn no_message_is_torn_and_the_last_state_always_arrives() {
    const VERSIONS: usize = 300;
    let folder = TempDir::new("watch");
    let gate = start(folder.path()).await;
    let file = folder.path().join("large.txt");
    let beside = folder.path().join("large.tmp");
    let writer = tokio::task::spawn_blocking(move || {
        for number in 1..=VERSIONS {
            let bytes = version(number);
            match number % 3 {
                // Truncated and written in pieces, as PHP's streams do.
                0 => bytes
                    .chunks(8192)
                    .try_fold(File::create(&file).unwrap(), |mut file, piece| {
                        file.write_all(piece).map(|()| file)
                    })
                    .map(drop)
                    .unwrap(),
                // Beside it, and renamed into place.
                1 => {
                    fs::write(&beside, bytes).unwrap();
                    fs::rename(&beside, &file).unwrap();
                }
                _ => fs::write(&file, bytes).unwrap(),
            }
            if number % 7 == 0 {
                std::thread::yield_now();
            }
        }
    });
    writer.await.unwrap();
    let last = String::from_utf8(version(VERSIONS)).unwrap();
    // A look alone moves a megabyte.
    let look = async || (newest(&gate, "large").await == last).then_some(());
    eventually_some("the last version", 6 * BOUND, look).await;
    let mut before = 0;
    for message in said(&gate, "large").await {
        let text = message.as_str().unwrap();
        let number: usize = text[..15].parse().unwrap();
        assert!(number > before, "{number} after {before}");
        assert!(text.as_bytes() == version(number), "version {number} is torn");
        before = number;
    }
}

#[tokio::test]
async fn the_last_state_of_every_file_arrives_though_the_queue_runs_over() {
    const FILES: usize = 600;
    let folder = TempDir::new("watch");
    let folder = folder.path();
    let gate = start(folder).await;
    for number in 0..FILES {
        fs::write(folder.join(format!("f{number}.txt")), "before").unwrap();
    }
    gate.wait_for_kept(&format!("f{}", FILES - 1), 1).await;
    // The gate stands still while more is written than the kernel remembers.
    gate.signal("STOP");
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    let rounds = most / FILES / 2 + 2;
    for round in 0..rounds {
        for number in 0..FILES {
            fs::write(folder.join(format!("f{number}.txt")), format!("round {round}")).unwrap();
        }
    }
    fs::write(folder.join("new.txt"), "appeared meanwhile").unwrap();
    gate.signal("CONT");
    gate.wait_for_log("faster than they could be told of").await;
    let last = json!(format!("round {}", rounds - 1));
    eventually("the last state of every file", async || {
        for number in 0..FILES {
            if said(&gate, &format!("f{number}")).await.last() != Some(&last) {
                return false;
            }
        }
        said(&gate, "new").await == [json!("appeared meanwhile")]
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_touches_a_second_leave_the_gate_quick() {
    let folder = TempDir::new("watch");
    let path = folder.path().to_owned();
    let gate = start(folder.path()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let storm = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let open = |number: usize| {
                let file = path.join(format!("s{number}.comet"));
                File::create(&file).unwrap();
                File::open(file).unwrap()
            };
            let files: Vec<File> = (0..500).map(open).collect();
            let began = Instant::now();
            let mut touched = 0u32;
            while !stop.load(Ordering::Relaxed) {
                for file in &files {
                    let now = SystemTime::now();
                    let times = fs::FileTimes::new().set_accessed(now).set_modified(now);
                    file.set_times(times).unwrap();
                }
                touched += 500;
                // As fast as that, and no faster.
                let due = began + Duration::from_secs(1) * touched / 10_000;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
    });
    let mut client = gate.connect().await;
    gate.wait_for_kept("s499", 3).await;
    for number in 0..50 {
        client.send_get("/comet/chat").await;
        gate.wait_for_held(1).await;
        gate.publish("chat", format!("{number}")).await;
        let answer = client.read_response().await.json();
        assert_eq!(answer["messages"][0]["data"], format!("{number}"));
    }
    stop.store(true, Ordering::Relaxed);
    storm.join().unwrap();
}

/// Time of a message from PHP's `file_put_contents` to the client. Prints its measurements: `cargo
/// test --features site-tests --test watching latency -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
async fn latency_from_file_put_contents_to_the_client() {
    let folder = TempDir::new("watch");
    let gate = start(folder.path()).await;
    let mut took = Vec::new();
    let code = "while (fgets(STDIN) !== false) { file_put_contents($f, (string) (int) (microtime(true) * 1e6)); }";
    let code = format!("$f = $argv[1]; {code}");
    let mut php = Command::new("php")
        .args(["-r", &code, "--"])
        .arg(folder.path().join("a.txt"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = php.stdin.take().unwrap();
    let mut client = gate.connect().await;
    for _ in 0..1000 {
        client.send_get("/comet/a").await;
        gate.wait_for_held(1).await;
        writeln!(stdin).unwrap();
        let answer = client.read_response().await.json();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let began: u128 = answer["messages"][0]["data"].as_str().unwrap().parse().unwrap();
        took.push(now.saturating_sub(began));
    }
    drop(stdin);
    php.wait().unwrap();
    took.sort_unstable();
    println!("p50 {} us, p99 {} us, max {} us", took[500], took[990], took[999]);
}

#[tokio::test]
async fn a_file_without_a_star_is_watched_too() {
    let folder = TempDir::new("watch");
    let file = folder.path().join("data.txt");
    let rule =
        format!("[[watch]]\npath = \"{}\"\nchannel = \"live\"\ncontent = true\n", file.display());
    let gate = Gate::start_alone(&rule).await;
    fs::write(folder.path().join("other.txt"), "x").unwrap();
    fs::write(&file, "hello").unwrap();
    let found = eventually_some("a message", support::BOUND, async || {
        said(&gate, "live").await.first().cloned()
    });
    assert_eq!(found.await, "hello");
    assert_eq!(gate.status().await["channels"], 1);
}

#[tokio::test]
async fn a_reload_watches_other_files_and_disturbs_none_that_stay() {
    let folder = TempDir::new("watch");
    let folder = folder.path();
    let rule = |ending: &str| {
        let path = folder.display();
        format!("[[watch]]\npath = \"{path}/*.{ending}\"\nchannel = \"{{1}}\"\ncontent = true\n")
    };
    let gate = Gate::start_alone(&rule("a")).await;
    fs::write(folder.join("one.a"), "1").unwrap();
    gate.wait_for_kept("one", 1).await;
    let config = fs::read_to_string(gate.config_file()).unwrap();
    fs::write(folder.join("two.b"), "before").unwrap();
    fs::write(gate.config_file(), config.clone() + &rule("b")).unwrap();
    assert_eq!(gate.hook("POST", "/reload", &[], "").await.status, 200);
    // A file there is a first message; an unchanged one was published already.
    gate.wait_for_kept("two", 1).await;
    fs::write(folder.join("two.b"), "after").unwrap();
    gate.wait_for_kept("two", 2).await;
    assert_eq!(said(&gate, "one").await, [json!("1")]);

    fs::write(gate.config_file(), config.replace("*.a", "*.b")).unwrap();
    assert_eq!(gate.hook("POST", "/reload", &[], "").await.status, 200);
    fs::write(folder.join("two.b"), "still").unwrap();
    gate.wait_for_kept("two", 3).await;
    fs::write(folder.join("one.a"), "2").unwrap();
    fs::write(folder.join("two.b"), "fence").unwrap();
    gate.wait_for_kept("two", 4).await;
    assert_eq!(said(&gate, "one").await, [json!("1")]);
}

#[tokio::test]
async fn after_a_crash_a_file_is_still_the_newest_message() {
    let folder = TempDir::new("watch");
    let folder = folder.path();
    let snapshot = format!(
        "[drain]\nspread = \"0s\"\n[history]\nsnapshot = \"{}\"\nsnapshot_every = \"1h\"\n",
        folder.join("history").display()
    );
    let config = format!("{}{snapshot}", rules(folder));
    let gate = Gate::start_alone(&config).await;
    fs::write(folder.join("a.txt"), "one").unwrap();
    gate.wait_for_newest("a", "one").await;
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0, "{}", gate.log());

    let gate = Gate::start_alone(&config).await;
    fs::write(folder.join("a.txt"), "two").unwrap();
    gate.wait_for_newest("a", "two").await;
    // The snapshot does not have it, and it is not fresh any more.
    gate.kill();
    gate.wait_for_exit().await;
    let written = fs::metadata(folder.join("a.txt")).unwrap().modified().unwrap();
    eventually("a settled file", async || written.elapsed().unwrap() > Duration::from_secs(1))
        .await;

    let gate = Gate::start_alone(&config).await;
    gate.wait_for_newest("a", "two").await;
    assert_eq!(said(&gate, "a").await, [json!("one"), json!("two")]);
}
